"""One start of a training: the launcher and its ranks, a limit on its time, and what is left of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lepton_mpi import fault_points
from lepton_mpi.fault_points import Fault
from lepton_mpi.starting.mpirun import find_launcher

# In the environment of every process of a start, by which those that are left are found.
_MARK = "LEPTON_CHAOS"
# After the launcher has ended, its ranks may take so long to end, too.
_GRACE_SECONDS = 5.0
_LOOK_SECONDS = 0.05
_KILLED_SECONDS = 10.0


@dataclass(frozen=True)
class Ended:
    """How a start ended.

    Attributes
    ----------
    code : int
        Of the launcher; -N where signal N ended it.
    seconds, fault_seconds : float
        From the start, and from the first fault, to the end of the last process; ``fault_seconds`` is 0 without a fault.
    happened : list of dict
        The faults that came, as ``LEPTON_FAULT_LOG`` has them.
    left : int
        Processes that were there after a grace of 5 s, and had to be killed.
    is_hung : bool
        Whether the time limit ended it.
    output : Path
        What it printed.
    """

    code: int
    seconds: float
    fault_seconds: float
    happened: list[dict]
    left: int
    is_hung: bool
    output: Path


def start(
    words: Sequence[str], ranks: int, faults: Sequence[Fault], folder: Path, limit_seconds: float
) -> Ended:
    """Train with the options ``words`` on ``ranks`` ranks under ``faults``; ``folder`` gets the output. Raises LeptonError."""
    folder.mkdir(parents=True, exist_ok=True)
    output, log = folder / "output.txt", folder / "faults.jsonl"
    launcher = find_launcher(ranks)
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    variables = dict(launcher.variables) | {_MARK: mark, fault_points.LOG: str(log.resolve())}
    variables[fault_points.VARIABLE] = ", ".join(map(str, faults))
    command = [*launcher.words, sys.executable, "-m", "lepton_mpi.train", *words]
    began, hung = time.time(), False
    with output.open("w") as file:
        job = subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = job.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            code, hung = -signal.SIGKILL, True
        finally:
            left = _end(mark, 0.0 if hung else _GRACE_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            job.wait()
    ended = time.time()
    happened = _read(log)
    first = min((fact["time"] for fact in happened), default=ended)
    return Ended(code, ended - began, ended - first, happened, left, hung, output)


def _end(mark: str, grace_seconds: float) -> int:
    """Wait for the processes of a start, kill those that stay, and say how many these were."""
    until = time.monotonic() + grace_seconds
    while (living := _living(mark)) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
    for process in living:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    until = time.monotonic() + _KILLED_SECONDS
    while _living(mark) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
    return len(living)


def _living(mark: str) -> list[int]:
    """Numbers of the processes with the mark; one that has ended, and waits for its parent to look, has no environment."""
    wanted, found = f"{_MARK}={mark}".encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def _read(log: Path) -> list[dict]:
    """A rank may have been killed while it wrote: whole lines alone count."""
    try:
        lines = log.read_text("utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]
