"""Timers of the C library and the kernel, which go off whatever the interpreter does.

``Timer.calling`` needs a thread of the process when its time has come; ``Timer.killing`` needs nothing of it: Linux sends the
signal itself, also to a process that was stopped or cannot make threads.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

_SIGEV_SIGNAL, _SIGEV_THREAD = 0, 2
_CLOCK_MONOTONIC = 1


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


class Timer:
    """Does nothing before ``set``."""

    def __init__(self, event: _SignalEvent, argument: object = None) -> None:
        self._argument = argument  # lives as long as the timer
        self._timer = ctypes.c_void_p()
        self._libc = _libc()
        self._call("timer_create", _CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer))

    @classmethod
    def calling(cls, function: str, argument: str | int) -> Timer:
        """Calls a function of the C library with one argument, in a thread of its own."""
        text = ctypes.create_string_buffer(argument.encode()) if isinstance(argument, str) else None
        value = ctypes.addressof(text) if text is not None else argument
        address = ctypes.cast(getattr(_libc(), function), ctypes.c_void_p)
        event = _SignalEvent(value=value, notify=_SIGEV_THREAD, function=address.value)
        return cls(event, text)

    @classmethod
    def killing(cls, signal_number: int) -> Timer:
        """Sends this process a signal."""
        return cls(_SignalEvent(signal=signal_number, notify=_SIGEV_SIGNAL))

    def set(self, seconds: float) -> None:
        """Go off in ``seconds`` from now."""
        time = _Time(seconds=int(seconds), nanoseconds=int(seconds % 1 * 1e9))
        self._call("timer_settime", self._timer, 0, ctypes.byref(time), None)

    def close(self) -> None:
        """Never go off."""
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
