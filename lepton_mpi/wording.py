"""How values, sizes and texts of others are written for people; one line to standard output."""

import difflib
import os
import sys
from collections.abc import Sequence

from lepton_mpi.errors import LauncherError

# How a line on standard error begins behind which the job goes on; other lines of ours there end it (``starting/launcher_noise.py``).
WARNING = "lepton_mpi: warning: "


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """``, did you mean …?`` if one of ``known`` begins with ``word`` or is close to it, else nothing."""
    begun = [name for name in known if len(word) > 3 and name.startswith(word)]
    close = begun or difflib.get_close_matches(word, known, n=1)
    return f", did you mean {close[0]}?" if close else ""


def one_line(value: object) -> str:
    """The text of a value, such as another library's error, on one line."""
    return printable(" ".join(str(value).split()))


def printable(text: str) -> str:
    """The text with letters only: what would move a terminal's cursor, or worse, is written as in Python."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def size_text(byte_count: int) -> str:
    """Three digits, or four whole ones, and a unit.

    >>> [size_text(count) for count in (24, 4096, 12288, 40000, 64 << 20, (1 << 20) - 1024, 3 << 40)]
    ['24 B', '4 KiB', '12 KiB', '39.1 KiB', '64 MiB', '1023 KiB', '3 TiB']
    """
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if byte_count >= 1 << power:
            amount = byte_count / (1 << power)
            return f"{amount:.3g} {unit}" if amount < 999.5 else f"{amount:.0f} {unit}"
    return f"{byte_count} B"


def grouped(number: float) -> str:
    """A whole number with thin groups of three: 12 345.

    >>> grouped(12345.6)
    '12 346'
    """
    return f"{number:,.0f}".replace(",", " ")


def clock_text(seconds: float) -> str:
    """Hours, minutes and seconds, as a clock shows them.

    >>> [clock_text(seconds) for seconds in (0.4, 59.6, 83, 3723, 100 * 3600)]
    ['0:00', '1:00', '1:23', '1:02:03', '100:00:00']
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def print_line(line: str, end: str = "\n") -> None:
    """To standard output, which may be a pipe that nobody reads, or a disk that is full. Raises LauncherError."""
    try:
        print(line, end=end, flush=True)
    except OSError as error:
        # Else Python would try to write what is left when it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise LauncherError(f"cannot write to standard output: {error.strerror}") from None
