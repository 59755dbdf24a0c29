"""Ranks that sum different things end the job within seconds; the message names rank, step and call, and no sum is taken."""

import re

import pytest

from tests.faults import jobs

_PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from lepton_mpi.collectives.within_host.plans import HostPlan
from lepton_mpi.collectives.within_host.vectors import HostVectors
from lepton_mpi.world.world import run

how, count = sys.argv[1], int(sys.argv[2])

def main(world):
    is_odd = world.rank == 1
    vectors = HostVectors(world, count, np.float64 if how == "dtype" and is_odd else np.float32, "shared")
    operation = "max" if how == "operation" and is_odd else "sum"
    stop = count - 1 if how == "length" and is_odd else count
    plan = HostPlan(vectors, 0, stop, operation, purpose="gradients")
    other = HostPlan(vectors, 0, 100, purpose="norms")
    for step in range(1, 8):
        world.clock.enter("communication", step)
        for row in vectors.inputs:
            row[:] = world.rank + step
        if how == "skipped" and step == 4 and is_odd:
            continue
        (other if how == "other" and step == 4 and is_odd else plan).run()
        if how == "extra" and step == 4 and is_odd:
            plan.run()
        total = world.size * step + sum(range(world.size))
        assert (vectors.result[:stop] == total).all(), (step, vectors.result)
        if step == 4:
            Path(f"summed.{world.rank}").touch()

raise SystemExit(run(main, 60))
"""

_SAID = {
    "skipped": "rank 1 calls sum of gradients [0, {n}) of float32 in step 5, call 4, rank 0 sum of gradients [0, {n}) of float32 in step 4, call 4",
    "extra": "rank 1 calls sum of gradients [0, {n}) of float32 in step 4, call 5, rank 0 sum of gradients [0, {n}) of float32 in step 5, call 5",
    "other": "rank 1 calls sum of norms [0, 100) of float32 in step 4, call 1, rank 0 sum of gradients [0, {n}) of float32 in step 4, call 4",
    "length": "rank 1 calls sum of gradients [0, {m}) of float32 in step 1, call 1, rank 0 sum of gradients [0, {n}) of float32 in step 1, call 1",
    "dtype": "rank 1 calls sum of gradients [0, {n}) of float64 in step 1, call 1, rank 0 sum of gradients [0, {n}) of float32 in step 1, call 1",
    "operation": "rank 1 calls max of gradients [0, {n}) of float32 in step 1, call 1, rank 0 sum of gradients [0, {n}) of float32 in step 1, call 1",
}


@pytest.mark.slow(but_every=6)
@pytest.mark.parametrize("count", [500, 300_000], ids=["one piece", "several"])
@pytest.mark.parametrize("how", _SAID)
def test_ranks_that_sum_different_things(tmp_path, how, count):
    """Found where they meet, or, where they wait in different places, by who watches them; limits on time play no part."""
    job = jobs.run(3, "-c", _PROGRAM, how, str(count), cwd=tmp_path, limit_seconds=50)
    assert job.code == 5, job.text
    if how == "dtype" and count > 500:  # they are not as long
        said = "the ranks of a host differ in what they share as other: rank 1 of the host has 10485760 bytes, rank 0 6291456;"
        assert job.text.count(said) == 1, job.text
        return
    found = re.findall(r"lepton_mpi: the ranks sum different things.*", job.text)
    assert len(found) == 1, job.text
    assert _SAID[how].format(n=count, m=count - 1) in found[0], found
    summed = {path.name for path in tmp_path.glob("summed.*")}
    assert summed <= ({"summed.0", "summed.1", "summed.2"} if how == "extra" else set()), summed
    assert "AssertionError" not in job.text


def test_ranks_that_sum_the_same_go_on(tmp_path):
    job = jobs.run(3, "-c", _PROGRAM, "same", "500", cwd=tmp_path)
    assert job.code == 0, job.text


_OVERLAPPED = """
import sys
import numpy as np
from lepton_mpi.collectives.between_hosts.overlapped_sum import OverlappedSum
from lepton_mpi.collectives.within_host.vectors import HostVectors
from lepton_mpi.world.world import run

def main(world):
    vectors = HostVectors(world, 1000, np.float32, "shared")
    buckets = [(0, 500), (500, 1000)]
    summing = OverlappedSum(vectors, buckets, purpose="gradients")
    for step in range(1, 8):
        is_odd = world.rank == 1 and step >= int(sys.argv[1])
        world.clock.enter("communication", step + is_odd)
        for row in vectors.inputs:
            row[:] = world.rank + step
        summing.begin()
        for bucket in range(2):
            summing.ready(bucket)
        summing.until(lambda: all(map(summing.is_complete, range(2))))
        first, last = summing.slices[0]
        total = world.size * step + sum(range(world.size))
        assert (vectors.result[first:last] == total).all(), step
        world.host_barrier()

raise SystemExit(run(main, 60))
"""


@pytest.mark.slow(but_every=3)
@pytest.mark.parametrize("step", [1, 4, 9])
def test_steps_of_sums_in_buckets_are_compared(tmp_path, step):
    """As the ranks see that all are ready with a bucket; beyond the last step nothing differs."""
    job = jobs.run(3, "-c", _OVERLAPPED, str(step), cwd=tmp_path, limit_seconds=50)
    if step > 7:
        assert job.code == 0, job.text
        return
    assert job.code == 5, job.text
    found = re.findall(
        r"lepton_mpi: .*the ranks sum different things, and nothing was summed: (.*)", job.text
    )
    expected = f"rank 1 the gradients of step {step + 1}, rank 0 the gradients of step {step}, both in call {step}, bucket 0;"
    assert len(found) == 1 and found[0].startswith(expected), job.text


_COMPRESSED = """
import sys
import numpy as np
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.options.own import completed
from lepton_mpi.strategies.local import make
from lepton_mpi.strategies.strategy import Setting
from lepton_mpi.vectors import Layout
from lepton_mpi.world.world import run
from tests.parallel.pretended import on_hosts

def main(world):
    layout = Layout({"w": (500,)})
    own = completed({"strategy": "local"}, {"strategy": {"sync_every": 1}})["strategy"]
    settings = Settings("momentum", lambda step: 0.1, 0.5)
    setting = Setting(on_hosts(world, [0, 0, 1]), layout, np.dtype(np.float32), 3, settings, own=own, compress="int8")
    strategy = make(setting)
    for step in range(1, 8):
        for share in strategy.shares(step):
            share.vector[:] = world.rank + step
        strategy.step(step + (world.rank == 1 and step == 4), 8)

raise SystemExit(run(main, 60))
"""


def test_steps_of_compressed_means_are_compared(tmp_path):
    """Workers that meet, with a codec between hosts; the two of a host are not in the same step."""
    where = {"PYTHONPATH": str(jobs.ROOT)}
    job = jobs.run(3, "-c", _COMPRESSED, cwd=tmp_path, limit_seconds=50, **where)
    assert job.code == 5, job.text
    found = re.findall(r"lepton_mpi: the ranks sum different things.*", job.text)
    text = "sum of differences [0, 500) of float32 in step"
    assert len(found) == 1, job.text
    assert f"rank 0 calls {text} 4, call 4, rank 1 {text} 5, call 4;" in found[0]
