"""What the ranks of a host share is as large as the formula says, measured by Linux."""

import os

import numpy as np
import pytest

from lepton_mpi.collectives.choosing.tuning import Choice
from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.options.config import Config
from lepton_mpi.run.build import build
from lepton_mpi.strategies.overlapped_parameters import OverlappedParameters
from lepton_mpi.strategies.shared_parameters import SharedParameters
from lepton_mpi.strategies.strategy import Setting
from lepton_mpi.vectors import Layout
from lepton_mpi.world import memory, shared_memory
from lepton_mpi.world.pages import LARGE_PAGE_BYTES
from tests.parallel.together import refused, together

COUNT = 1_500_000


def _step(strategy) -> None:
    for share in strategy.shares(1):
        share.vector[:] = 1
    strategy.step(1, 1)
    strategy.finish()


@pytest.mark.parametrize(
    ("kind", "clip_norm", "more"),
    [
        (SharedParameters, float("inf"), 0),
        (SharedParameters, 1.0, 0),
        (OverlappedParameters, float("inf"), 1),
    ],
    ids=["fused", "two phases", "several hosts"],
)
def test_a_host_holds_one_copy_of_parameters_and_state(world, kind, clip_norm, more):
    """With Adam (n + 3) vectors for n ranks, one more where the sum has a row of its own; replicated ranks hold 4 n."""
    if kind is SharedParameters and world.host_count > 1:
        pytest.skip("for one host")
    before = memory.shared_bytes()
    layout = Layout({"w": (COUNT, 1)})
    settings = Settings("adam", lambda step: 1e-3)
    common = world, layout, np.dtype(np.float32), world.size, settings, clip_norm
    strategy = kind(Setting(*common, [(0, COUNT)]), Choice("", ""))
    _step(strategy)
    after = memory.shared_bytes()
    names = ("parameters", "state", "gradients")
    own = np.array([after.get(name, 0) - before.get(name, 0) for name in names])
    measured = dict(zip(names, world.host_comm.allreduce(own).tolist(), strict=True))
    expected = {"parameters": 1, "state": 2, "gradients": world.local_size + more}
    with together(world):
        assert strategy.memory() == expected
        for name, count in expected.items():
            least = count * 4 * COUNT
            assert least <= measured[name] + 4096 * count, (name, measured[name] / least)
            assert measured[name] <= least + LARGE_PAGE_BYTES, (name, measured[name] / least)


def test_ranks_that_have_process_numbers_of_their_own_are_told(world, monkeypatch):
    """As in a container for each: a path leads nowhere, or to a file of another process; every rank raises."""
    before = len(os.listdir("/proc/self/fd"))
    for process in (os.getppid(), 2**22 + 1):
        monkeypatch.setattr(shared_memory.os, "getpid", lambda process=process: process)
        with pytest.raises(LauncherError, match=r"they must share process numbers"):
            shared_memory.open_host_file(world.host_comm, 4096, "test")
    monkeypatch.undo()
    assert len(os.listdir("/proc/self/fd")) == before
    mine = os.open("/dev/null", os.O_RDWR)
    assert shared_memory._opened(f"/proc/self/fd/{mine}", (1, 2)) == (
        None,
        f"/proc/self/fd/{mine} is another file",
    )
    os.close(mine)


@pytest.mark.parametrize(
    ("free", "words"),
    [
        (10_000, ("the optimizer's state", "fewer ranks")),
        (130_000, ("--micro-batch", "--recompute")),
    ],
    ids=["vectors", "activations"],
)
def test_what_cannot_fit_is_refused_before_the_first_step(world, monkeypatch, free, words):
    """With what it needs, what there is, and what to take: on every rank, also where one host alone is short of memory."""
    if world.rank == 0:
        monkeypatch.setattr(world, "memory_available", lambda: free * (world.local_size + 3))
    config = Config(hidden=(400,), progress="none", epochs=1, micro_batch=1000, global_batch=8000)
    with refused(world, ConfigurationError, "free", *words):
        build(config, world)
