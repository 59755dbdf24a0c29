"""Standard output of the rank that speaks: lines and, on a terminal, one more below them that changes in place.

Where the output ends a rank cannot ask of its own descriptor: under a launcher ``isatty`` is true on no rank or on all of them,
also when all of it goes to a file. So the launcher's own standard output is looked at, in ``/proc``. Where that is not possible, as
under srun, or where the launcher marks lines with ranks, there are plain lines, without any control code.

The line in place is written over from its begin and what is left of the one before erased behind it: nothing is ever blank
in between, so it does not flicker, and a job that is killed leaves a terminal as it was.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress

from lepton_mpi import launcher
from lepton_mpi.processes import words_of
from lepton_mpi.wording import print_line
from lepton_mpi.world.launchers import launcher_of

_TERMINAL = "LEPTON_TERMINAL"  # set by run_local.sh, which can see its own terminal
_COLUMNS, _COLUMNS_MIN = 80, 40
# Of lines that are folded: as wide as their titles.
_INDENT = " " * 10
# Begins of options with which launchers put something before each line, or put lines elsewhere.
_MARKING = ("output", "tag-output", "timestamp-output", "prepend-rank", "outfile", "xml")


class Screen:
    """Where lines go.

    Parameters
    ----------
    terminal : str
        Path of the terminal's descriptor, or empty where output does not end on one.
    """

    def __init__(self, terminal: str) -> None:
        self._terminal, self._is_shown = terminal, False

    @property
    def is_terminal(self) -> bool:
        """Whether there may be a line that changes in place."""
        return bool(self._terminal)

    @property
    def columns(self) -> int:
        """Width of the terminal now, which its user may change."""
        size = 0
        with suppress(OSError, ValueError):
            descriptor = os.open(self._terminal, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                size = os.get_terminal_size(descriptor).columns
            finally:
                os.close(descriptor)
        if not size:
            with suppress(ValueError):
                size = int(os.environ.get("COLUMNS", ""))
        return max(size, _COLUMNS_MIN) if size > 0 else _COLUMNS

    def line(self, text: str) -> None:
        """For good. On a terminal it is folded between words, where it would be cut anywhere. Raises LauncherError."""
        if self.is_terminal:
            text = f"{self._begin()}{folded(text, self.columns)}"
        print_line(text)

    def status(self, fields: Sequence[str], least: int) -> None:
        """The line in place: as many of the ``fields`` as there is room for. Those behind ``least`` may be left out, the last first."""
        room, kept = self.columns - 1, list(fields)
        while len(kept) > least and len("  ".join(kept)) > room:
            kept.pop()
        print_line(f"\r{'  '.join(kept)[:room]}\x1b[K", end="")
        self._is_shown = True

    def clear(self) -> None:
        """No line in place any more."""
        if self._is_shown:
            print_line(self._begin(), end="")

    def _begin(self) -> str:
        """What takes the line in place away."""
        shown, self._is_shown = self._is_shown, False
        return "\r\x1b[K" if shown else ""


def folded(text: str, columns: int) -> str:
    """A line as lines that are shorter than the terminal is wide; words, and what a no-break space joins, stay whole.

    >>> print(folded("training  adam 0.001, global batch 64", 24))
    training  adam 0.001,
              global batch
              64
    """
    if len(text) < columns:
        return text.replace("\xa0", " ")
    made = textwrap.wrap(
        text,
        columns - 1,
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(made).replace("\xa0", " ")


def find_terminal(environment: Mapping[str, str] = os.environ) -> str:
    """Path of a descriptor of the terminal on which output of this rank ends; empty if it does not, as far as can be seen."""
    own = "/proc/self/fd/1"
    if not launcher.is_launched(environment):
        return own if sys.stdout is not None and sys.stdout.isatty() else ""
    process = _first_launcher()
    path = f"/proc/{process}/fd/1" if process is not None else own
    if environment.get(_TERMINAL) == "1":
        return path
    if process is None or _marks_lines(process) or not _is_terminal(path):
        return ""
    return path


def _first_launcher() -> int | None:
    """The one that was started by hand, where it has started others."""
    found, process = None, launcher_of(os.getpid())
    while process is not None:
        found, process = process, launcher_of(process)
    return found


def _marks_lines(process: int) -> bool:
    words = words_of(process)
    return not words or any(
        (word.startswith("-") and word.lstrip("-").startswith(_MARKING)) or word == "-l"
        for word in words
    )


def _is_terminal(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.isatty(descriptor)
    finally:
        os.close(descriptor)
