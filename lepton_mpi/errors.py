"""Errors that a user can cause or must act on, each with the exit code of the job.

A ``LeptonError`` that went through ``World.agree`` is raised on every rank alike and ends the job in
one line; any other exception on a rank is a failure of that rank and aborts the job with exit code 5.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


class LeptonError(Exception):
    """Base of all errors with a message meant for the user: what was expected, what came, what to do."""

    exit_code = 1
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


@contextmanager
def same_on_all_ranks() -> Iterator[None]:
    """A block that computes from what all ranks know, so that all of them raise what one raises."""
    try:
        yield
    except LeptonError as error:
        error.on_all_ranks()
        raise
