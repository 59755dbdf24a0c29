"""Ends a process whose interpreter is stuck: a call that never gives the interpreter lock back keeps the watchdog from running.

Whatever happens then must be done by C code that was told of it before. Counted from the time limit:

    + 1 s   a thread of ``faulthandler`` writes the Python stacks to a file, which other ranks of the host can read;
    + 2 s   a rank of the host that can reports, with that stack (``watchdog.py``), and ends the job;
    + 4 s   where no rank of the host can, a timer of the C library starts ``heartbeats.py``, which reports;
    + 9 s   another one ends the process by ``_exit``, and the launcher the job.

The watchdog's thread, which needs the lock, moves all of them into the future about once a second: 0.1 ms of its time,
nothing of a step's. ``PhaseClock`` does so too when a phase with another limit begins.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import shlex
import sys
import threading
from functools import cache

from lepton_mpi.errors import RankError
from lepton_mpi.world import heartbeats

_STACK_SECONDS, _REPORT_SECONDS, _EXIT_SECONDS = 1.0, 4.0, 9.0

_SIGEV_THREAD = 2
_CLOCK_MONOTONIC = 1


class Backstop:
    """Nothing happens before the first ``arm``.

    Attributes
    ----------
    stack_file : int
        Descriptor of the file of stacks.
    """

    def __init__(self) -> None:
        self.stack_file = os.memfd_create("lepton_mpi:stacks")
        self._timers: list[tuple[_Timer, float]] = []
        self._lock, self._is_open = threading.Lock(), True

    def report_by(self, host: heartbeats.Host, local_rank: int) -> None:
        """What to report where nobody else can."""
        words = sys.executable, "-I", "-S", heartbeats.__file__, host.to_json(local_rank)
        self._timers = [
            (_Timer("system", shlex.join(words)), _REPORT_SECONDS),
            (_Timer("_exit", RankError.exit_code), _EXIT_SECONDS),
        ]

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


class _SignalEvent(ctypes.Structure):
    """``struct sigevent`` of Linux."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("unused", ctypes.c_byte * 32),
    )


class _Time(ctypes.Structure):
    """``struct itimerspec``: an interval, which stays 0, and the time until the first call."""

    _fields_ = (
        ("every_seconds", ctypes.c_long),
        ("every_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


class _Timer:
    """Calls a function of the C library with one argument, in a thread of its own, when its time has come."""

    def __init__(self, function: str, argument: str | int) -> None:
        if isinstance(argument, str):
            self._argument = ctypes.create_string_buffer(argument.encode())
            value = ctypes.addressof(self._argument)
        else:
            value = argument
        address = ctypes.cast(getattr(_libc(), function), ctypes.c_void_p)
        event = _SignalEvent(value=value, notify=_SIGEV_THREAD, function=address.value)
        self._timer = ctypes.c_void_p()
        self._libc = _libc()
        self._call("timer_create", _CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer))

    def set(self, seconds: float) -> None:
        """Call it in ``seconds`` from now."""
        time = _Time(seconds=int(seconds), nanoseconds=int(seconds % 1 * 1e9))
        self._call("timer_settime", self._timer, 0, ctypes.byref(time), None)

    def close(self) -> None:
        """Never call it."""
        self._call("timer_delete", self._timer)

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._libc, name)(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")


@cache
def _libc() -> ctypes.CDLL:
    """The C library; until glibc 2.34 its timers are in a library of their own."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc if hasattr(libc, "timer_create") else ctypes.CDLL("librt.so.1", use_errno=True)
