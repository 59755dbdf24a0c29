"""Tuning in earnest, on small vectors: the table is stored, and ``auto`` goes by it."""

import numpy as np
import pytest

from lepton_mpi.collectives.allreduce import NAMES, make_plan
from lepton_mpi.collectives.choosing import tuning
from lepton_mpi.collectives.choosing.measuring import tune
from tests.parallel.together import check, together


@pytest.fixture
def tables(world, folder, monkeypatch):
    """A folder for tables, and a world that has not looked for one yet."""
    monkeypatch.setenv("LEPTON_TUNING", str(folder))
    world.remembered.pop("tuning", None)
    yield folder
    world.remembered.pop("tuning", None)


def test_tune_stores_what_auto_goes_by(world, tables):
    """Every algorithm in every size, right on all ranks; the fastest becomes auto."""
    table = tune(world, 600, seconds=0.002)
    with together(world):
        assert {case.bytes for case in table.measured} == {8, 24, 64, 192, 512}
        known = {case.algorithm for case in table.measured}
        assert known >= {"host" if world.host_count == 1 else "two_level", "ring", "mpi"}
        assert known <= set(NAMES)
        assert (table.fit is None) == (world.size == 1)
    with together(world):
        if world.rank == 0:
            assert tuning.load(tuning.job_of(world)) == table
    world.comm.Barrier()
    plan = make_plan(world, mode="array", array=np.zeros(6, np.float32))
    fastest = table.fastest("array", 24)[0]
    check(world, plan.algorithm == fastest.algorithm and "fastest" in plan.reason, plan.reason)


def test_a_dry_run_stores_nothing(world, tables):
    """The folder stays empty."""
    tune(world, 8, seconds=0.001, dry_run=True)
    world.comm.Barrier()
    check(world, not list(tables.iterdir()))


def test_ranks_agree_on_a_choice_when_only_one_can_read_the_table(world, tables, monkeypatch):
    """Rank 0 reads, and everybody takes what it found."""
    tune(world, 8, seconds=0.001)
    world.remembered.pop("tuning", None)
    if world.rank:
        monkeypatch.setenv("LEPTON_TUNING", "/nowhere")
    plan = make_plan(world, 2, np.float32)
    names = world.comm.allgather((plan.algorithm, plan.reason))
    check(world, len(set(names)) == 1 and "fastest" in names[0][1], str(names))
