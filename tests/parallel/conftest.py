"""One world for the session, a fresh time limit for each test, and folders that all ranks see."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lepton_mpi.world.world import World

# Below pytest's own limits, so that a stuck test ends with the watchdog's report of every rank.
_SECONDS_A_TEST = 100.0


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """All ranks of this job."""
    world = World(_SECONDS_A_TEST)
    yield world
    world.comm.Barrier()
    world.close()


@pytest.fixture(autouse=True)
def limited(world: World) -> None:
    """The watchdog's limit counts from the begin of each test."""
    world.clock.enter("compute")


@pytest.fixture
def folder(world: World, request: pytest.FixtureRequest) -> Path:
    """A new folder, made by rank 0 and the same on every rank."""
    made = request.getfixturevalue("tmp_path") if world.rank == 0 else None
    return world.comm.bcast(made)
