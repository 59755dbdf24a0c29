"""How long the batch system lets this job run on, asked in the job itself. Imports no NumPy.

    Slurm    SLURM_JOB_END_TIME, which later versions set; else squeue; else scontrol
    PBS      qstat -f: Walltime.Remaining (TORQUE); else the limit, less the time since the job's start; else PBS_WALLTIME (TORQUE), less
             the age of the oldest process of the user that this one descends from, which is the job's script
    LSF      bjobs -o time_left, in minutes

What PBS calls resources_used.walltime is not taken unless nothing else is there: it is minutes old.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from lepton_mpi import launcher
from lepton_mpi.processes import look_at, seconds_since

# For a command of a batch system whose server is busy.
_ASK_SECONDS = 30.0
_ANCESTORS_MAX = 20


class TimeLeft(NamedTuple):
    """Seconds, infinite without a limit; and who says so."""

    seconds: float
    source: str


# The output of a command; empty where it is not there or fails.
Ask = Callable[[Sequence[str]], str]


def ask(words: Sequence[str]) -> str:
    """What a command prints; nothing where it fails."""
    try:
        ended = subprocess.run(
            list(words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ASK_SECONDS,
            env=os.environ | {"LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout if ended.returncode == 0 else ""


def time_left(
    environment: Mapping[str, str] = os.environ,
    ask: Ask = ask,
    now: float | None = None,
) -> TimeLeft | None:
    """Of the batch job that this process belongs to; None outside of one, and where nothing says it."""
    now = time.time() if now is None else now
    for name, variable, find in (
        ("Slurm", "SLURM_JOB_ID", _slurm),
        ("PBS", "PBS_JOBID", _pbs),
        ("LSF", "LSB_JOBID", _lsf),
    ):
        if environment.get(variable):
            seconds = find(environment, ask, now)
            if seconds is not None:
                return TimeLeft(max(0.0, seconds), name)
    return None


def _slurm(environment: Mapping[str, str], ask: Ask, now: float) -> float | None:
    end = environment.get("SLURM_JOB_END_TIME", "")
    if end.isdigit() and int(end) > 0:
        return int(end) - now
    job = environment["SLURM_JOB_ID"]
    left = ask(["squeue", "--noheader", "--job", job, "--format", "%L"]).strip()
    if left == "UNLIMITED":
        return math.inf
    if (seconds := clock_seconds(left)) is not None:
        return seconds
    end = _first(r"\bEndTime=(\S+)", ask(["scontrol", "show", "job", job]))
    try:
        return datetime.fromisoformat(end).timestamp() - now
    except ValueError:
        return None


def _pbs(environment: Mapping[str, str], ask: Ask, now: float) -> float | None:
    said = ask(["qstat", "-f", environment["PBS_JOBID"]])
    remaining = _first(r"^\s*Walltime\.Remaining = (\d+)\s*$", said)
    if remaining:
        return float(remaining)
    limit = clock_seconds(_first(r"^\s*Resource_List\.walltime = (\S+)", said))
    if limit is not None:
        began = _first(r"^\s*(?:stime|start_time) = (.+?)\s*$", said)
        try:
            return limit - (now - datetime.strptime(began, "%a %b %d %H:%M:%S %Y").timestamp())
        except ValueError:
            used = clock_seconds(_first(r"^\s*resources_used\.walltime = (\S+)", said))
            return limit - (used or 0.0)
    if said:
        return math.inf
    seconds = environment.get("PBS_WALLTIME", "")
    return int(seconds) - script_age_seconds() if seconds.isdigit() else None


def _lsf(environment: Mapping[str, str], ask: Ask, now: float) -> float | None:
    job, index = environment["LSB_JOBID"], environment.get("LSB_JOBINDEX", "0")
    if index not in ("", "0"):
        job += f"[{index}]"
    said = ask(["bjobs", "-noheader", "-o", "time_left", job]).strip()
    if said == "-":
        return math.inf
    # Such as "0:12 L"; the letter says whether it is the limit or an estimate.
    found = re.match(r"(\d+):(\d+)", said)
    return 60.0 * (60 * int(found[1]) + int(found[2])) if found else None


def clock_seconds(text: str) -> float | None:
    """Seconds of ``D-HH:MM:SS``, ``HH:MM:SS`` or ``MM:SS``; None for anything else.

    >>> [clock_seconds(text) for text in ("1-02:00:00", "2:00:30", "05:00", "INVALID")]
    [93600.0, 7230.0, 300.0, None]
    """
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((24 * days + hours) * 60 + minutes) * 60 + seconds)


def process_age_seconds(process_id: int | str = "self") -> float:
    """Since a process has begun; 0 for one that is gone."""
    found = look_at(process_id)
    if found is None:
        return 0.0
    return seconds_since(found.began)


def program_age_seconds() -> float:
    """Since the job's program has begun, also for a rank that has joined later."""
    return seconds_since(launcher.program_began())


def script_age_seconds() -> float:
    """Of the oldest process of this user that this one descends from."""
    oldest, found = process_age_seconds(), look_at("self")
    for _ in range(_ANCESTORS_MAX):
        if found is None or found.parent <= 1 or not _is_ours(found.parent):
            break
        oldest = max(oldest, process_age_seconds(found.parent))
        found = look_at(found.parent)
    return oldest


def _is_ours(process_id: int) -> bool:
    """Whether a process is of this user."""
    try:
        return Path(f"/proc/{process_id}").stat().st_uid == os.getuid()
    except OSError:
        return False


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else ""
