"""What is left of the speed of an --elastic run of which a rank is killed every 20 s, beside the speed that its live ranks have undisturbed?

    ./run_local.sh bench elastic --ranks 16 --every 20 --kills 14 --json FILE

A 784-128-10 network is trained on random rows, with Open MPI. Every ``--every`` seconds a rank is drawn and gets SIGKILL; at the end ``--ranks`` less
``--kills`` are left. Rank 0 notes each step and when it was made; a step that is made again counts once.

    steps     made from the first kill to ``--every`` seconds behind the last one
    possible  steps that the live ranks would have made in that time, at the speed that they have between two kills, once the run has settled:
              in the second half of each interval
    kept      the first over the second
    recovery  the longest time behind each kill without a step that had not been made before, in seconds: median and longest
    of plain  speed of a run with --elastic over that of one without, undisturbed, of all ranks: medians of ``--pairs`` pairs in turn. It has what copies
              in memory and looking for losses cost
    of live   kept times of plain

The exit code is 1 if "of live" is below 0.95, or ranks were lost that nobody killed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import psutil

from benchmarks.engines import step_notes
from benchmarks.engines.step_notes import NOTES, StepNotes
from benchmarks.harness import (
    Column,
    Row,
    command_line,
    machine,
    print_header,
    print_row,
    print_titles,
    write_rows,
)

_KEPT_MIN = 0.95
_FEATURES, _CLASSES = 784, 10
_START_SECONDS, _LOOK_SECONDS = 120.0, 0.05
_COLUMNS = (
    Column("ranks", "ranks", 5),
    Column("kills", "kills", 5),
    Column("every", "every s", 7, "g"),
    Column("steps", "steps", 8),
    Column("possible", "possible", 8, ".0f"),
    Column("kept", "kept", 6, ".3f"),
    Column("recovery", "recovery s", 10, ".2f"),
    Column("recovery_max", "longest", 7, ".2f"),
    Column("of_plain", "of plain", 8, ".3f"),
    Column("of_live", "of live", 7, ".3f"),
)

# Seconds by ``time.monotonic``, and the number of a step.
Notes = list[tuple[float, int]]


def main() -> int:
    """Measure, print and write; returns the exit code."""
    options = _parser().parse_args()
    facts = machine() | {"seed": options.seed, "rows": options.rows}
    print_header("elastic, a kill every so often", facts)
    with tempfile.TemporaryDirectory(prefix="lepton-elastic-") as name:
        folder = Path(name)
        _write_rows(folder / "rows.h5", options.rows)
        print_titles(_COLUMNS)
        row = _of_plain(options, folder) if options.pairs else {}
        row |= _under_kills(options, folder) | facts
        row["of_live"] = row["kept"] * row.get("of_plain", 1.0)
        print_row(_COLUMNS, row)
        if options.json:
            write_rows(options.json, [row])
    problems = list(find_problems(row))
    for problem in problems:
        print(problem)
    return int(bool(problems))


def _parser() -> argparse.ArgumentParser:
    made = command_line("elastic", __doc__)
    made.add_argument("--ranks", type=int, default=16, help="default: 16")
    made.add_argument("--kills", type=int, default=14, help="default: 14")
    made.add_argument("--every", type=float, default=20.0, help="seconds; default: 20")
    made.add_argument("--rows", type=int, default=60_000, help="of the set; default: 60000")
    made.add_argument("--pairs", type=int, default=3, help="of undisturbed runs; default: 3")
    made.add_argument("--seed", type=int, default=0, help="of who is killed; default: 0")
    made.add_argument("--json", metavar="FILE", help="where the row is written")
    return made


def _write_rows(path: Path, rows: int) -> None:
    draw = np.random.default_rng(0)
    teacher = draw.standard_normal((_FEATURES, _CLASSES), np.float32)
    with h5py.File(path, "w") as file:
        for split, count in (("train", rows), ("test", rows // 10)):
            x = draw.standard_normal((count, _FEATURES), np.float32)
            file[f"{split}/x"] = x
            file[f"{split}/y"] = (x @ teacher).argmax(axis=1).astype(np.int32)


class _Job:
    """A training that goes on until it is ended; a context manager."""

    def __init__(self, ranks: int, folder: Path, *words: str) -> None:
        self.notes_at = folder / f"notes-{time.monotonic_ns()}"
        launch = ["mpirun", "--with-ft", "ulfm", "--oversubscribe", "--bind-to", "none"]
        train = [sys.executable, "-m", "lepton_mpi.train", "--data", str(folder / "rows.h5")]
        train += ["--hidden", "128", "--global-batch", "1024", "--micro-batch", "64"]
        train += ["--epochs", "100000", "--progress", "none", *words]
        train += ["--hook", f"{Path(step_notes.__file__).resolve()}:{StepNotes.__name__}"]
        allow = {f"{one}_ALLOW_RUN_AS_ROOT{more}": "1" for one in ("OMPI", "PRTE") for more in ("", "_CONFIRM")}  # fmt: skip
        self._process = subprocess.Popen(
            [*launch, "-n", str(ranks), *train],
            env=os.environ | allow | {NOTES: str(self.notes_at)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> _Job:
        end = time.monotonic() + _START_SECONDS
        while not (self.notes_at.exists() and self.notes_at.stat().st_size):
            if time.monotonic() > end or self._process.poll() is not None:
                raise SystemExit("benchmarks.elastic: the training has not begun")
            time.sleep(_LOOK_SECONDS)
        return self

    def __exit__(self, *error: object) -> None:
        ranks = self.ranks()
        self._process.kill()
        for each in ranks:
            each.kill()
        self._process.wait()

    def ranks(self) -> list[psutil.Process]:
        """Processes of those that live, oldest first."""
        if self._process.poll() is not None:
            return []
        found = psutil.Process(self._process.pid).children(recursive=True)
        return [each for each in found if "lepton_mpi.train" in each.cmdline()]

    def notes(self) -> Notes:
        """So far."""
        lines = self.notes_at.read_text().splitlines()[:-1]  # the last one may not be whole
        return [(float(at), int(step)) for at, step, _ in map(str.split, lines)]


def _under_kills(options: argparse.Namespace, folder: Path) -> Row:
    draw, kills = random.Random(options.seed), list[float]()
    with _Job(options.ranks, folder, "--elastic") as job:
        began = time.monotonic()
        for number in range(options.kills):
            _sleep_until(began + (number + 1) * options.every)
            living = job.ranks()
            if len(living) != options.ranks - number:
                raise SystemExit(f"benchmarks.elastic: expected {options.ranks - number} ranks before kill {number + 1}, got {len(living)}")  # fmt: skip
            draw.choice(living).send_signal(signal.SIGKILL)
            kills.append(time.monotonic())
        _sleep_until(began + (options.kills + 1) * options.every)
        end, left = time.monotonic(), len(job.ranks())
        found = kept(job.notes(), kills, end)
    return found | {
        "ranks": options.ranks,
        "kills": options.kills,
        "every": options.every,
        "left": left,
    }


def kept(notes: Notes, kills: Sequence[float], end: float) -> Row:
    """What is left of the speed between the first kill and ``end``.

    >>> notes = [(at / 10, at) for at in range(101)]          # 10 steps a second, and from second 10 on a step is made again
    >>> notes += [(10.5 + at / 10, 100 + at) for at in range(96)]
    >>> found = kept(notes, [10.0], 20.0)
    >>> found["steps"], round(found["possible"]), round(found["kept"], 2), round(found["recovery"], 1)
    (95, 100, 0.95, 0.6)
    """
    steps, possible, recoveries = 0, 0.0, []
    for begin, stop in zip(kills, [*kills[1:], end], strict=True):
        before = _made(notes, begin)
        steps += _made(notes, stop) - before
        middle = (begin + stop) / 2
        possible += (_made(notes, stop) - _made(notes, middle)) / (stop - middle) * (stop - begin)
        recoveries.append(_longest_gap(notes, begin, middle))
    return {
        "steps": steps,
        "possible": possible,
        "kept": steps / possible,
        "recovery": statistics.median(recoveries),
        "recovery_max": max(recoveries),
        "recoveries": recoveries,
    }


def _longest_gap(notes: Notes, begin: float, stop: float) -> float:
    """Between two steps that were made for the first time."""
    most, last, longest = _made(notes, begin), begin, 0.0
    for at, step in notes:
        if begin < at <= stop and step > most:
            most, last, longest = step, at, max(longest, at - last)
    return longest


def _made(notes: Notes, at: float) -> int:
    """Steps that were made by then."""
    return max((step for when, step in notes if when <= at), default=0)


def _of_plain(options: argparse.Namespace, folder: Path) -> Row:
    """Undisturbed, with the option and without, in turn."""
    ratios = []
    for _ in range(options.pairs):
        speeds = []
        for words in ((), ("--elastic",)):
            with _Job(options.ranks, folder, *words) as job:
                began = time.monotonic()
                _sleep_until(began + options.every)
                end = time.monotonic()
                middle = (began + end) / 2
                notes = job.notes()
            speeds.append((_made(notes, end) - _made(notes, middle)) / (end - middle))
        ratios.append(speeds[1] / speeds[0])
    return {"of_plain": statistics.median(ratios), "pairs": ratios}


def _sleep_until(when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))


def find_problems(row: Row) -> Iterator[str]:
    """One line for each mark that is missed.

    >>> list(find_problems({"of_live": 0.9, "ranks": 4, "kills": 2, "left": 1}))
    ['expected 0.95 of the speed of the live ranks, got 0.900', 'expected 2 ranks at the end, got 1']
    """
    if row["of_live"] < _KEPT_MIN:
        yield f"expected {_KEPT_MIN} of the speed of the live ranks, got {row['of_live']:.3f}"
    if row["left"] != row["ranks"] - row["kills"]:
        yield f"expected {row['ranks'] - row['kills']} ranks at the end, got {row['left']}"


if __name__ == "__main__":
    raise SystemExit(main())
