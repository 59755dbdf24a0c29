"""Which rank made the others wait, and in which phase: said on screen and in the metrics file."""

import json
import time

import pytest

from lepton_mpi import QuietHook
from lepton_mpi.options.config import Config
from lepton_mpi.run.fit import train
from lepton_mpi.world.heartbeats import PHASES
from tests.parallel.together import equal_everywhere, together

_SLEEP_SECONDS = 0.02


class _SlowReader:
    """A reader of micro-batches whose disk is slow."""

    def __init__(self, reader) -> None:
        self._reader = reader

    def next(self, draw):
        time.sleep(_SLEEP_SECONDS)
        return self._reader.next(draw)


class _SlowLoader(QuietHook):
    """Plants one on a rank, in the first epoch."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def before_epoch(self, run) -> None:
        if run.epoch == 1 and run.world.rank == self._rank:
            run.inputs = _SlowReader(run.inputs)


def _trained(world, folder, hooks=(), **options) -> tuple[dict, list[dict]]:
    """The result, and on rank 0 the lines of the metrics file."""
    path = folder / "m.jsonl"
    result = train(Config(epochs=2, metrics=str(path), **options), world, hooks=hooks)
    lines = path.read_text().splitlines() if world.rank == 0 else []
    return result, [json.loads(line) for line in lines]


@pytest.mark.parametrize("strategy", ["sync", "local"])
def test_a_rank_with_a_slow_loader_is_named(world, folder, capsys, strategy):
    """On the screen and in the file: rank 2, input."""
    if world.size < 3:
        pytest.skip("needs a rank 2")
    options = {"global_batch": 128, "progress": "plain", "strategy": strategy}
    _, records = _trained(world, folder, [_SlowLoader(2)], **options)
    out = capsys.readouterr().out
    with together(world):
        if world.rank == 0:
            said = [line for line in out.splitlines() if line.startswith("waiting")]
            assert len(said) == 1 and "for rank 2, input: " in said[0], out
            slow = records[-1]["slow_rank"]
            assert (slow["rank"], slow["phase"]) == (2, "input")
            assert slow["seconds"] > 3 * slow["median_seconds"]


def test_every_rank_has_its_account(world, folder):
    """Seconds of every phase, bytes, micro-batches; what ``fit`` returns is the same everywhere as before."""
    result, records = _trained(world, folder, progress="none")
    equal_everywhere(world, (result["weights_digest"], result["time_split"]))
    with together(world):
        if world.rank == 0:
            end = records[-1]
            assert [rank["rank"] for rank in end["ranks"]] == list(range(world.size))
            assert all(tuple(rank["seconds"]) == PHASES for rank in end["ranks"])
            assert all(rank["memory_peak"] > 1 << 20 for rank in end["ranks"])
            assert sum(rank["micro_batches"] for rank in end["ranks"]) == 8
            counted = sum(map(sum, end["test_confusion"]))
            assert counted == records[0]["rows"]["test"]
            versions = records[0]["versions"]
            assert {"lepton_mpi", "python", "numpy", "numba", "mpi"} <= versions.keys()
            epochs = [record for record in records if record["event"] == "epoch"]
            assert all(epoch["evaluation_seconds"] > 0 for epoch in epochs)


def test_the_best_epoch_is_recorded(world, folder):
    """As ``fit`` returns it."""
    options = {"progress": "none", "keep_best": "loss", "checkpoint": str(folder / "runs")}
    result, records = _trained(world, folder, **options)
    with together(world):
        if world.rank == 0:
            assert records[-1]["best_epoch"] == result["best_epoch"]
            assert records[-1]["best_score"] == "loss"
