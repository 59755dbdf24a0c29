"""What is in a folder of checkpoints: which files are whole, what of the others is damaged, who owns it, and what may go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_mpi.data.files import probe
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.run import checkpoint, checkpoint_folder, folder_lock, vector_digests
from lepton_mpi.run.best import FILE as BEST
from lepton_mpi.run.folder_lock import FolderLock, FolderTakenError
from lepton_mpi.wording import one_line, printable, size_text

_TITLES = ("file", "step", "epoch", "row", "written", "size", "state")


@dataclass(frozen=True)
class Found:
    """One file.

    Attributes
    ----------
    facts : dict
        Attributes of the checkpoint; empty where they cannot be read.
    wrong : str
        What is wrong with it; empty if it is whole.
    is_file : bool
        False for a folder, a pipe or a device that has a checkpoint's name.
    """

    path: Path
    written: float
    byte_count: int
    facts: dict[str, Any]
    wrong: str = ""
    is_file: bool = True

    def cells(self) -> tuple[str, ...]:
        """Of the table."""
        numbers = [one_line(self.facts.get(name, "-")) for name in ("step", "epoch", "row")]
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.written))
        return (
            printable(self.path.name),
            *numbers,
            when,
            size_text(self.byte_count),
            self.wrong or "whole",
        )


def look(folder: Path) -> list[Found]:
    """Every checkpoint of a folder, read and verified, newest first; best.h5 comes last. Raises DataError.

    What its run removes meanwhile is left out.
    """
    try:
        if not folder.is_dir():
            raise DataError(f"{folder}: expected a folder of checkpoints, got no folder")
        for _ in range(checkpoint_folder.TRIES):
            paths = checkpoint_folder.newest_first(folder)
            found = [each for path in (*paths, folder / BEST) if (each := _found(path))]
            if found or not paths:  # else its run has written others
                return found
        raise DataError(f"{folder}: its run removes checkpoints sooner than they can be read")
    except OSError as error:
        raise DataError(f"{folder}: not readable: {one_line(error)}") from None


def owner_text(folder: Path) -> str:
    """Who owns the folder, for people. Raises DataError."""
    try:
        owner = folder_lock.owner_of(folder)
    except OSError as error:
        raise DataError(f"{folder}: not readable: {one_line(error)}") from None
    if owner is None:
        return "belongs to no run now"
    alive = owner.is_alive()
    if alive is None:
        return f"belongs to {owner}, of which nothing can be seen from here"
    state = "which runs" if alive else "which has ended without giving it back"
    return f"belongs to {owner}, {state}"


def table(found: list[Found]) -> Iterator[str]:
    """Lines for people."""
    rows = [_TITLES, *(each.cells() for each in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_TITLES) - 1)]
    for row in rows:
        padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=False)]
        padded[0] = row[0].ljust(widths[0])
        yield "  ".join([*padded, row[-1]])


def superfluous(found: list[Found], kept: int) -> list[Path]:
    """What goes if the ``kept`` newest whole ones stay: the other whole ones, and the damaged if there is any that is whole.

    Never best.h5, nor what is no file.
    """
    steps = [each for each in found if each.path.name != BEST and each.is_file]
    whole = [each for each in steps if not each.wrong]
    damaged = [each for each in steps if each.wrong] if whole else []
    return [each.path for each in (*whole[kept:], *damaged)]


def prune(folder: Path, found: list[Found], kept: int) -> list[Path]:
    """Remove what is superfluous, and what killed runs have left; returns the checkpoints that went.

    A file stays that a run has written anew since it was found.
    Raises ConfigurationError if a run owns the folder, and OSError.
    """
    lock = FolderLock(folder)
    try:
        lock.take()
    except FolderTakenError as error:
        raise ConfigurationError(
            f"{folder}: {error}, which writes there; end that run first, or give it another --keep"
        ) from None
    try:
        checkpoint_folder.remove_leftovers(folder)
        written = {each.path: each.written for each in found}
        gone = []
        for path in superfluous(found, kept):
            status = checkpoint_folder.status_of(path)
            if status is None or status.st_mtime != written[path]:
                continue
            gone.append(path)
            path.unlink(missing_ok=True)
        return gone
    finally:
        lock.release()


def _found(path: Path) -> Found | None:
    """None where nothing is, or not any more. Raises OSError."""
    status = checkpoint_folder.status_of(path)
    if status is None:
        return None
    facts: dict[str, Any] = {}
    wrong = ""
    try:
        checkpoint.verify(path)
        facts, _ = checkpoint.read_attributes(path)
    except DataError as error:
        wrong = _damage(path) or str(error).removeprefix(f"{path}: ")
        if checkpoint_folder.status_of(path) is None:
            return None
    is_file = checkpoint_folder.is_file_or_link(status)
    return Found(path, status.st_mtime, status.st_size, facts, wrong, is_file)


def _damage(path: Path) -> str:
    """Where a file is damaged that is a checkpoint otherwise; empty if that cannot be said."""
    try:
        probe.check(path)
    except DataError as error:
        return str(error).removeprefix(f"{path}: ") if "damaged" in str(error) else ""
    names = vector_digests.damaged(path)
    return f"damaged: {', '.join(map(one_line, names))}" if names and names != ["manifest"] else ""
