"""Runs a launcher of MPI for a terminal: Ctrl-C has the ranks save and say how to go on, a second one ends them.

    python -I -S foreground.py [--without-sigpipe] mpirun …

Open MPI's launcher drops what its ranks print once it got SIGINT. So it has a session of its own, in which the terminal's Ctrl-C does not
reach it, and this program translates:

    SIGINT               SIGUSR1, by which ranks finish a step, save, and end; the second time SIGTERM, and SIGKILL if that does nothing
    SIGTERM, SIGHUP      the same, and SIGTERM by itself after a while: nobody may be there to ask again
    SIGUSR1, SIGUSR2     the same
    SIGTSTP, SIGCONT     SIGTSTP and SIGCONT, by which the launcher stops its ranks

The launcher gets SIGTERM when this program dies, whatever kills it. Needs the standard library alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

_PR_SET_PDEATHSIG = 1
_INTERRUPTED = 130
# For ranks to finish a step and save where nobody can ask a second time; from SIGTERM to the next one, and to SIGKILL.
_SAVE_SECONDS, _END_SECONDS, _END_TIMES = 60.0, 5.0, 2
_LOOK_SECONDS = 0.1


def end_with_parent(parent: int) -> Callable[[], None]:
    """For a new process to call: SIGTERM when the process ``parent`` dies, at once if it has died already."""
    library = ctypes.CDLL(None)

    def set_up() -> None:
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    return set_up


class Foreground:
    """The launcher's process, and what it was told."""

    def __init__(self, words: list[str], keeps_sigpipe: bool) -> None:
        self._interrupts, self._terminations = 0, 0
        self._ends_at = float("inf")
        handlers = {
            **dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), self._on_end),
            **dict.fromkeys((signal.SIGUSR1, signal.SIGUSR2), self._on_other),
            signal.SIGTSTP: self._on_stop,
        }
        # What comes before there is a process to tell waits until there is.
        signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
        for number, handler in handlers.items():
            if (
                signal.getsignal(number) != signal.SIG_IGN
            ):  # as nohup has it, and a script's background
                signal.signal(number, handler)
        end = end_with_parent(os.getpid())

        def begin() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)
            end()

        self._process = subprocess.Popen(
            words,
            start_new_session=True,
            restore_signals=keeps_sigpipe,
            preexec_fn=begin,
        )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)

    def exit_code(self) -> int:
        """Wait until the launcher has ended."""
        while True:
            try:
                code = self._process.wait(_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() > self._ends_at:
                    self._end()
        if self._interrupts > 1:
            return _INTERRUPTED
        return 128 - code if code < 0 else code

    def _on_end(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            self._ends_at = time.monotonic()
            return
        self._send(signal.SIGUSR1)
        if number == signal.SIGINT:
            _say("the ranks finish a step, save, and end; Ctrl-C once more ends them at once")
        elif self._ends_at == float("inf"):
            self._ends_at = time.monotonic() + _SAVE_SECONDS

    def _on_other(self, number: int, frame: FrameType | None) -> None:
        self._send(number)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._send(signal.SIGTSTP)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._send(signal.SIGCONT)

    def _end(self) -> None:
        self._terminations += 1
        is_last = self._terminations > _END_TIMES
        self._send(signal.SIGKILL if is_last else signal.SIGTERM)
        self._ends_at = time.monotonic() + _END_SECONDS

    def _send(self, number: int) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)


def _say(text: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        os.write(2, f"\nrun_local.sh: {text}\n".encode())


def main(words: list[str]) -> int:
    """Run the launcher of ``words``; returns the exit code."""
    keeps_sigpipe = words[:1] != ["--without-sigpipe"]
    try:
        return Foreground(words if keeps_sigpipe else words[1:], keeps_sigpipe).exit_code()
    except OSError as error:
        _say(f"cannot start {words[-1]}: {error.strerror}")
        return 4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
