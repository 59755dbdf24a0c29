"""How a failing job ends: one report, then MPI's abort, on whatever rank and in whatever thread the failure is found.

An unhandled exception on one rank would leave the others waiting for ever, so it ends the job: the excepthooks set here see
to it for code that knows nothing of this rule. On a job of several ranks they stay when the world is closed, since ranks
that go on to MPI's end wait there for one that does not come.

What a rank that fails does, in this order, so that nothing it waits for can keep it or the others:

    1. timers of the C library and of Linux, which end it in 4 and 5 s, whatever holds the interpreter lock
    2. word to the other hosts, which end themselves without a report
    3. its report of at most REPORT_LINES, if no rank of the host has reported before; the others of the host see that within a second
       and end, too, with the exit code of the first. Behind the report what the run wants to leave, such as a trace
       Whole tracebacks of all ranks that fail are files of the folder that LEPTON_REPORTS names, written meanwhile
    4. a program that ends the host's launcher if that stays (``launchers.py``)
    5. MPI's abort, which may hang with the interpreter lock held; a process that no launcher has started just ends, since there
       is nobody to abort, and Open MPI would print a banner
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from lepton_mpi import launcher, report_word
from lepton_mpi.errors import LeptonError, RankError
from lepton_mpi.wording import printable
from lepton_mpi.world.heartbeats import REPORT_LINES, innermost
from lepton_mpi.world.launchers import end_launcher, launcher_of
from lepton_mpi.world.timers import Timer

if TYPE_CHECKING:
    from lepton_mpi.world.world import World

# Names a folder: each rank that fails leaves there all that it knows.
REPORTS = "LEPTON_REPORTS"
# Of a report for the error itself; some have long texts.
_ERROR_LINES = 4

# For standard output before the report, and the file of LEPTON_REPORTS behind it: a disk or a reader that hangs must not keep the report.
_FLUSH_SECONDS, _KEEP_SECONDS = 0.5, 1.0
# Launchers drop what they have not passed on yet when the job aborts.
_PASSED_ON_SECONDS = 0.05
# The first rank that fails has the cause, and ends the others.
_OTHERS_SPEAK_SECONDS = 2.0
# MPI's errors are often the consequence of a death that its host, or the watchdog here, is about to report.
_CAUSE_SPEAKS_SECONDS = 1.5
# From the begin of ``fail`` to the end of the process.
_EXIT_SECONDS, _KILL_SECONDS = 4.0, 5.0
# A launcher that works ends its job in 1 to 2 s.
LAUNCHER_SECONDS = 5.0


class Failure:
    """The end of a job by this rank.

    Parameters
    ----------
    rank, size : int
    lock_file : int
        Descriptor of the file of ``heartbeats.py``; kept open beyond the world's end as long as the hooks stay, so that ranks
        that fail after it take turns, too.
    reported : int64, shape (1,)
        Word 0 of it: see there.
    tell_hosts : callable
        Has the other hosts end the job, too, without a report.
    place : callable
        Process, phase and step of this rank, for people.

    Attributes
    ----------
    last_words : callable or None
        Called by the first rank of the host that fails, behind its report, in whatever thread; the job ends about 3 s later all the same.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        lock_file: int,
        reported: np.ndarray,
        tell_hosts: Callable[[], None] = lambda: None,
        place: Callable[[], str] = lambda: "",
    ) -> None:
        self._tell_hosts, self._process_id, self._place = tell_hosts, os.getpid(), place
        self._rank, self._who, self._size = rank, f"rank {rank} of {size}", size
        self._lock_file, self._reported = os.dup(lock_file), reported
        self._hooks_stay = False
        self.last_words: Callable[[], None] | None = None
        self._hooks = sys.excepthook, threading.excepthook
        before = getattr(sys.excepthook, "__self__", None)
        if isinstance(before, Failure) and before._hooks_stay:
            self._hooks = before._hooks
            os.close(before._lock_file)
        sys.excepthook = self._on_exception
        threading.excepthook = self._on_thread_exception

    @property
    def has_begun(self) -> bool:
        """Whether a rank of this host has failed."""
        return bool(self._reported[0])

    def fail(
        self,
        report: str,
        exit_code: int = RankError.exit_code,
        launcher_seconds: float = LAUNCHER_SECONDS,
        details: str = "",
    ) -> None:
        """Print ``report``, unless another rank of this host has failed before, and end the job.

        An empty report is for a failure that another host reports. The launcher of this host has ``launcher_seconds`` to end.
        ``details`` are for the file of this rank.
        """
        end = ProcessEnd(report_word.code_of(int(self._reported[0])) or exit_code)
        self._tell_hosts()
        kept = _begun(lambda: self._keep(details or report))
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)  # Linux takes it back from a rank that dies
        # Not over, though begun: whoever had the lock was killed before the end of its report.
        first = not report_word.has_reported(int(self._reported[0]))
        if first:
            self._reported[0] = report_word.reporting_with(exit_code)
        else:  # perhaps only since this rank began to fail
            exit_code = report_word.code_of(int(self._reported[0])) or exit_code
        end.exit_with(exit_code)
        if first and report:
            _begun(_flush).join(_FLUSH_SECONDS)
            with suppress(OSError, ValueError):
                print(report.rstrip("\n"), file=sys.stderr, flush=True)
        if first:
            self._reported[0] = report_word.reported_with(exit_code)
        if first and report:
            time.sleep(_PASSED_ON_SECONDS)
        if first and self.last_words:
            with suppress(Exception):  # the report is what counts
                self.last_words()
        fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        if first:
            end_launcher(launcher_of(os.getpid()), launcher_seconds)
        if not (first and report):
            time.sleep(_OTHERS_SPEAK_SECONDS)
        kept.join(_KEEP_SECONDS)
        if self._size == 1 and not launcher.is_launched():
            os._exit(exit_code)
        _abort(exit_code)

    def _keep(self, text: str) -> None:
        """In the folder of LEPTON_REPORTS, if there is one."""
        if (folder := os.environ.get(REPORTS)) and text:
            with suppress(OSError):
                os.makedirs(folder, exist_ok=True)
                path = os.path.join(folder, f"rank-{self._rank}.txt")
                with open(path, "a", encoding="utf-8", errors="replace") as file:
                    file.write(text.rstrip("\n") + "\n")

    def close(self, hooks_stay: bool) -> None:
        """Put the hooks back that were there before and give back the file, unless they are still needed."""
        self._hooks_stay = hooks_stay
        if hooks_stay:
            return
        if sys.excepthook == self._on_exception:
            sys.excepthook = self._hooks[0]
        if threading.excepthook == self._on_thread_exception:
            threading.excepthook = self._hooks[1]
        os.close(self._lock_file)

    def _on_exception(
        self, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._process_id:
            end_child(error)
        if issubclass(kind, KeyboardInterrupt):
            self.fail("lepton_mpi: interrupted", 130)
        if kind.__module__ == "mpi4py.MPI":
            time.sleep(_CAUSE_SPEAKS_SECONDS)
        head = f"lepton_mpi: {self._who} failed: {self._place()}"
        whole = "".join(traceback.format_exception(kind, error, trace))
        short = "\n".join(excerpt(whole, REPORT_LINES - 1))
        self.fail(f"{head}\n{short}", details=f"{head}\n{whole}")

    def _on_thread_exception(self, hook: threading.ExceptHookArgs) -> None:
        self._on_exception(hook.exc_type, hook.exc_value, hook.exc_traceback)


def _begun(function: Callable[[], None]) -> threading.Thread:
    """A thread of its own for what may wait for a disk or a reader for ever; not begun where there is no room for one."""
    thread = threading.Thread(target=function, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # too many, or Python is ending
        thread = _Done()
    return thread


class _Done(threading.Thread):
    """Nothing to wait for."""

    def join(self, timeout: float | None = None) -> None:
        """At once."""


def _flush() -> None:
    with suppress(OSError, ValueError, AttributeError):  # closed or full: the job ends all the same
        sys.stdout.flush()


def excerpt(trace: str, lines_max: int) -> list[str]:
    """A traceback's innermost calls, and its error: of one that is longer than ``lines_max``, as much as fits.

    Of errors that others have led to, the last one.
    """
    whole = [line for line in trace.splitlines() if line]
    if len(whole) <= lines_max:
        return whole
    starts = [at for at, line in enumerate(whole) if line.startswith("Traceback (most recent")]
    last = whole[starts[-1] :] if starts else whole
    calls = [line for line in last[1:] if line.startswith("  ")]
    said = [line for line in last[1:] if not line.startswith("  ")][:_ERROR_LINES]
    shown = innermost("\n".join(calls), lines_max - 2 - len(said))
    left_out = f"  … outer calls are left out; {REPORTS}=FOLDER keeps them"
    return [last[0], left_out, *shown, *said]


def ended_by(error: BaseException, world: World) -> int | None:
    """Of ``world.run``: the exit code where all ranks raised what ``function(world)`` raised; None where the excepthook is to end the job."""
    if world.is_child:
        end_child(error)
    if isinstance(error, LeptonError):
        if not error.agreed:
            who = f"rank {world.rank} of {world.size}"
            world.fail(printable(f"lepton_mpi: {who}: {error}"), error.exit_code)
        if world.rank == 0:
            print(printable(f"lepton_mpi: {error}"), file=sys.stderr, flush=True)
        world.close()
        return error.exit_code
    if isinstance(error, SystemExit):
        # Of one rank: it would wait in MPI's end for the others, and they for it.
        world.fail(
            f"lepton_mpi: rank {world.rank} of {world.size} left by sys.exit({error.code!r})"
        )
    world.abandon()
    return None


def end_child(error: BaseException | None) -> NoReturn:
    """End a process that a rank has forked, with a message if it failed: MPI is not its, and in MPI's end it would wait for ever."""
    code: object = error.code if isinstance(error, SystemExit) else 0 if error is None else 1
    if error is not None and not isinstance(error, SystemExit):
        trace = "".join(traceback.format_exception(error))
        lines = "\n".join(excerpt(trace, REPORT_LINES - 1))
        text = (
            f"lepton_mpi: a process that a rank has forked failed, process {os.getpid()}:\n{lines}"
        )
        with suppress(OSError, ValueError, AttributeError):
            print(text.rstrip(), file=sys.stderr)
    elif not isinstance(code, int | None):
        with suppress(OSError, ValueError, AttributeError):
            print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0)


class ProcessEnd:
    """The timers that end this process in any case, the first one with an exit code."""

    def __init__(self, exit_code: int) -> None:
        self._exit_at = time.monotonic() + _EXIT_SECONDS
        self._timer: Timer | None = None
        self._exit_code: int | None = None
        self.exit_with(exit_code)
        with suppress(OSError):  # no room for timers: then MPI's abort has to do
            Timer.killing(signal.SIGKILL).set(_KILL_SECONDS)

    def exit_with(self, exit_code: int) -> None:
        """From now on, at the same time as before."""
        if exit_code == self._exit_code:
            return
        with suppress(OSError):
            timer, before = Timer.calling("_exit", exit_code), self._timer
            timer.set(max(0.001, self._exit_at - time.monotonic()))
            self._timer, self._exit_code = timer, exit_code
            if before:
                before.close()


def _abort(exit_code: int) -> None:
    """End all ranks, this one at once."""
    from lepton_mpi.world.mpi import MPI, delay_abort

    if not MPI.Is_finalized():
        delay_abort(0)
        MPI.COMM_WORLD.Abort(exit_code)
    os._exit(exit_code)  # MPI has ended, or its own abort has begun in another thread
