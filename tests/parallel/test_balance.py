"""Shares of ranks that are slower, and the bits that they leave alone."""

import json

import numpy as np
import pytest

from benchmarks.engines.slow_rank import SLOW, Slow
from lepton_mpi import fault_points
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config
from lepton_mpi.run.balance import best_shares, share_out
from lepton_mpi.run.build import build
from lepton_mpi.run.fit import train
from lepton_mpi.run.hook import QuietHook
from tests.parallel.together import refused, together

_SECONDS = 0.001


@pytest.fixture(autouse=True)
def _speeds(world, monkeypatch):
    """Of a micro-batch: the job's last rank takes ``SLOW`` times as long."""
    is_slow = world.size > 1 and world.rank == world.size - 1
    monkeypatch.setattr(Slow, "seconds", _SECONDS * (SLOW if is_slow else 1.0))


def _config(folder, **options) -> Config:
    common = {"epochs": 2, "global_batch": 60, "micro_batch": 3, "learning_rate": 0.003}
    return Config(
        **common
        | {"progress": "none", "metrics": str(folder / "m.jsonl"), "metrics_append": True}
        | options
    )


def _records(world, folder, event: str) -> list[dict]:
    text = world.comm.bcast((folder / "m.jsonl").read_text() if world.rank == 0 else None)
    return [r for r in map(json.loads, text.splitlines()) if r["event"] == event]


@pytest.mark.slow(but_every=3)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 0.5},
        {"strategy": "delayed"},
        {"loader": "streamed", "shuffle_buffer": 20000},
        {"augment": ("noise=0.1",)},
    ],
    ids=["sync", "clipped", "delayed", "streamed", "augmented"],
)
def test_a_slow_rank_gets_less_and_no_bit_changes(world, folder, options):
    """The last rank is three times slower and ends with less than the others; weights are those without."""
    plain = train(_config(folder, **options), world, Slow)
    balanced = train(_config(folder, balance="auto", **options), world, Slow)
    moved = _records(world, folder, "balance")
    with together(world):
        assert plain["weights_digest"] == balanced["weights_digest"]
        if world.size == 1:
            assert not moved
            return
        shares = moved[-1]["micro_batches"]
        assert sum(shares) == 20
        assert shares[-1] < 0.7 * min(shares[:-1])  # a third, on a machine with nothing else to do


class Moving(QuietHook):
    """Hands all micro-batches but one to the last rank, and later all to the first."""

    def after_step(self, run):
        count, size = run.micro_batches.count, run.world.size
        if run.step == 4:
            share_out(run, [0, *[min(1, count)] * (size - 1), count] if size > 1 else [0, count])
        if run.step == 9:
            share_out(run, [0, *[count] * size])


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": (30,)},
        {"strategy": "delayed", "hidden": (30,)},
        {"model": "resnet8", "own": {"model": {"width": 4, "norm": "sync_batch"}}},
        {"model": "cnn", "own": {"model": {"channels": (4, 6)}}, "dropout": 0.2, "clip_norm": 0.5},
    ],
    ids=["sync", "delayed", "sync_batch", "dropout, clipped"],
)
def test_shares_may_become_any_others(world, options):
    """Ranks with nothing, and one with everything, in the middle of an epoch: no bit changes."""
    config = Config(epochs=1, progress="none", global_batch=60, **options)
    plain, moved = train(config, world), train(config, world, hooks=[Moving()])
    with together(world):
        assert plain["weights_digest"] == moved["weights_digest"]


def test_points_of_faults_stay_where_shares_move(world, folder, monkeypatch):
    """Each rank that has rows reaches ``input`` once in every step, and all reach ``exchange``."""
    reached = []
    monkeypatch.setenv(fault_points.VARIABLE, "input@step=1000000:kill")
    monkeypatch.setattr(fault_points, "reached", lambda *where: reached.append(where))

    class Moves(QuietHook):
        def after_step(self, run):
            if run.step == 3:
                count = run.micro_batches.count
                share_out(run, [*range(world.size), count])

    train(_config(folder, epochs=1), world, Slow, hooks=[Moves()])
    last = max(where[-1] for where in reached if where[0] == "step")
    with together(world):
        for point in ("input", "exchange"):
            steps = [where[-1] for where in reached if where[0] == point]
            assert steps == list(range(1, last + 1)), point


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize("strategy", ["local", "gossip", "bounded", "elastic"])
def test_workers_of_uneven_speed(world, folder, strategy):
    """The slow one makes its steps of fewer rows, so that nobody waits for it; every row of an epoch is used once."""
    if world.size == 1:
        pytest.skip("one rank is as fast as the others")
    options = {"epochs": 6, "strategy": strategy, "learning_rate": 0.01, "balance": "auto"}
    train(_config(folder, **options), world, Slow)
    moved, epochs = (_records(world, folder, event) for event in ("balance", "epoch"))
    with together(world):
        assert moved[-1]["micro_batches"][-1] < 0.7 * min(moved[-1]["micro_batches"][:-1])
        assert epochs[-1]["loss"] < 0.7 * epochs[0]["loss"]


def test_adasum_is_not_balanced(world):
    """Its gradients weigh the same; refused, with what is balanced."""
    with refused(world, ConfigurationError, "--balance auto", "sync or delayed", "got adasum"):
        build(Config(strategy="adasum", balance="auto", progress="none", epochs=1), world)


def test_the_best_shares_are_no_worse_than_any_others():
    """The slowest place is done no later than with every other way of handing out the micro-batches."""
    generator = np.random.default_rng(1)
    for _ in range(50):
        costs = generator.uniform(0.2, 3, 3)
        count = int(generator.integers(0, 9))
        found = best_shares(count, costs.tolist())
        best = min(
            max(costs * np.array([a, b, count - a - b]))
            for a in range(count + 1)
            for b in range(count + 1 - a)
        )
        assert found.sum() == count and max(found * costs) == pytest.approx(best)
