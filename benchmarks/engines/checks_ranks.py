"""Steps of one model with and without checks, in turn: ``mpirun -n 2 python -m benchmarks.engines.checks_ranks …``."""

import argparse
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from types import SimpleNamespace

from benchmarks.harness import Row, write_rows
from lepton_mpi import QuietHook, launcher

# Steps around one with a check that take longer for it: what is at rest is digested again before the next update.
_NEAR = (-1, 0, 1, 2)
_STEPS_OF_EPOCH = 1_000


class Watch(QuietHook):
    """Seconds of each step, from the end of the one before."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        self._before = 0.0

    def before_epoch(self, run) -> None:
        """The first step of an epoch is from here."""
        self._before = perf_counter()

    def after_step(self, run) -> None:
        """By its number."""
        now = perf_counter()
        self.seconds[run.step] = now - self._before
        self._before = now


def main() -> int:
    """Train in turn, and write a row for each way."""
    from benchmarks.engines.cases import CASES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--rows-per-rank", type=int, required=True)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--turns", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--json", required=True)
    options = parser.parse_args()
    launcher.limit_threads(1)
    from lepton_mpi.world import world

    return world.run(lambda ranks: _measure(ranks, options), 600)


def _measure(world, options) -> None:
    from benchmarks.engines.cases import CASES
    from benchmarks.engines.lepton import write_case

    case, rows = CASES[options.case], options.rows_per_rank * world.size
    made = tempfile.TemporaryDirectory(prefix="lepton-checks-") if world.rank == 0 else None
    folder = Path(world.broadcast(made and made.name))
    path = write_case(world, folder / "rows.h5", case, rows * _STEPS_OF_EPOCH)
    ways = {
        "none": {},
        "check-every": {"check_every": options.every},
        "on-nan skip": {"on_nan": "skip"},
        "on-nan rollback": {"on_nan": "rollback"},
        "all": {"check_every": options.every, "on_nan": "rollback"},
    }
    found = {way: list[tuple[float, float]]() for way in ways}
    for _ in range(options.turns):
        for way, more in ways.items():
            seconds = _seconds(world, options, case, path, more)
            found[way].append(split(seconds, options.every if "check_every" in more else 0))
    if world.rank == 0:
        rows_ = [_row(world, options, way, found) for way in ways]
        write_rows(options.json, rows_)
        made.cleanup()


def _seconds(world, options, case, path: Path, more) -> dict[int, float]:
    from benchmarks.engines.lepton import train_case

    watch, rows = Watch(), options.rows_per_rank * world.size
    fixed = SimpleNamespace(allreduce="auto", threads=1)
    cut = rows, options.rows_per_rank
    more = {**more, "metrics_append": True}
    train_case(world, fixed, case, cut, path, options.epochs, [watch], more)
    # The engine tries out its ways in the first ones, and an epoch's first step waits for its rows.
    return {
        step: seconds
        for step, seconds in watch.seconds.items()
        if step > _STEPS_OF_EPOCH and step % _STEPS_OF_EPOCH > 1
    }


def split(seconds: dict[int, float], every: int) -> tuple[float, float]:
    """Median of the steps far from a check, and what one check adds to those near it; 0 for ``every`` 0. In seconds.

    >>> split({step: 1.0 + (step % 10 == 0) for step in range(100)}, 10)
    (1.0, 1.0)
    """
    if not every:
        return median(seconds.values()), 0.0
    by_place: dict[int, list[float]] = {}
    for step, each in seconds.items():
        by_place.setdefault(step % every, []).append(each)
    near = {place % every for place in _NEAR}
    base = median([each for place in by_place.keys() - near for each in by_place[place]])
    return base, sum(median(by_place[place]) - base for place in near & by_place.keys())


def _row(world, options, way: str, found) -> Row:
    """Of all turns; what checks cost is compared with steps of the same run, and steps with those without checks of the same turn."""
    pairs = zip(found[way], found["none"], strict=True)
    slower = [step / none - 1 for (step, _), (none, _) in pairs]
    check_steps = median(check / step for step, check in found[way])
    return {
        **{"model": options.case, "rows_per_rank": options.rows_per_rank, "ranks": world.size},
        **{"way": way, "every": options.every},
        "step_us": 1e6 * median(step for step, _ in found[way]),
        "check_us": 1e6 * median(check for _, check in found[way]),
        **{"check_steps": check_steps, "share": check_steps / options.every},
        **{"slower": median(slower), "slower_min": min(slower), "slower_max": max(slower)},
    }


if __name__ == "__main__":
    raise SystemExit(main())
