"""Errors that a user can cause or must act on, each with the exit code of the job.

A ``LeptonError`` that went through ``World.agree`` is raised on every rank alike and ends the job in
one line; any other exception on a rank is a failure of that rank and aborts the job with exit code 5.
"""


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
