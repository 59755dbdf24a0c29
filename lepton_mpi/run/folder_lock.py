"""Which run owns a folder of checkpoints: one at a time, on any file system, from any host.

    FOLDER/owner-0003.lock    JSON: host, boot, pid_space, pid, process_start, since, token

The file of the highest number is the lock. It is made as a hard link to a file that is complete, or by O_EXCL where there are no
links: of several takers one gets the number, also on NFS, where ``flock`` may do nothing. Nothing is overwritten or renamed. Who
takes over from a dead owner makes the next number, looks again, and removes the lower ones, of which there are several if a taker died
in between; if a living owner is there, it gives way.

An owner is dead if its process is gone, which is seen on its own host since the same boot, and among the same process numbers, of
which a container has its own. Elsewhere its heartbeat counts: the owner sets the time of its file every ten seconds, and who wants the folder
waits until it sees that happen, or until a minute has passed without it. The clocks of two hosts are never compared: "now" is the
time that the file server gives to a new file.

A stopped owner may wake up after another has taken over, so it asks ``confirm`` before every file that it writes.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.processes import look_at, number_space, start_of_machine
from lepton_mpi.wording import one_line

HEARTBEAT_SECONDS = 10.0
# Threads of a busy host come late, and a suspended job is no dead one: it is found out by ``confirm``.
SILENT_SECONDS = 60.0
_LOOK_SECONDS = 0.5
_NAME = re.compile(r"owner-(\d{4,})\.lock")
# What file systems say that have no hard links.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


@dataclass(frozen=True)
class Owner:
    """Who wrote a lock; empty and 0 where that cannot be read."""

    host: str = ""
    boot: str = ""
    pid_space: str = ""
    pid: int = 0
    process_start: str = ""
    since: str = ""
    token: str = ""

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        return cls(
            *(socket.gethostname(), start_of_machine(), number_space()),
            *(os.getpid(), _process_start(os.getpid())),
            *(time.strftime("%Y-%m-%d %H:%M:%S"), secrets.token_hex(6)),
        )

    @classmethod
    def of(cls, text: str) -> Owner:
        """That of a lock, which anybody may have written."""
        try:
            values = json.loads(text)
            found = cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})
            is_good = all(
                type(getattr(found, field.name)) is type(field.default)
                for field in dataclasses.fields(cls)
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            return cls()
        return found if is_good else cls()

    def __str__(self) -> str:
        if not self.token:
            return "a run that has just begun to write its name there"
        return f"process {self.pid} on host {one_line(self.host)}, since {one_line(self.since)}"

    def is_alive(self) -> bool | None:
        """Whether the process runs; None where that cannot be seen from here."""
        here = (socket.gethostname(), start_of_machine(), number_space())
        if not self.boot or (self.host, self.boot, self.pid_space) != here or self.pid <= 0:
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            pass
        started = _process_start(self.pid)
        return (
            started == self.process_start
        )  # else the number has been given anew, or is a zombie's


class FolderTakenError(OSError):
    """The folder belongs to another run, which lives."""


class FolderLock:
    """The lock of a folder, from ``take`` to ``release``. One process of a run has it.

    Attributes
    ----------
    token : str
        Of this run: part of the names of its temporary files.
    note : str
        What there is to say of how it came to the folder; empty if nothing.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.folder, self.note = folder, ""
        self._own, self._say = Owner.here(), say
        self.token = self._own.token
        self._path: Path | None = None
        self._is_over = threading.Event()

    def take(self) -> None:
        """Become the owner. Raises FolderTakenError if another run is, and OSError where nothing can be written."""
        while True:
            path, owner = _highest(self.folder)
            if path and owner.token != self.token:
                if self._waits_for(path, owner):
                    raise FolderTakenError(f"it belongs to {owner}")
                self.note = f"taken over from {owner}, which has ended without giving it back"
            number = int(_number(path)) + 1 if path else 1
            mine = self.folder / f"owner-{number:04d}.lock"
            if self._make(mine):
                break
        for other in sorted(set(_locks(self.folder)) - {mine}):
            found = _owner_of(other)
            if found and found.token != self.token and self._waits_for(other, found):
                # It began while this run was asleep between looking and making.
                mine.unlink(missing_ok=True)
                raise FolderTakenError(f"it belongs to {found}")
            other.unlink(missing_ok=True)
        with suppress(OSError):  # looking may have lasted as long as a silence
            os.utime(mine)
        self._path = mine

    def begin_heartbeat(self) -> None:
        """Until ``release``, by a thread of its own."""
        threading.Thread(target=self._beat, name="lepton_mpi folder", daemon=True).start()

    def confirm(self) -> None:
        """See that this run is still the owner; take the folder again if nobody is, since it was removed and made anew, say.

        Raises OSError and FolderTakenError.
        """
        path, owner = _highest(self.folder)
        if path is None or path != self._path or owner.token != self.token:
            self.take()

    def is_there(self) -> bool:
        """Whether the folder is that which this run has taken."""
        return self._path is not None and self._path.exists()

    def release(self) -> None:
        """Give the folder back; also where it is gone."""
        self._is_over.set()
        if self._path and self._own.pid == os.getpid():
            with suppress(OSError):
                found = _owner_of(self._path)
                if found and found.token == self.token:
                    self._path.unlink()
        self._path = None

    def _beat(self) -> None:
        while not self._is_over.wait(HEARTBEAT_SECONDS):
            with suppress(OSError, TypeError):
                os.utime(self._path)  # type: ignore[arg-type]

    def _waits_for(self, path: Path, owner: Owner) -> bool:
        """Whether an owner lives: at once where that can be seen, else after so long as its heartbeat may take."""
        alive = owner.is_alive()
        if alive is not None:
            return alive
        first = _time_of(path)
        silent = self._now() - first if first is not None else 0.0
        if first is not None and silent < SILENT_SECONDS:
            self._say(
                f"{self.folder}: belongs to {owner}, last heard of {max(0.0, silent):.0f} s ago; "
                f"looks for up to {SILENT_SECONDS - silent:.0f} s whether that run lives"
            )
        deadline = time.monotonic() + SILENT_SECONDS - silent
        while time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
            now = _time_of(path)
            if now is None:  # given back
                return False
            if now != first:
                return True
        return False

    def _now(self) -> float:
        """By the clock of the file server."""
        path = self.folder / f"owner-{self.token}.tmp"
        try:
            with path.open("w") as file:
                return os.fstat(file.fileno()).st_mtime
        finally:
            path.unlink(missing_ok=True)

    def _make(self, path: Path) -> bool:
        """Write the lock under a name that nobody has; False if somebody has it."""
        text = json.dumps(dataclasses.asdict(self._own)).encode()
        return make_once(self.folder / f"owner-{self.token}.tmp", path, text)


