"""Ends a process whose interpreter is stuck: a call that never gives the interpreter lock back keeps the watchdog from running.

Whatever happens then must be done by C code that was told of it before. Counted from the time limit:

    + 1 s   a thread of ``faulthandler`` writes the Python stacks to a file, which other ranks of the host can read;
    + 2 s   a rank of the host that can reports, with that stack (``watchdog.py``), and ends the job;
    + 4 s   where no rank of the host can, a timer of the C library starts ``heartbeats.py``, which reports;
    + 9 s   another one ends the process by ``_exit``, and the launcher the job;
    + 12 s  in a job of several ranks, Linux kills a process that was stopped or cannot make the threads for all this.

The watchdog's thread, which needs the lock, moves all of them into the future about once a second: 0.1 ms of its time,
nothing of a step's. ``PhaseClock`` does so too when a phase with another limit begins.
"""

from __future__ import annotations

import faulthandler
import os
import shlex
import signal
import sys
import threading

from lepton_mpi.errors import RankError
from lepton_mpi.world import heartbeats
from lepton_mpi.world.timers import Timer

_STACK_SECONDS, _REPORT_SECONDS, _EXIT_SECONDS, _KILL_SECONDS = 1.0, 4.0, 9.0, 12.0


class Backstop:
    """Nothing happens before the first ``arm``.

    Attributes
    ----------
    stack_file : int
        Descriptor of the file of stacks.
    """

    def __init__(self) -> None:
        self.stack_file = os.memfd_create("lepton_mpi:stacks")
        self._timers: list[tuple[Timer, float]] = []
        self._lock, self._is_open = threading.Lock(), True

    def report_by(self, host: heartbeats.Host, local_rank: int) -> None:
        """What to report where nobody else can."""
        words = sys.executable, "-I", "-S", heartbeats.__file__, host.to_json(local_rank)
        self._timers = [
            (Timer.calling("system", shlex.join(words)), _REPORT_SECONDS),
            (Timer.calling("_exit", RankError.exit_code), _EXIT_SECONDS),
        ]
        if host.size > 1:  # alone, a process that a shell has suspended keeps nobody waiting
            self._timers.append((Timer.killing(signal.SIGKILL), _KILL_SECONDS))

    def arm(self, limit_seconds: float, age_seconds: float) -> None:
        """This process is alive, in a phase that began ``age_seconds`` ago and may last ``limit_seconds``."""
        with self._lock:  # once closed, never armed again: the process may live on
            if not self._is_open:
                return
            os.ftruncate(self.stack_file, 0)
            os.lseek(self.stack_file, 0, os.SEEK_SET)
            stack = max(0.0, limit_seconds - age_seconds) + _STACK_SECONDS
            faulthandler.dump_traceback_later(stack, file=self.stack_file)
            for timer, seconds in self._timers:
                timer.set(limit_seconds + seconds)

    def close(self) -> None:
        """No limit any more."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                faulthandler.cancel_dump_traceback_later()
                for timer, _ in self._timers:
                    timer.close()
                os.close(self.stack_file)
