"""The folder of a run, and what is known of it: from the files of train, and from ``outcome.json``. Imports no NumPy."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lepton_mpi.durable import replacing
from lepton_mpi.errors import DataError, Preempted
from lepton_mpi.reporting import metrics
from lepton_mpi.reporting.metrics import RunRecord, number
from lepton_mpi.sweeping.search import Planned

# Exit codes by which a run would end again: wrong options or a loss that diverged, wrong data.
_FINAL_CODES = (2, 3)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: exit code, seconds of all its parts, and train's line where it failed."""

    code: int
    seconds: float
    error: str = ""


class SweepRun:
    """A run of a plan, and its folder.

    Parameters
    ----------
    planned : Planned
    sweep_folder : Path
    """

    def __init__(self, planned: Planned, sweep_folder: Path) -> None:
        self.planned, self.folder = planned, sweep_folder / planned.name
        self.checkpoint, self.log = self.folder / "checkpoint", self.folder / "log.txt"
        self.metrics, self.options = self.folder / "metrics.jsonl", self.folder / "options.toml"

    def outcome(self) -> Outcome | None:
        """None before the run has ended, and where its file is damaged: then it is made once more."""
        try:
            found = json.loads((self.folder / "outcome.json").read_text("utf-8"))
            return Outcome(int(found["code"]), float(found["seconds"]), str(found["error"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def state(self) -> str:
        """``finished``, ``failed``, ``stopped``, ``running`` or ``waiting``."""
        if self._is_locked():
            return "running"
        outcome = self.outcome()
        if outcome is None:
            return "stopped" if self.metrics.exists() else "waiting"
        if outcome.code == 0:
            return "finished"
        return "stopped" if outcome.code == Preempted.exit_code else "failed"

    def is_left(self, retries: bool) -> bool:
        """Whether the run is to be made, or gone on with; ``retries`` also where it would fail again."""
        outcome = self.outcome()
        return outcome is None or (
            outcome.code != 0 and (retries or outcome.code not in _FINAL_CODES)
        )

    @contextmanager
    def held(self) -> Iterator[int | None]:
        """A block in which nobody else makes this run; None where somebody else does. Raises OSError.

        The lock is that of the open file: a process that inherits it holds it, too, until it ends.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            yield file if _locked(file) else None
        finally:
            os.close(file)

    def _is_locked(self) -> bool:
        try:
            file = os.open(self.folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # Asks and takes nothing: who wants the lock meanwhile has it.
            found = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, _WHOLE_FILE))
            return bool(found[0] != fcntl.F_UNLCK)
        finally:
            os.close(file)

    def write_options(self) -> None:
        """As a file that train reads. Raises OSError."""
        lines = [f"{key} = {toml_text(value)}" for key, value in self.planned.options.items()]
        _write(self.options, "\n".join([*lines, ""]))

    def write_outcome(self, outcome: Outcome) -> None:
        """Raises OSError."""
        _write(self.folder / "outcome.json", json.dumps(vars(outcome)) + "\n")

    def record(self) -> RunRecord | None:
        """What the run has written so far; None if that is nothing."""
        try:
            found = self.metrics.stat()
            return _record(self.metrics, found.st_mtime_ns, found.st_size)
        except (DataError, OSError):
            return None

    def remove_checkpoints(self) -> None:
        """Free the disk of a run that is not among the best. Raises OSError."""
        if self.checkpoint.is_dir():
            shutil.rmtree(self.checkpoint)


@dataclass(frozen=True)
class Score:
    """The best epoch of a run on the validation rows: which figure, its value, the epoch, and whether less is better."""

    name: str
    value: float
    epoch: int
    is_lower: bool

    @staticmethod
    def of(record: RunRecord | None) -> Score | None:
        """That of a run that has ended; None else. Test figures play no part."""
        end: Mapping[str, Any] = record.end if record else {}
        value, epoch = number(end.get("best_value")), number(end.get("best_epoch"))
        name = end.get("best_score")
        if value is None or epoch is None or not isinstance(name, str):
            return None
        return Score(name, value, int(epoch), end.get("best_is") == "lower")


def toml_text(value: Any) -> str:
    """A value as TOML has it.

    >>> [toml_text(value) for value in ([64, 32], 1e-05, True, 'a "b"')]
    ['[64, 32]', '1e-05', 'true', '"a \\\\"b\\\\""']
    """
    if isinstance(value, list):
        return f"[{', '.join(map(toml_text, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


@lru_cache(maxsize=4096)
def _record(path: Path, changed: int, size: int) -> RunRecord:
    """Of a file as it was then: of a sweep's runs all are asked for whenever one ends. Raises DataError."""
    return metrics.read(path)[-1]


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


# struct flock of Linux: type, whence, start, length (0: all of the file), process.
_FLOCK = struct.Struct("@hhqqi0q")
_WHOLE_FILE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def _locked(file: int) -> bool:
    """Whether the lock is ours now: of the open file, and Linux takes it back when the last process that has it open ends."""
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _WHOLE_FILE)
    except (BlockingIOError, PermissionError):  # POSIX leaves it open which of them
        return False
    return True