def make_once(temporary: Path, path: Path, text: bytes) -> bool:
    """Write a file, whole at once, under a name that nobody has; False if somebody has it. ``temporary`` is a name of this process alone."""
    try:
        _write(temporary, text, os.O_TRUNC)
        try:
            os.link(temporary, path)
        except FileExistsError:
            # A file server may have carried a link out whose answer was lost.
            with suppress(FileNotFoundError):
                return temporary.stat().st_nlink == 2
            return False
        except FileNotFoundError:
            return False  # the owner has taken it for what a killed run has left
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            try:
                _write(path, text, os.O_EXCL)
            except FileExistsError:
                return False
        return True
    finally:
        temporary.unlink(missing_ok=True)


def open_at_once(path: Path) -> TextIO:
    """A text that anybody may have written, to read; a pipe says nothing, and is not waited for. Raises OSError."""
    return open(
        path,
        encoding="utf-8",
        errors="replace",
        opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK),
    )


def owner_of(folder: Path) -> Owner | None:
    """Who has the lock of a folder, alive or dead; None if nobody. Raises OSError."""
    path, owner = _highest(folder)
    return owner if path else None


def taken(folder: str, error: OSError) -> ConfigurationError:
    """For a folder that another run owns."""
    return ConfigurationError(
        f"--checkpoint {one_line(folder)}: {error}, which writes there; give this run a folder of its own, as "
        f"--checkpoint {one_line(folder)}/{{job}}, or wait until that one has ended"
    )


def _write(path: Path, data: bytes, flags: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locks(folder: Path) -> Iterator[Path]:
    for name in os.listdir(folder):
        if _NAME.fullmatch(name):
            yield folder / name


def _number(path: Path) -> str:
    match = _NAME.fullmatch(path.name)
    return match[1] if match else "0"


def _highest(folder: Path) -> tuple[Path | None, Owner]:
    """The lock and its owner; None without one. Raises OSError."""
    while True:
        path = max(_locks(folder), key=lambda each: int(_number(each)), default=None)
        if path is None:
            return None, Owner()
        owner = _owner_of(path)
        if owner is not None:
            return path, owner


def _owner_of(path: Path) -> Owner | None:
    """None if the lock is gone."""
    try:
        # Opening asks the server, where a look at its name may be answered from memory.
        with open_at_once(path) as file:
            return Owner.of(file.read(4096))
    except FileNotFoundError:
        return None


def _time_of(path: Path) -> float | None:
    try:
        with open_at_once(path) as file:
            return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None


def _process_start(pid: int) -> str:
    """When a process began, in ticks since the boot; empty if it is gone or a zombie, or where Linux does not say it."""
    found = look_at(pid)
    return "" if found is None or found.has_ended else str(found.began)
