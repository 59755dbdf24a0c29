"""The folder of ``--checkpoint`` while a run owns it: what cannot be written is said once, and tried again with the next checkpoint.

A disk that is full, a folder that became read-only, was removed or is mounted anew ends no training: the run goes on, the last good
checkpoint stays, and the job's exit code tells at the end if the last one is missing.

``begin_saving`` writes in a thread (``--async-save``). One file is written at a time: every other method waits for the thread, so
files come in the order of the calls, and none is left half written when the folder is given back.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_mpi import launcher
from lepton_mpi.durable import no_checkpoint
from lepton_mpi.run import checkpoint_folder
from lepton_mpi.run.checkpoint import Checkpoint, save_as
from lepton_mpi.run.folder_lock import FolderLock, FolderTakenError, taken
from lepton_mpi.wording import WARNING, one_line

if TYPE_CHECKING:
    from lepton_mpi.options.config import Config
    from lepton_mpi.world.rank_group import RankGroup

# Before the last checkpoint of a run is given up.
_PAUSES_SECONDS = (1.0, 3.0)


class OwnedFolder:
    """One rank of a run has it, from ``open`` to ``close``.

    Attributes
    ----------
    path : Path
    note : str
        How the run came to the folder, for people; empty if it was free.
    newest : Path or None
        The checkpoint written last.
    own : list of Path
        Checkpoints of this run, and of the one that it goes on from, oldest first.
    kept : int
        How many of them stay.
    committed : int
        The step up to which ranks of this job that died have saved: the others train up to there again, to the same bits, and write
        nothing meanwhile that would push it out.
    write_seconds : float
        What the last one took.
    """

    def __init__(self, path: Path, kept: int) -> None:
        self.path, self.kept = path, kept
        self.newest: Path | None = None
        self.own: list[Path] = []
        self.committed = 0
        self._lock: FolderLock | None = None
        self._device = self._newest_ns = 0
        self._troubles: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._lines: list[str] = []
        self._error: BaseException | None = None
        self.write_seconds = 0.0

    def open(self, say: Callable[[str], None]) -> None:
        """Make the folder and take it; ``say`` has a line for people while that takes long.

        Raises ConfigurationError if another run owns it, and OSError where nothing can be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self.path, say)
        try:
            lock.take()
        except FolderTakenError as error:
            raise taken(str(self.path), error) from None
        self._lock, self._device = lock, self.path.stat().st_dev
        lock.begin_heartbeat()
        checkpoint_folder.remove_leftovers(self.path)
        self._newest_ns = checkpoint_folder.newest_ns(self.path)

    @property
    def before(self) -> checkpoint_folder.Before:
        """What it held when it was opened; to be asked for before the first ``save``."""
        return checkpoint_folder.Before(tuple(self.own), self._newest_ns)

    @property
    def note(self) -> str:
        """See the class."""
        return self._lock.note if self._lock else ""

    def save(self, checkpoint: Checkpoint, is_last: bool = False) -> str:
        """Write step-XXXXXXXX.h5 and remove what is no longer kept; returns a line for people, empty if there is nothing new to say.

        ``is_last`` : there will be no other, so that it is worth waiting for a few seconds.
        """
        self.wait()
        return self._save(checkpoint, is_last)

    def has(self, step: int) -> bool:
        """Whether the newest checkpoint is of this step or a later one, see ``committed``."""
        return step <= self.committed and self.newest is not None and self.newest.exists()

    def begin_saving(self, checkpoint: Checkpoint) -> None:
        """``save`` in a thread; its line comes by ``news``. The vectors of ``checkpoint`` stay as they are until ``wait`` returns."""
        self.wait()
        self._thread = threading.Thread(
            target=self._save_aside, args=(checkpoint,), name="lepton_mpi checkpoint", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Return once nothing is being written. Raises what ``begin_saving`` met that is no OSError."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if error := self._error:
            self._error = None
            raise error

    def news(self) -> list[str]:
        """Lines for people that there are since the last call, of what ``begin_saving`` wrote. Does not wait."""
        if self._error:
            self.wait()
        lines = []
        while self._lines:
            lines.append(self._lines.pop(0))
        return lines

    def _save_aside(self, checkpoint: Checkpoint) -> None:
        try:
            if line := self._save(checkpoint, is_last=False):
                self._lines.append(line)
        except BaseException as error:  # raised by ``wait``, where the run is
            self._error = error

    def _save(self, checkpoint: Checkpoint, is_last: bool) -> str:
        if self.has(checkpoint.attributes["step"]):
            return ""

        def write(mark: str) -> None:
            self.newest = checkpoint_folder.save(
                *(self.path, checkpoint, self.own, self.kept), mark=mark
            )

        began = time.perf_counter()
        line = self._tried("the newest checkpoint", write, is_last)
        self.write_seconds = time.perf_counter() - began
        return line

    def save_as(self, name: str, checkpoint: Checkpoint) -> str:
        """Write a file of another name, and return as ``save``."""
        self.wait()
        return self._tried(name, lambda mark: save_as(self.path / name, checkpoint, mark), False)

    @property
    def trouble(self) -> str:
        """What is not in the folder though it should be, and why; empty if all is well."""
        self.wait()
        return "; ".join(
            f"{name} was not written to {self.path}: {reason}"
            for name, reason in self._troubles.items()
        )

    def lacks(self, name: str) -> bool:
        """Whether a file of that name could not be written."""
        self.wait()
        return name in self._troubles

    def close(self) -> None:
        """Give the folder back, once nothing is being written."""
        try:
            self.wait()
        finally:
            if self._lock:
                self._lock.release()

    def _tried(self, name: str, write: Callable[[str], None], is_last: bool) -> str:
        before = self._troubles.pop(name, "")
        for pause in (*(_PAUSES_SECONDS if is_last else ()), None):
            try:
                write(self._mark())
                return f"can be written to {self.path} again: {name}" if before else ""
            except OSError as error:
                reason = one_line(error.strerror or error)
            if pause is not None:
                time.sleep(pause)
        self._troubles[name] = reason
        if before == reason:
            return ""
        last = f"the last good one is {self.newest}" if self.newest else "none is written yet"
        after = "" if is_last else "; training goes on, and tries again with the next one"
        return f"cannot write {name} to {self.path}: {reason}{after}; {last}"

    def _mark(self) -> str:
        """Part of the names of temporary files, once the folder is there and this run's. Raises OSError."""
        assert self._lock
        device = _device_of(self.path)
        if device != self._device and not self._lock.is_there():
            raise OSError(errno.ESTALE, "its file system is not mounted, or another one is there")
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.confirm()
        self._device = (
            self.path.stat().st_dev
        )  # a network file system that is mounted anew has another number
        return self._lock.token


def own_folder(config: Config, world: RankGroup, ends: ExitStack) -> OwnedFolder | None:
    """The folder of ``--checkpoint``, taken by rank 0 until ``ends`` is closed. Collective. Raises LeptonError on every rank."""
    found = None
    with world.agreeing():
        if world.rank == 0 and config.checkpoint:
            found = OwnedFolder(Path(config.checkpoint), config.keep)
            ends.callback(found.close)
            try:
                found.open(lambda line: launcher.complain(f"{WARNING}{line}"))
            except OSError as error:
                raise no_checkpoint(config.checkpoint, error) from None
    return found


def _device_of(path: Path) -> int:
    """The file system of a path, or where it would be made."""
    for place in (path, *path.absolute().parents):
        try:
            return os.stat(place).st_dev
        except FileNotFoundError:
            continue
    return 0
