"""Errors that a user can cause or must act on, each with the exit code of the job.

A ``LeptonError`` that went through ``World.agree`` is raised on every rank alike and ends the job in
one line; any other exception on a rank is a failure of that rank and aborts the job with exit code 5.
"""

import difflib
from collections.abc import Sequence


class LeptonError(Exception):
    """Base of all errors with a message meant for the user: what was expected, what came, what to do."""

    exit_code = 1
    agreed = False  # True once every rank is known to raise the same error


class ConfigurationError(LeptonError):
    """Wrong option, key or value."""

    exit_code = 2


class DataError(LeptonError):
    """A file that is missing, unreadable or has wrong content; names file, data set and row."""

    exit_code = 3


class LauncherError(LeptonError):
    """The processes were not started in a way that fits the MPI library, or the machine lacks something."""

    exit_code = 4


class RankError(LeptonError):
    """A rank failed, timed out or disagrees with the others."""

    exit_code = 5


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
