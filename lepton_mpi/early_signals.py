"""Signals to stop that come while a program that trains still loads its libraries: they are remembered until the ranks can agree.

From the first lines of the program on; ``world/stopping.py`` takes them over. Ctrl-C ends the program, since there is nothing to save.
So are those that come while ranks go on without others (``World.go_on``), until they train again.
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

# What batch systems send before the time limit.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

_remembered: list[int] = []


def remember(with_interrupts: bool = False) -> None:
    """From now on, where nobody else handles them. For the main thread of a program; does nothing in an interactive Python.

    ``with_interrupts``: Ctrl-C, too, since there is something to save.
    """
    if threading.current_thread() is not threading.main_thread() or hasattr(sys, "ps1"):
        return
    for number in SIGNALS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, keep)
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _end):
        signal.signal(signal.SIGINT, keep if with_interrupts else _end)


def handler(number: int) -> object:
    """How a signal is handled, as ``signal.getsignal`` says it, but for what is done here."""
    found: object = signal.getsignal(number)
    if found in (keep, _end):
        return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    return found


def give_up() -> None:
    """Have signals handled as usual again, those that have come first: nobody takes them over."""
    for number in (*SIGNALS, signal.SIGINT):
        usual: Any = handler(number)
        if usual != signal.getsignal(number):
            signal.signal(number, usual)
    for number in taken():
        os.kill(os.getpid(), number)


def taken() -> list[int]:
    """The signals that have come, each once: they are whoever asks's."""
    found = list(dict.fromkeys(_remembered))
    _remembered.clear()
    return found


def keep(number: int, frame: object) -> None:
    """A handler that remembers a signal."""
    _remembered.append(number)


def _end(number: int, frame: object) -> None:
    with suppress(OSError):
        os.write(2, b"lepton_mpi: interrupted before training began\n")
    os._exit(128 + number)
