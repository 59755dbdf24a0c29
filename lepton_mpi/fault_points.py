"""Fault points: named places of a training at which the variable LEPTON_FAULT makes ranks fail, to see what happens then.

    LEPTON_FAULT="checkpoint.before_rename@step=7:rank=1:kill"
    LEPTON_FAULT="step@step=40:rank=2:stop, checkpoint.before_write:sleep=0.5"

A fault is POINT[@step=N][:rank=R]:ACTION, and several stand with commas between them. Without a step it happens each time the
point is reached, without a rank on every rank that reaches it. Points of a checkpoint are reached by the rank that writes it.

    start                        options are read, data is not
    input                        before the rows of a step's first micro-batch are read
    exchange                     a rank's gradients of a step are computed, and not yet summed
    step                         after a step
    epoch                        after an epoch's last step, before its evaluation and its checkpoint
    checkpoint.before_write      of the checkpoint of a step: nothing is written
    checkpoint.before_rename     all of it is written under a temporary name
    checkpoint.after_rename      it is in its place
    end                          after the last epoch, before the test rows

    kill, stop, term             SIGKILL, SIGSTOP, SIGTERM to the rank itself
    segv                         SIGSEGV, as of a fault in a library
    kill_launcher                SIGKILL to the process that started the rank: mpirun, on one host
    exit                         exit code 1 without a word to MPI
    raise                        RuntimeError
    full, error                  OSError of a full disk (ENOSPC), of a broken one (EIO)
    sleep=SECONDS, spin=SECONDS  wait, or work without letting other threads run
    cut                          shut down all network connections of the rank, as when its host has lost the network

LEPTON_FAULT_LOG names a file to which each rank appends a line of JSON for each of its faults, before the action: time (seconds since
1970), rank, pid, step, fault. Without LEPTON_FAULT a point costs a comparison, and those of steps are not there at all.
"""

import errno
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lepton_mpi import launcher
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.wording import did_you_mean

VARIABLE, LOG = "LEPTON_FAULT", "LEPTON_FAULT_LOG"
OF_STEPS = ("input", "exchange", "step", "epoch")
OF_CHECKPOINTS = (
    "checkpoint.before_write",
    "checkpoint.before_rename",
    "checkpoint.after_rename",
)
POINTS = ("start", *OF_STEPS, *OF_CHECKPOINTS, "end")
_GRAMMAR = "POINT[@step=N][:rank=R]:ACTION"
_TIMED = ("sleep", "spin")


@dataclass(frozen=True)
class Fault:
    """What happens where; None for any step or rank. ``seconds`` are those of actions that last."""

    point: str
    action: str
    step: int | None = None
    rank: int | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        at = "" if self.step is None else f"@step={self.step}"
        who = "" if self.rank is None else f":rank={self.rank}"
        how = f"={self.seconds:g}" if self.action in _TIMED else ""
        return f"{self.point}{at}{who}:{self.action}{how}"


def read(text: str) -> tuple[Fault, ...]:
    """The faults of LEPTON_FAULT. Raises ConfigurationError.

    >>> [str(fault) for fault in read("step@step=4:rank=1:kill, checkpoint.before_write:sleep=0.5")]
    ['step@step=4:rank=1:kill', 'checkpoint.before_write:sleep=0.5']
    """
    return tuple(_fault(part.strip()) for part in text.split(",") if part.strip())


def _fault(text: str) -> Fault:
    place, *words = text.split(":")
    point, _, at = place.partition("@")
    who = words[0] if len(words) == 2 else "rank="
    action, _, seconds = words[-1].partition("=") if words else ("", "", "")
    is_timed = action in _TIMED
    if (
        len(words) not in (1, 2)
        or not (at == "" or _number(at, "step=") is not None)
        or not (who == "rank=" or _number(who, "rank=") is not None)
        or is_timed != bool(seconds)
    ):
        raise _wrong(f"expected {_GRAMMAR}, as in step@step=7:rank=1:kill, got {text!r}")
    if point not in POINTS:
        hint = did_you_mean(point, POINTS)
        raise _wrong(f"expected a point of {', '.join(POINTS)}, got {point!r}{hint}")
    if action not in ACTIONS:
        hint = did_you_mean(action, list(ACTIONS))
        raise _wrong(f"expected an action of {', '.join(ACTIONS)}, got {action!r}{hint}")
    return Fault(
        point, action, _number(at, "step="), _number(who, "rank="), _seconds(seconds, text)
    )


def _number(text: str, name: str) -> int | None:
    digits = text.removeprefix(name)
    return int(digits) if text.startswith(name) and digits.isdecimal() else None


def _seconds(text: str, whole: str) -> float:
    with suppress(ValueError):
        found = float(text or 0)
        if 0 <= found < 1e6:
            return found
    raise _wrong(f"expected seconds, as in sleep=0.5, got {whole!r}")


def _wrong(reason: str) -> ConfigurationError:
    return ConfigurationError(f"{VARIABLE}: {reason}").on_all_ranks()


def wanted(environment: Mapping[str, str] = os.environ) -> tuple[Fault, ...]:
    """Those of the environment, for any rank. Raises ConfigurationError."""
    return read(environment.get(VARIABLE, ""))


@cache
def _own() -> tuple[Fault, ...]:
    rank = launcher.launched_rank()
    return tuple(fault for fault in wanted() if fault.rank in (None, rank))


def reached(point: str, step: int | None = None) -> None:
    """A point is reached, of a step or of none: do what is wanted there. Raises what the action raises."""
    for fault in _own():
        if fault.point == point and fault.step in (None, step):
            _note(fault, step)
            ACTIONS[fault.action](fault.seconds)


def _note(fault: Fault, step: int | None) -> None:
    if path := os.environ.get(LOG):
        facts = {"time": time.time(), "rank": launcher.launched_rank(), "pid": os.getpid()}
        line = json.dumps(facts | {"step": step, "fault": str(fault)}) + "\n"
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)


def _signals(number: signal.Signals) -> Callable[[float], None]:
    return lambda seconds: os.kill(os.getpid(), number)


def _kill_launcher(seconds: float) -> None:
    os.kill(os.getppid(), signal.SIGKILL)


def _exit(seconds: float) -> None:
    os._exit(1)


def _raise(seconds: float) -> None:
    raise RuntimeError(f"a fault that {VARIABLE} asked for")


def _fails(code: int) -> Callable[[float], None]:
    def fail(seconds: float) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def _spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1 << 20))  # a call into C, during which no other thread runs


def _cut(seconds: float) -> None:
    """Of every connection over IP, also those of MPI: both ends read the end of it, or an error."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError, ValueError):
            if not os.readlink(entry).startswith("socket:"):
                continue
            connection = socket.socket(fileno=os.dup(int(entry.name)))
            with connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6):
                    connection.shutdown(socket.SHUT_RDWR)


ACTIONS: Mapping[str, Callable[[float], None]] = {
    "kill": _signals(signal.SIGKILL),
    "stop": _signals(signal.SIGSTOP),
    "term": _signals(signal.SIGTERM),
    "segv": _signals(signal.SIGSEGV),
    "kill_launcher": _kill_launcher,
    "exit": _exit,
    "raise": _raise,
    "full": _fails(errno.ENOSPC),
    "error": _fails(errno.EIO),
    "sleep": time.sleep,
    "spin": _spin,
    "cut": _cut,
}
