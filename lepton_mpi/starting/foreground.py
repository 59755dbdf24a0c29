"""Runs a launcher of MPI for a terminal: Ctrl-C has the ranks save and say how to go on, a second one ends them.

    python -I -S foreground.py [--without-sigpipe] mpirun …

Open MPI's launcher drops what its ranks print once it got SIGINT. So it has a session of its own, in which the terminal's Ctrl-C does not
reach it, and this program translates:

    SIGINT               SIGUSR1, by which ranks finish a step, save, and end; the second time SIGTERM, and SIGKILL if that does nothing
    SIGTERM, SIGHUP      the same, and SIGTERM by itself after a while: nobody may be there to ask again
    SIGUSR1, SIGUSR2     the same
    SIGTSTP, SIGCONT     SIGTSTP and SIGCONT, by which the launcher stops its ranks

The launcher gets SIGTERM when this program dies, whatever kills it. What it prints passes through here, without banners that add nothing
(``launcher_noise.py``). Needs the standard library alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import IO

# Started as a file, without any folder to import from.
sys.path.append(os.path.dirname(os.path.abspath(__file__)))
from launcher_noise import Filter
from parents import end_with_parent

_INTERRUPTED = 130
# As ``RankError`` has it.
_FAILED = 5
# For ranks to finish a step and save where nobody can ask a second time; from SIGTERM to the next one, and to SIGKILL.
_SAVE_SECONDS, _END_SECONDS, _END_TIMES = 60.0, 5.0, 2
_LOOK_SECONDS = 0.1
# For what the launcher prints before it stops: while this program is stopped nothing passes.
_STOP_SECONDS = 0.5
# For what the launcher has printed last; what it has started may keep its output open.
_LAST_WORDS_SECONDS = 1.0
_READ_BYTES = 1 << 16


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
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)
        self._streams = [
            _Stream(pipe, target)
            for pipe, target in ((self._process.stdout, 1), (self._process.stderr, 2))
            if pipe
        ]

    def exit_code(self) -> int:
        """Wait until the launcher has ended."""
        while True:
            try:
                code = self._process.wait(_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() > self._ends_at:
                    self._end()
        for stream in self._streams:
            stream.wait(_LAST_WORDS_SECONDS)
        is_explained = any(stream.filter.has_report for stream in self._streams)
        for stream in self._streams:
            with suppress(BrokenPipeError):
                stream.write(stream.filter.rest(is_explained))
        if self._interrupts > 1:
            return _INTERRUPTED
        if any(stream.filter.has_death for stream in self._streams):
            return _FAILED
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
        time.sleep(_STOP_SECONDS)
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


def _fill_streams() -> None:
    """A stream that is closed must not get the number of a pipe."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


class _Stream:
    """Passes on, in a thread of its own, what comes from ``source``.

    What cannot be written is dropped; a pipe that nobody reads any more has ``source`` closed, as if the launcher wrote to it itself.
    """

    def __init__(self, source: IO[bytes], target: int) -> None:
        self.filter, self._source, self._target = Filter(), source, target
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until all has come, or for so long."""
        self._thread.join(seconds)

    def write(self, content: bytes) -> None:
        """To the target. Raises BrokenPipeError."""
        view = memoryview(content)
        while view:
            try:
                view = view[os.write(self._target, view) :]
            except BrokenPipeError:
                raise
            except OSError:
                return

    def _pass_on(self) -> None:
        with suppress(OSError), self._source:
            while content := os.read(self._source.fileno(), _READ_BYTES):
                self.write(self.filter.shown(content))


def _say(text: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        os.write(2, f"\nrun_local.sh: {text}\n".encode())


def main(words: list[str]) -> int:
    """Run the launcher of ``words``; returns the exit code."""
    _fill_streams()
    keeps_sigpipe = words[:1] != ["--without-sigpipe"]
    try:
        return Foreground(words if keeps_sigpipe else words[1:], keeps_sigpipe).exit_code()
    except OSError as error:
        _say(f"cannot start {words[-1]}: {error.strerror}")
        return 4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
