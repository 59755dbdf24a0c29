"""``--csv``: a table with a row for every epoch, whose head never changes.

A run that goes on takes away the rows of epochs that it trains again, and a last line that a kill has cut, so that every epoch is there once,
in order. Numbers are written with all their digits.
"""

from __future__ import annotations

import csv
import io
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_mpi.durable import replacing
from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.wording import one_line, size_text

if TYPE_CHECKING:
    from lepton_mpi.run.progress import SoFar


class CsvTable:
    """The file.

    Parameters
    ----------
    name : str
        Its path.
    begins : int or None
        Epoch with which a run goes on. None for a run that begins: then the file must be new or empty.

    Raises
    ------
    ConfigurationError
        The file has something else in it.
    LauncherError
        It cannot be written.
    """

    def __init__(self, name: str, begins: int | None) -> None:
        self._path = Path(name)
        try:
            # Pipes and devices keep nothing.
            found = self._path.stat() if self._path.exists() else None
            is_filled = found is not None and found.st_size and stat.S_ISREG(found.st_mode)
            if found is not None and is_filled and begins is None:
                raise ConfigurationError(
                    f"--csv: expected a file that is new or empty, got {name} with {size_text(found.st_size)}; take another name, or go on "
                    "with --resume"
                )
            self._head = self._keep_until(begins) if is_filled and begins is not None else None
            self._file = self._path.open("a", encoding="utf-8", newline="")
        except OSError as error:
            raise self._failed(error) from None

    def epoch_goes_on(self, now: SoFar, step: int, learning_rate: float) -> None:
        """Has no row."""

    def epoch_ends(self, values: Mapping[str, float]) -> None:
        """Write a row, on disk at once. Raises LeptonError."""
        names = list(values)
        if self._head is not None and self._head != names:
            raise ConfigurationError(
                f"--csv: expected {self._path} to have the columns {', '.join(names)}, got {one_line(', '.join(self._head))}; take another name"
            )
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if self._head is None:
            writer.writerow(names)
        writer.writerow(values.values())
        try:
            self._file.write(text.getvalue())
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from None
        self._head = names

    def close(self) -> None:
        """Of a disk that was full there is an error already."""
        try:
            self._file.close()
        except OSError as error:
            raise self._failed(error) from None

    def _keep_until(self, epoch: int) -> list[str] | None:
        """Keep rows of epochs before ``epoch``, and return the head; None if not even that is whole."""
        text = self._path.read_text("utf-8", errors="replace")
        lines = text.splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        if not whole:
            kept, head = [], None
        else:
            head = next(csv.reader(whole[:1]), [])
            if head[:1] != ["epoch"]:
                found = one_line(head[0]) if head else "an empty line"
                raise ConfigurationError(
                    f"--csv: expected a file that --csv has written, whose first column is epoch, got {self._path}, whose is {found}"
                )
            kept = [whole[0], *(line for line in whole[1:] if self._epoch(line) < epoch)]
        if kept != lines:
            with replacing(self._path) as temporary:
                temporary.write_text("".join(kept), "utf-8", newline="")
        return head

    def _epoch(self, line: str) -> int:
        try:
            return int(line.partition(",")[0])
        except ValueError:
            raise ConfigurationError(
                f"--csv: expected rows that begin with the number of an epoch, got {one_line(line)[:80]!r} in {self._path}"
            ) from None

    def _failed(self, error: OSError) -> LauncherError:
        return LauncherError(f"cannot write {self._path}: {error.strerror}")
