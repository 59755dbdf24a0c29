"""Errors that a user can cause or must act on, each with the exit code of the job.

A ``LeptonError`` that went through ``World.agree`` is raised on every rank alike and ends the job in
one line; any other exception on a rank is a failure of that rank and aborts the job with exit code 5.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self


class LeptonError(Exception):
    """Base of all errors with a message meant for the user: what was expected, what came, what to do."""

    exit_code = 1
    details: Sequence[str] = ()  # lines that a command prints below the message
    agreed = False  # True once every rank is known to raise the same error

    def on_all_ranks(self) -> Self:
        """This error, which every rank raises alike, since it follows from what all of them know."""
        self.agreed = True
        return self


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


class Preempted(LeptonError):
    """A signal or the time limit has stopped the run; what it did is saved, or the message says that it is not."""

    exit_code = 75


def ending(error: LeptonError) -> LeptonError:
    """``error``, whose line has been printed, for a program that may catch it as one of its class.

    It is a SystemExit, too: a program that does not catch it ends with its exit code and without a traceback.

    >>> found = ending(DataError("no such file"))
    >>> isinstance(found, DataError), isinstance(found, SystemExit), found.code, str(found)
    (True, True, 3, 'no such file')
    """
    kind = type(error)
    both: type[LeptonError] = type(
        kind.__name__, (kind, SystemExit), {"__module__": kind.__module__, "code": kind.exit_code}
    )
    found = both(*error.args)
    found.code = kind.exit_code  # type: ignore[attr-defined]
    found.agreed = error.agreed
    return found


@contextmanager
def same_on_all_ranks() -> Iterator[None]:
    """A block that computes from what all ranks know, so that all of them raise what one raises."""
    try:
        yield
    except LeptonError as error:
        error.on_all_ranks()
        raise
