"""A run of a sweep as a process of its own: how it starts, what a signal does to it, how it ended. Imports no NumPy.

The first signal (Ctrl-C, SIGTERM, SIGUSR1, SIGUSR2) goes to the run as SIGUSR1, by which it saves and ends; a second one ends it. The
run has a session of its own, so that Ctrl-C reaches it in that way only, and gets SIGTERM when this process dies.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from lepton_mpi.errors import LauncherError, Preempted
from lepton_mpi.starting.parents import end_with_parent
from lepton_mpi.sweeping.runs import Outcome, SweepRun
from lepton_mpi.wording import one_line

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# From the signal that asks a launcher to end its job to the one that ends it.
_KILL_SECONDS = 10.0
_ERROR_BYTES = 64 << 10


class Signals:
    """Signals that have come while a sweep runs, passed on to the run of the moment."""

    def __init__(self) -> None:
        self.count = 0
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """A block in which signals do nothing else."""
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def passed_to(self, process: subprocess.Popen[bytes] | None) -> None:
        """From now on; what has come just before, too."""
        self._process = process
        if process and self.count:
            process.send_signal(signal.SIGUSR1)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1 if self.count == 1 else signal.SIGTERM)


def carry_out(
    run: SweepRun,
    lock: int,
    launch: tuple[str, ...],
    environment: Mapping[str, str],
    score: str,
    signals: Signals,
) -> Outcome:
    """Make a run, or go on with it, to its end. Raises LauncherError where it cannot be started.

    The launcher holds the run's ``lock``, too: if this process is killed, the run is free when its ranks have ended.
    """
    before = run.outcome()
    began = time.monotonic()
    try:
        run.write_options()
        with run.log.open("ab") as log:
            place = log.tell()
            code = _to_its_end(
                _started(_words(run, launch, score), environment, log.fileno(), lock), signals
            )
    except OSError as error:
        raise LauncherError(f"{error.filename or run.folder}: {error.strerror}") from None
    seconds = time.monotonic() - began + (before.seconds if before else 0.0)
    error = "" if code in (0, Preempted.exit_code) else _error(run, place, code)
    outcome = Outcome(code, round(seconds, 3), error)
    run.write_outcome(outcome)
    return outcome


def _words(run: SweepRun, launch: tuple[str, ...], score: str) -> list[str]:
    return [
        *launch,
        *(sys.executable, "-m", "lepton_mpi.train", "--config", str(run.options)),
        *("--checkpoint", str(run.checkpoint), "--resume", str(run.checkpoint)),
        *("--keep-best", score, "--metrics", str(run.metrics), "--progress", "plain"),
    ]


def _started(
    words: list[str], environment: Mapping[str, str], log: int, lock: int
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            words,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock,),
            preexec_fn=end_with_parent(os.getpid()),
        )
    except OSError as error:
        raise LauncherError(f"cannot start {shlex.join(words[:3])}: {error.strerror}") from None


def _to_its_end(process: subprocess.Popen[bytes], signals: Signals) -> int:
    """The exit code, as a shell has it."""
    signals.passed_to(process)
    ends_at = 0.0
    while True:
        try:
            code = process.wait(0.1)
            break
        except subprocess.TimeoutExpired:
            if signals.count > 1:
                ends_at = ends_at or time.monotonic() + _KILL_SECONDS
                if time.monotonic() > ends_at:
                    os.killpg(process.pid, signal.SIGKILL)
    signals.passed_to(None)
    return 128 - code if code < 0 else code


def _error(run: SweepRun, place: int, code: int) -> str:
    """The line that says why, of what was printed from ``place`` on."""
    with run.log.open("rb") as log:
        log.seek(max(place, log.seek(0, os.SEEK_END) - _ERROR_BYTES))
        lines = log.read().decode(errors="replace").splitlines()
    said = [line for line in lines if line.startswith("lepton_mpi")]
    return one_line(said[-1])[:300] if said else f"exit code {code}, see {run.log}"
