"""What came of the files in ``hostile_files.py``, each loaded as a rank would load it.

``python -m tests.serial.hostile_outcomes FOLDER`` writes all of them, loads each, and prints what came of them and whether the
secret was opened; ``--every N --json`` is what the test calls.
"""

import argparse
import ctypes
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from lepton_mpi.data.files import probe
from lepton_mpi.errors import DataError
from tests.serial import data_files, hostile_files, hostile_programs
from tests.serial.hostile_files import ANY, UNREAD, WHOLE

# Where not all files are taken, of those in the forms of other programs every third of them.
_FEWER = 3
# Of inotify(7); an event of a watched file, other than of a folder, has no name behind it.
_IN_ACCESS, _IN_OPEN, _EVENT_BYTES = 0x1, 0x20, 16


@dataclass(frozen=True)
class Outcome:
    """What happened to a file; ``rows`` is a digest of what was read of it, None if it was refused."""

    name: str
    must: str
    error: str | None
    rows: str | None
    before: str | None
    seconds: float

    @property
    def is_right(self) -> bool:
        """Whether what happened is what must happen."""
        if self.error is not None:
            return "\n" not in self.error and "secret" not in self.error
        return self.must == ANY or (self.must in (WHOLE, UNREAD) and self.rows == self.before)


@contextmanager
def watched(path: Path) -> Iterator[Callable[[], int]]:
    """Watch a file; the function given tells how often any process has opened or read it since."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    watch = library.inotify_add_watch(descriptor, os.fsencode(path), _IN_ACCESS | _IN_OPEN)
    assert descriptor >= 0 and watch >= 0, os.strerror(ctypes.get_errno())
    count = 0

    def events() -> int:
        nonlocal count
        with suppress(BlockingIOError):
            while True:
                count += len(os.read(descriptor, 4096)) // _EVENT_BYTES
        return count

    try:
        yield events
    finally:
        os.close(descriptor)


def outcomes(folder: Path, secret: Path, every: int = 1) -> Iterator[Outcome]:
    """Write every n-th file into ``folder``, load it as a rank does, remove it, and tell what happened."""
    path = folder / "hostile.h5"
    with probe.Probe() as kept:
        probe.check = kept.check  # one process for all looks
        probe.check_all = lambda paths, *how: [kept.check(path, *how) for path in paths]
        before = {name: _rows_before(path, made) for name, made in hostile_files.GOOD.items()}
        for name, write in hostile_programs.GOOD.items():
            write(path)
            before[name] = _digest_of(hostile_programs.read_by_prepare(path, name))
        for case in all_cases(secret, every):
            case.write(path)
            began, error, rows = time.monotonic(), None, None
            try:
                rows = _rows_of(path, case.name)
            except DataError as raised:
                error = str(raised)
            seconds = time.monotonic() - began
            path.unlink()
            good = before.get(case.name.split(": ")[0], before["contiguous"])
            yield Outcome(case.name, case.must, error, rows, good, seconds)


def all_cases(secret: Path, every: int = 1) -> list[hostile_files.Case]:
    """Those of training, then those that ``prepare`` reads, of which a part has fewer."""
    of_programs = list(hostile_programs.cases(secret))[:: every if every == 1 else _FEWER * every]
    return [*hostile_files.cases(secret)[::every], *of_programs]


def _rows_of(path: Path, name: str) -> str:
    if hostile_programs.is_one(name):
        return _digest_of(hostile_programs.read_by_prepare(path, name))
    return _digest(data_files.load(path))


def _rows_before(path: Path, made: dict) -> str:
    hostile_files.write_good(path, **made)
    return _digest(data_files.load(path))


def _digest(data) -> str:
    """Of the rows that training gets to see; names of classes may lie in a heap, which has no checksum."""
    return _digest_of(
        (
            *data.normalisation,
            *(part.memory for rows in data.splits.values() for part in rows.inputs),
            *(array for rows in data.splits.values() for array in (rows.y, rows.indices)),
            *(rows.windows.documents for rows in data.splits.values() if rows.windows),
            *(np.frombuffer(token, np.uint8) for token in data.vocabulary),
        )
    )


def _digest_of(arrays: Iterable[np.ndarray]) -> str:
    blake = blake2b()
    for array in arrays:
        blake.update(np.ascontiguousarray(array).data)
    return blake.hexdigest()[:16]


def main() -> int:
    """Print what came of all files; exit code 1 if something else did than must."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for the files, which are removed again")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="take only every N-th file"
    )
    parser.add_argument("--json", action="store_true", help="one line for each file and no more")
    options = parser.parse_args()
    secret = hostile_files.make_secret(options.folder)
    seen, slowest, wrong = Counter(), 0.0, 0
    with watched(secret) as events:
        for outcome in outcomes(options.folder, secret, options.every):
            if options.json:
                print(json.dumps(vars(outcome) | {"is_right": outcome.is_right}), flush=True)
                continue
            seen[outcome.must, "refused" if outcome.error else "taken"] += 1
            slowest, wrong = max(slowest, outcome.seconds), wrong + (not outcome.is_right)
            if not outcome.is_right:
                print(f"WRONG  {outcome.name}: {outcome.error or 'taken'}")
        if not options.json:
            for (must, did), count in sorted(seen.items()):
                print(f"{count:5} must be {must}: {did}")
            print(
                f"{seen.total():5} files, {wrong} wrong, slowest {slowest:.2f} s, secret opened {events()} times"
            )
        return bool(wrong or events())


if __name__ == "__main__":
    sys.exit(main())
