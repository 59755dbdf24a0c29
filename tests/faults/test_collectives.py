"""Collectives in the long run, and when a rank dies in the middle of a call."""

import re
import time

import pytest

from lepton_mpi import launcher
from tests.faults import jobs

_LOOP = """
import os, signal, sys, threading, time
import numpy as np
from lepton_mpi.world.world import run

def loop(world):
    from lepton_mpi.collectives.allreduce import make_plan
    mode, algorithm = sys.argv[1], sys.argv[2]
    array = np.zeros(1 << 20, np.float32) if mode == "array" else None
    plan = make_plan(world, 1 << 20, np.float32, mode=mode, array=array, algorithm=algorithm)
    plan.run()
    if world.rank == 2:
        def kill():
            print("killed at", time.time(), flush=True)
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Timer(0.3, kill).start()
    while True:
        plan.run()

sys.exit(run(loop, 60))
"""

_FAMILY_LOOP = """
import os, signal, sys, threading, time
import numpy as np
from lepton_mpi.world.world import run

def loop(world):
    from lepton_mpi.collectives.communicator import Communicator
    verb, count = sys.argv[1], int(sys.argv[2])
    one = Communicator(world)
    array, whole = np.zeros(count, np.float32), np.zeros(count * world.size, np.float32)
    parts = list(whole.reshape(world.size, -1)) if world.rank == 0 else None
    calls = {
        "broadcast": lambda: one.broadcast(array, 0),
        "reduce": lambda: one.reduce(array, 0),
        "allreduce": lambda: one.allreduce(array),
        "alltoall": lambda: one.alltoall(whole, whole.copy()),
        "gather": lambda: one.gather(parts, array, 0),
    }
    calls[verb]()
    one.barrier()
    if world.rank == 2:
        def kill():
            print("killed at", time.time(), flush=True)
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Timer(0.3, kill).start()
    while True:
        calls[verb]()

sys.exit(run(loop, 60))
"""

_MEMORY = """
import numpy as np
from lepton_mpi.world.world import run

def resident_kib():
    return int(open("/proc/self/statm").read().split()[1]) * 4

def measure(world):
    from lepton_mpi.collectives.allreduce import make_plan
    for mode, algorithm in (("shared", "host"), ("private", "host"), ("array", "host"), ("array", "ring")):
        array = np.zeros(50_000, np.float32) if mode == "array" else None
        plan = make_plan(world, 50_000, np.float32, mode=mode, array=array, algorithm=algorithm)
        for _ in range(100):
            plan.run()
        before = resident_kib()
        for _ in range(1000):
            plan.run()
        world.comm.Barrier()
        growth = world.comm.allgather(resident_kib() - before)
        if world.rank == 0:
            print("grown", mode, algorithm, max(growth), "KiB", flush=True)

raise SystemExit(run(measure, 60))
"""


_BOUND = """
import os, sys
import numpy as np
from lepton_mpi.launcher import core_numbers, launched_rank

# As launchers do that bind: one rank to one core, another to all.
if launched_rank() == 0:
    os.sched_setaffinity(0, {min(core_numbers())})

from lepton_mpi.world.world import run

def check(world):
    from lepton_mpi.collectives.allreduce import make_plan
    for count in (75_000, 1 << 20):
        plan = make_plan(world, count, np.float32, mode="private")
        numbers = np.arange(count, dtype=np.float32) % 1000
        for _ in range(20):
            plan.input[:] = numbers * (world.rank + 1)
            plan.run()
            wrong = world.sum(np.array([np.count_nonzero(plan.result != 3 * numbers)]))[0]
            assert wrong == 0, wrong
    if world.rank == 0:
        print("right, cores", world.cores)

sys.exit(run(check, 30))
"""


def test_ranks_that_are_bound_differently_cut_alike(tmp_path):
    """What all ranks of a host must agree on follows from the host's cores, not from those of one rank."""
    cores = launcher.core_count()
    if cores < 2:
        pytest.skip("needs 2 cores")
    (tmp_path / "bound.py").write_text(_BOUND)
    job = jobs.run(2, str(tmp_path / "bound.py"), cwd=tmp_path)
    assert job.code == 0, job.text
    assert f"right, cores {cores}" in job.out, job.text


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize(
    ("mode", "algorithm"),
    [("shared", "host"), ("private", "host"), ("array", "host"), ("array", "ring")],
)
def test_a_rank_killed_in_the_middle_of_a_call_is_named(tmp_path, mode, algorithm):
    """All ranks are gone 3 s after a kill -9, and a message says which one it was."""
    (tmp_path / "loop.py").write_text(_LOOP)
    job = jobs.run(4, str(tmp_path / "loop.py"), mode, algorithm, cwd=tmp_path)
    ended = time.time()
    assert job.code != 0, job.text
    # Launchers of MPICH's family end the other ranks at once, and may be faster than these can speak.
    assert re.search(r"rank 2 of 4 \(process \d+\) died|BAD TERMINATION", job.text), job.text
    killed = float(re.search(r"killed at ([0-9.]+)", job.out)[1])
    assert ended - killed < 3, f"{ended - killed:.1f} s\n{job.text}"
    print(f"{mode}, {algorithm}: ended {ended - killed:.2f} s after the kill")


# The short ones lie in the ring, the long ones are staged, or read where they are.
@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize(
    ("verb", "count"),
    [
        ("broadcast", 2),
        ("reduce", 2),
        ("allreduce", 1 << 18),
        ("alltoall", 1 << 18),
        ("gather", 1 << 14),
    ],
)
def test_a_rank_killed_in_a_call_of_a_communicator_is_named(tmp_path, verb, count):
    """All ranks are gone 3 s after a kill -9, also those that wait for nobody in a short broadcast or reduce."""
    (tmp_path / "family.py").write_text(_FAMILY_LOOP)
    job = jobs.run(4, str(tmp_path / "family.py"), verb, str(count), cwd=tmp_path)
    ended = time.time()
    assert job.code != 0, job.text
    assert re.search(r"rank 2 of 4 \(process \d+\) died|BAD TERMINATION", job.text), job.text
    killed = float(re.search(r"killed at ([0-9.]+)", job.out)[1])
    assert ended - killed < 3, f"{ended - killed:.1f} s\n{job.text}"
    print(f"{verb}, {count}: ended {ended - killed:.2f} s after the kill")


def test_a_thousand_calls_leave_memory_flat(tmp_path):
    """Nothing is allocated by a call: less than 64 bytes of growth each, which is less than any object."""
    (tmp_path / "memory.py").write_text(_MEMORY)
    job = jobs.run(2, str(tmp_path / "memory.py"), cwd=tmp_path)
    assert job.code == 0, job.text
    grown = [int(line.split()[3]) for line in job.lines("grown")]
    assert len(grown) == 4, job.text
    assert max(grown) * 1024 < 64 * 1000, job.text
