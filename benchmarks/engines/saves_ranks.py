"""Pauses of one run that saves with --async-save, and of one that does not: ``mpirun -n 2 python -m benchmarks.engines.saves_ranks …``."""

import argparse
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import h5py
import numpy as np

from benchmarks.harness import Row, write_rows
from lepton_mpi import QuietHook, launcher

# A period begins with the first step after a save; then a few steps while the file is written, a few when it is, and the one
# after which the next is saved.
_PERIOD, _WRITING = 8, (1, 2, 3)
_ALONE = (5, 6, 7)
# Training rows of the embedded digits.
_ROWS = 1150


class Table:
    """One vector; its gradient costs little, and depends on parameters and rows."""

    def __init__(self, count: int) -> None:
        self.shapes = {"table": (count,)}

    def loss_and_gradient(self, parameters, batch, gradient):
        """No function that has this gradient; only its bits count."""
        np.multiply(parameters["table"], 0.01 + float(batch.y[0]), out=gradient["table"])
        return float(len(batch.y)), 0


class Watch(QuietHook):
    """Times steps and plain copies, behind the hook that saves."""

    def __init__(self) -> None:
        self.copies: list[float] = []
        self.steps: dict[int, list[float]] = {}
        self.pauses: list[float] = []
        self.write_seconds: list[float] = []
        self._room: np.ndarray | None = None
        self._before = 0.0

    def before_epoch(self, run) -> None:
        """Memory for the copies, touched by whom it will be written by."""
        vectors = _vectors(run)
        self._room = run.world.host_array((len(vectors), vectors[0].size), vectors[0].dtype)
        _copy(run, vectors, self._room)
        self._before = perf_counter()

    def after_step(self, run) -> None:
        """At a fixed place of each period."""
        now, place = perf_counter(), run.step % _PERIOD
        if place:
            self.steps.setdefault(place, []).append(now - self._before)
        elif run.position < run.steps_per_epoch:
            saves = next(hook for hook in run.hooks if hasattr(hook, "save_now"))
            self.pauses.append(saves.pauses[-1] if saves.pauses else saves.save_seconds)
        if place == max(_WRITING) + 1:
            if run.folder:
                run.folder.wait()
                self.write_seconds.append(run.folder.write_seconds)
            self._time_copy(run)
        self._before = perf_counter()

    def _time_copy(self, run) -> None:
        vectors = _vectors(run)
        run.world.agree(None)
        began = perf_counter()
        _copy(run, vectors, self._room)
        run.world.agree(None)
        self.copies.append(perf_counter() - began)


def _vectors(run) -> list[np.ndarray]:
    return [run.strategy.consensus(), *run.strategy.state().values()]


def _copy(run, vectors, room) -> None:
    """This rank's share of each."""
    size, count, rank = vectors[0].size, run.world.local_size, run.world.local_rank
    part = slice(size * rank // count, size * (rank + 1) // count)
    for target, vector in zip(room, vectors, strict=True):
        target[part] = vector[part]


def main() -> int:
    """Train twice, and write a row of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, required=True)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--folder")
    parser.add_argument("--json", required=True)
    options = parser.parse_args()
    launcher.limit_threads(1)
    from lepton_mpi.world import world

    return world.run(lambda ranks: _measure(ranks, options), 600)


def _measure(world, options) -> None:
    made = None
    if world.rank == 0:
        made = tempfile.TemporaryDirectory(prefix="lepton-saves-", dir=options.folder)
    folder = Path(world.broadcast(made and made.name))
    rows = [_row(world, options, folder, way) for way in ("async", "at once")]
    if world.rank == 0:
        rows[0]["wrong"] = _count_different(folder)
        write_rows(options.json, rows)
        made.cleanup()


def _row(world, options, folder: Path, way: str) -> Row:
    from lepton_mpi.options.config import Config
    from lepton_mpi.run import fit

    # A micro-batch for each rank; a step more than there are saves, after which the epoch's checkpoint is written at once.
    steps = options.saves * _PERIOD + 1
    batch = _ROWS // steps // world.size * world.size
    watch = Watch()
    config = Config(
        **{"global_batch": batch, "micro_batch": batch // world.size, "epochs": 1},
        **{"validation_split": 0.0, "test_split": 0.0, "optimizer": "adam"},
        **{"checkpoint": str(folder / way.replace(" ", "_")), "checkpoint_steps": _PERIOD},
        **{"keep": 2, "async_save": way == "async", "progress": "none"},
    )
    fit.train(config, world, Table(options.parameters), hooks=[watch], keeps_parameters=False)
    pauses, copies = watch.pauses, watch.copies
    alone = [seconds for place in _ALONE for seconds in watch.steps[place]]
    writing = [seconds for place in _WRITING for seconds in watch.steps[place][1:]]
    byte_count = 3 * 4 * options.parameters
    return {
        **{"parameters": options.parameters, "ranks": world.size, "way": way},
        **{"bytes": byte_count, "mib": byte_count / (1 << 20), "wrong": 0},
        **{"pause_ms": 1e3 * median(pauses), "pause_max_ms": 1e3 * max(pauses)},
        **{"copy_ms": 1e3 * median(copies), "ratio": median(pauses) / median(copies)},
        "write_seconds": median(watch.write_seconds) if watch.write_seconds else 0.0,
        **{"step_ms": 1e3 * median(alone), "writing_ms": 1e3 * median(writing)},
    }


def _count_different(folder: Path) -> int:
    """Vectors, attributes and digests of the last file that was written aside, beside those of the one written at once."""
    # The newest is that of the run's end.
    name, wrong = sorted(path.name for path in (folder / "async").glob("*.h5"))[-2], 0
    with h5py.File(folder / "async" / name) as one, h5py.File(folder / "at_once" / name) as other:
        names = list[str]()
        one.visititems(
            lambda key, item: names.append(key) if isinstance(item, h5py.Dataset) else None
        )
        for key in names:
            wrong += not np.array_equal(one[key][()], other[key][()])
        keys = (one.attrs.keys() | other.attrs.keys()) - {"configuration"}
        wrong += sum(one.attrs.get(key) != other.attrs.get(key) for key in keys)
    return int(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
