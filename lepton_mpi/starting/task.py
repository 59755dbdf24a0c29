"""What caller and ranks leave for each other in the job's folder. The folder is the caller's alone: others cannot put pickles there."""

import os
import pickle
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_mpi import errors
from lepton_mpi.errors import ConfigurationError, LauncherError, LeptonError, RankError
from lepton_mpi.extras import pip_install

_TASK, _RESULT, _ERROR, _PID, _DONE = "task", "result", "error", "pid", "done"


@dataclass(frozen=True)
class Failed:
    """What a rank's function raised: its class by name, message, traceback, exit code."""

    rank: int
    kind: str
    message: str
    trace: str
    exit_code: int


def write_task(
    folder: Path, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Function and arguments for the ranks. Raises ConfigurationError where they cannot be pickled."""
    if not callable(function):
        raise ConfigurationError(
            f"launch: expected a function that the ranks call, got {type(function).__name__}"
        )
    call = pickled((function, tuple(args), dict(kwargs)), _is_of_main(function))
    put(folder / _TASK, pickle.dumps((os.getpid(), list(sys.path), os.getcwd(), call)))


def read_task(folder: Path) -> tuple[int, Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """The caller's process id, and the same on a rank. Raises LauncherError on another machine, which does not have the folder, and for a folder of others."""
    try:
        _check_is_private(folder)
        caller, path, place, call = pickle.loads((folder / _TASK).read_bytes())
    except FileNotFoundError:
        raise LauncherError(
            f"{folder}: no such folder on this machine: launch starts ranks on one machine; start a job over several by mpirun or srun"
        ) from None
    sys.path[:] = path
    os.chdir(place)
    return caller, *pickle.loads(call)


def _check_is_private(folder: Path) -> None:
    """What is read from here is a program: nobody else may have written it. Raises LauncherError and FileNotFoundError."""
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise LauncherError(
            f"{folder}: expected a folder of this user that others can neither read nor write, got mode {found.st_mode & 0o777:o}"
        )


def pickled(value: Any, is_of_main: bool) -> bytes:
    """``value`` by cloudpickle, which takes functions of ``__main__`` and of notebooks along; else by pickle.

    Raises ConfigurationError.
    """
    try:
        import cloudpickle
    except ImportError:
        if is_of_main:
            raise ConfigurationError(
                f"launch: a function of a notebook or of the program itself needs cloudpickle: {pip_install('sklearn', 'cloudpickle')}, or put the "
                "function into a module and import it"
            ) from None
        cloudpickle = pickle
    try:
        return cloudpickle.dumps(value)
    except Exception as error:  # whatever a class of the user's raises
        raise ConfigurationError(
            f"launch: function or arguments cannot be pickled for the ranks: {type(error).__name__}: {error}"
        ) from None


def _is_of_main(function: Any) -> bool:
    name = getattr(function, "__qualname__", "<")
    return getattr(function, "__module__", None) in (None, "__main__") or "<" in name


def put(path: Path, content: bytes) -> None:
    """Write a file that is whole under its name."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


# -- ranks ----------------------------------------------------------------------------------------------


def write_pid(folder: Path, rank: int) -> None:
    """This process is ``rank``."""
    put(folder / f"{_PID}.{rank}", str(os.getpid()).encode())


def write_done(folder: Path, rank: int) -> None:
    """The function has returned on ``rank``."""
    put(folder / f"{_DONE}.{rank}", b"")


def write_result(folder: Path, value: Any) -> None:
    """What the function gave rank 0. Raises ConfigurationError where it cannot be pickled."""
    try:
        content = pickled(value, False)
    except ConfigurationError as error:
        raise ConfigurationError(
            str(error).replace("function or arguments", "the result of rank 0").replace("for the ranks", "for the caller")
        ) from None  # fmt: skip
    put(folder / _RESULT, content)


def write_error(folder: Path, rank: int, error: BaseException) -> int:
    """What the function raised on ``rank``; returns the exit code."""
    code = error.exit_code if isinstance(error, LeptonError) else RankError.exit_code
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code:
        code = error.code
    try:
        message = str(error)
    except Exception:  # of a class of the user's
        message = ""
    trace = "".join(traceback.format_exception(error))
    kind = type(error).__name__ if isinstance(error, LeptonError) else type(error).__qualname__
    put(folder / f"{_ERROR}.{rank}", pickle.dumps(Failed(rank, kind, message, trace, code)))
    return code


# -- caller ---------------------------------------------------------------------------------------------


def pids(folder: Path) -> dict[int, int]:
    """Process ids of the ranks that have begun."""
    found = folder.glob(f"{_PID}.*[0-9]")
    return {int(path.suffix[1:]): int(path.read_bytes()) for path in found}


def is_done(folder: Path, rank: int) -> bool:
    """Whether ``rank`` has said that it is through, or why it is not."""
    return any((folder / f"{name}.{rank}").exists() for name in (_DONE, _ERROR))


def first_error(folder: Path) -> Failed | None:
    """What was written first; of several at one time that of the lowest rank."""
    paths = [path for path in folder.glob(f"{_ERROR}.*") if path.suffix[1:].isdigit()]
    if not paths:
        return None
    path = min(paths, key=lambda path: (path.stat().st_mtime_ns, int(path.suffix[1:])))
    return pickle.loads(path.read_bytes())


def read_result(folder: Path) -> tuple[Any] | None:
    """What rank 0 returned, or nothing."""
    path = folder / _RESULT
    return (pickle.loads(path.read_bytes()),) if path.exists() else None


def exception_of(failed: Failed, ranks: int) -> LeptonError:
    """The error of a rank as the caller raises it: errors meant for the user as they are, others as RankError with the traceback."""
    kind = getattr(errors, failed.kind, None)
    who = f"rank {failed.rank} of {ranks}"
    if isinstance(kind, type) and issubclass(kind, LeptonError):
        error = kind(failed.message)
        error.add_note(f"on {who}:\n{failed.trace.rstrip()}")
        return error
    return RankError(f"{who} failed: {failed.kind}: {failed.message}\n{failed.trace.rstrip()}")
