"""``lepton_mpi.launch``: a function on N ranks, from a process that is none."""

import collections
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from lepton_mpi.errors import ConfigurationError, LauncherError, RankError
from lepton_mpi.own_folders import temporary_folder
from lepton_mpi.starting import task
from lepton_mpi.starting.mpirun import find_launcher, refuse_ranks

# Until all ranks have begun: imports of a busy machine and a slow file system.
_START_SECONDS = 300.0
# A launcher that works ends its job in 1 to 2 s after a rank has died.
_PATIENCE_SECONDS = 10.0
_TERM_SECONDS = 5.0
_LOOK_SECONDS = 0.05
_LINES_KEPT = 60


def launch(
    function: Callable[..., Any],
    ranks: int,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    timeout: float | None = None,
    quiet: bool = False,
) -> Any:
    """Call ``function(*args, **kwargs)`` on ``ranks`` ranks of this machine and return what rank 0 returned.

    Parameters
    ----------
    function : callable
        Of a module, or of the program or notebook itself, which needs cloudpickle. MPI has started when it is called.
    timeout : float, optional
        Seconds after which the ranks are ended; default: as long as the function takes.
    quiet : bool
        Whether what the ranks print is dropped; else it is printed here, line by line.

    Raises
    ------
    LeptonError
        The class and message of a rank's error that is one.
    RankError
        For any other error of a rank, with its traceback; for a rank that died, with what was printed last.
    ConfigurationError, LauncherError
        Arguments that cannot be pickled; no mpirun; a caller that is a rank itself.
    KeyboardInterrupt
        After Ctrl-C; the ranks have been ended.
    """
    if timeout is not None and not timeout > 0:
        raise ConfigurationError(f"timeout: expected seconds above 0, got {timeout}")
    refuse_ranks()
    launcher = find_launcher(ranks)
    with temporary_folder() as folder:
        task.write_task(folder, function, args, kwargs or {})
        words = [*launcher.words, sys.executable, "-m", "lepton_mpi.starting.rank", str(folder)]
        variables = dict(launcher.variables)
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        job = _Job(words, variables, folder, ranks, quiet)
        try:
            job.wait(timeout)
        finally:
            job.end()
        return _outcome(job, folder, ranks)


def _outcome(job: "_Job", folder: Path, ranks: int) -> Any:
    """The result, or the error raised. Raises LeptonError."""
    failed = task.first_error(folder)
    if failed is not None:
        raise task.exception_of(failed, ranks)
    result = task.read_result(folder)
    code = job.process.returncode
    if result is None or code:
        begun = len(task.pids(folder))
        what = f"{job.lost}; " if job.lost else ""
        how = f"{what}the job of {ranks} ranks ended with exit code {code}, {begun} ranks had begun"
        tail = job.tail()
        kind = RankError if begun else LauncherError
        raise kind(f"{how}{':' if tail else ''}\n{tail}".rstrip())
    return result[0]


class _Job:
    """The launcher's process and what it prints."""

    def __init__(
        self, words: list[str], variables: dict[str, str], folder: Path, ranks: int, quiet: bool
    ) -> None:
        self._folder, self._ranks, self.lost = folder, ranks, ""
        self._files: dict[int, int] = {}
        self._lines: collections.deque[str] = collections.deque(maxlen=_LINES_KEPT)
        try:
            self.process = subprocess.Popen(
                words,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise LauncherError(f"cannot start {words[0]}: {error.strerror}") from None
        assert self.process.stdout and self.process.stderr
        self._pumps = [
            threading.Thread(target=self._pump, args=(pipe, stream), daemon=True)
            for pipe, stream in (
                (self.process.stdout, None if quiet else sys.stdout),
                (self.process.stderr, None if quiet else sys.stderr),
            )
        ]
        for pump in self._pumps:
            pump.start()

    def wait(self, timeout_seconds: float | None) -> None:
        """Until the launcher has ended, or has to be. Raises RankError after ``timeout_seconds``."""
        began, over_since = time.monotonic(), None
        while True:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_LOOK_SECONDS)
                return
            now = time.monotonic()
            if timeout_seconds is not None and now - began > timeout_seconds:
                raise RankError(
                    f"the ranks have not ended in {timeout_seconds:g} s (timeout)\n{self.tail()}".rstrip()
                )
            if self._is_over(now - began):
                over_since = over_since or now
                if now - over_since > _PATIENCE_SECONDS:
                    return

    def _is_over(self, age_seconds: float) -> bool:
        """Whether the launcher should end by itself now: a rank has gone, or all of them."""
        self._open_new()
        if len(self._files) < self._ranks and age_seconds > _START_SECONDS:
            self.lost = (
                f"{self._ranks - len(self._files)} ranks have not begun in {_START_SECONDS:g} s"
            )
            return True
        if not self._files:
            return False
        gone, _, _ = select.select(list(self._files.values()), [], [], 0)
        lost = [rank for rank, file in self._files.items() if file in gone]
        died = [rank for rank in lost if not task.is_done(self._folder, rank)]
        if died and not self.lost:
            names = ", ".join(map(str, sorted(died)))
            who = f"one of ranks {names}" if len(died) > 1 else f"rank {names}"
            self.lost = f"{who} of {self._ranks} died"
        return bool(died) or len(lost) == self._ranks

    def _open_new(self) -> None:
        """Process descriptors of ranks that have begun since; one that has gone already counts as such."""
        if not hasattr(os, "pidfd_open") or len(self._files) == self._ranks:
            return
        for rank, process_id in task.pids(self._folder).items():
            if rank not in self._files:
                with suppress(OSError):
                    self._files[rank] = os.pidfd_open(process_id)

    def end(self) -> None:
        """End what still runs; nothing of it goes on. Also twice."""
        for number, seconds in (
            (signal.SIGTERM, _TERM_SECONDS),
            (signal.SIGTERM, _TERM_SECONDS),
            (signal.SIGKILL, _TERM_SECONDS),
        ):
            if self.process.poll() is not None:
                break
            self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        for file in self._files.values():
            with suppress(OSError):
                signal.pidfd_send_signal(
                    file, signal.SIGKILL
                )  # of a job that has ended: gone already
            os.close(file)
        self._files.clear()
        for pump in self._pumps:
            pump.join(2.0)

    def tail(self) -> str:
        """The last lines that ranks and launcher have printed to standard error."""
        return "\n".join(self._lines)

    def _pump(self, pipe: IO[str], stream: Any) -> None:
        is_error = pipe is self.process.stderr
        with suppress(OSError, ValueError):
            for line in pipe:
                if is_error and line.strip():
                    self._lines.append(line.rstrip("\n"))
                if stream is not None:
                    stream.write(line)
                    stream.flush()
