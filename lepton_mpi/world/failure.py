"""How a failing job ends: one report, then MPI's abort, on whatever rank and in whatever thread the failure is found.

An unhandled exception on one rank would leave the others waiting for ever, so it ends the job: the excepthooks set here see
to it for code that knows nothing of this rule. On a job of several ranks they stay when the world is closed, since ranks
that go on to MPI's end wait there for one that does not come.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
import traceback
from types import TracebackType

import numpy as np

from lepton_mpi.errors import RankError

# Launchers drop what they have not passed on yet when the job aborts.
_PASSED_ON_SECONDS = 0.05
# The first rank that fails has the cause, and ends the others.
_OTHERS_SPEAK_SECONDS = 2.0


class Failure:
    """The end of a job by this rank.

    Parameters
    ----------
    rank, size : int
    lock_file : int
        Descriptor of the file of ``heartbeats.py``; kept open beyond the world's end as long as the hooks stay, so that ranks
        that fail after it take turns, too.
    reported : int64, shape (1,)
        Word 0 of it.
    """

    def __init__(self, rank: int, size: int, lock_file: int, reported: np.ndarray) -> None:
        self._who, self._size = f"rank {rank} of {size}", size
        self._lock_file, self._reported = os.dup(lock_file), reported
        self._hooks_stay = False
        self._hooks = sys.excepthook, threading.excepthook
        before = getattr(sys.excepthook, "__self__", None)
        if isinstance(before, Failure) and before._hooks_stay:
            self._hooks = before._hooks
            os.close(before._lock_file)
        sys.excepthook = self._on_exception
        threading.excepthook = self._on_thread_exception

    def fail(self, report: str, exit_code: int = RankError.exit_code) -> None:
        """Print ``report``, unless another rank of this host has failed before, and end the job."""
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)  # Linux takes it back from a rank that dies
        first = not self._reported[0]
        self._reported[0] = 1
        if first:
            sys.stdout.flush()
            print(report.rstrip("\n"), file=sys.stderr, flush=True)
            time.sleep(_PASSED_ON_SECONDS)
        fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        if not first:
            time.sleep(_OTHERS_SPEAK_SECONDS)
        _abort(exit_code)

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
        if issubclass(kind, KeyboardInterrupt):
            self.fail("lepton_mpi: interrupted", 130)
        lines = traceback.format_exception(kind, error, trace)
        self.fail(f"lepton_mpi: {self._who} failed:\n{''.join(lines)}")

    def _on_thread_exception(self, hook: threading.ExceptHookArgs) -> None:
        self._on_exception(hook.exc_type, hook.exc_value, hook.exc_traceback)


def _abort(exit_code: int) -> None:
    """End all ranks, this one at once."""
    from lepton_mpi.world.mpi import MPI

    threading.Timer(2, os._exit, (exit_code,)).start()  # should MPI itself be stuck
    if not MPI.Is_finalized():
        MPI.COMM_WORLD.Abort(exit_code)
