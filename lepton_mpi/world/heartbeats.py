"""What the ranks of a host show each other in one file of shared memory, and what is reported from it when they hang.

    word 0           0 until a rank of the host reports why the job ends; then see ``report_word.py``
    bytes 8 to 63    what the host's steps are of, the strategy's name: UTF-8, zeros behind it
    from byte 64 on  a row per local rank, three float64: step, number of the phase (MEETING more: in a call in which all ranks meet),
                     CLOCK_MONOTONIC seconds at its begin

Needs the standard library alone: ``backstop.py`` starts it as a program of its own, which reports for a process whose
interpreter is stuck. Its argument is a ``Host`` and the local rank as JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import NamedTuple

if not __package__:  # started as a file, or imported by one
    sys.path.append(str(Path(__file__).resolve().parents[2]))
from lepton_mpi.errors import RankError
from lepton_mpi.processes import look_at
from lepton_mpi.report_word import code_of, has_reported, reported_with

PHASES = (
    "start",
    "input",
    "compute",
    "communication",
    "waiting",
    "evaluation",
    "checkpoint",
    "end",
    "over",
)
# How its thread shows in a stack.
_WATCHDOG = os.path.join("lepton_mpi", "world", "watchdog.py")

# In these a rank depends on its peers, so that its own stack would explain nothing.
WAITING = ("communication", "waiting")
MEETING = 0.5

# Compiling kernels, reading the first data and writing a checkpoint have nothing to do with the length of
# a step, which the user's limit is about.
PATIENCE_SECONDS = {"start": 600.0, "checkpoint": 600.0}

# Of a report: what is longer is in the files of LEPTON_REPORTS.
REPORT_LINES = 12
# Of them for the ranks of a host, one each.
_RANKS_SHOWN = 4
# Of the stack of a rank that has crashed.
_CRASH_LINES = 8

# For a launcher to end after the report of a rank whose interpreter is stuck.
_LAUNCHER_SECONDS = 10.0

_WORD, LABEL_AT, ROWS_AT, _ROW = struct.Struct("q"), 8, 64, struct.Struct("3d")


def file_bytes(local_size: int) -> int:
    """Length of the file."""
    return ROWS_AT + local_size * _ROW.size


class Heartbeat(NamedTuple):
    """One row, and what its steps are of."""

    step: float
    phase_number: float
    since: float
    label: str = ""

    @property
    def phase(self) -> str:
        """One of PHASES."""
        return PHASES[int(self.phase_number)]

    def __str__(self) -> str:
        return f"{self.place} for {monotonic() - self.since:.1f} s"

    @property
    def place(self) -> str:
        """Phase and step."""
        of = f" of {self.label}" if self.label else ""
        meets = ", waiting for the others" if self.waits and self.phase not in WAITING else ""
        return f"{self.phase} in step {int(self.step)}{of}{meets}"

    @property
    def waits(self) -> bool:
        """Whether the rank depends on its peers."""
        return self.phase in WAITING or self.phase_number % 1 == MEETING

    def limit_seconds(self, limit_seconds: float) -> float:
        """How long the rank may be in its phase: ``--timeout``, or longer."""
        return max(limit_seconds, PATIENCE_SECONDS.get(self.phase, 0.0))

    def is_overdue(self, limit_seconds: float) -> bool:
        """Whether the rank has been in its phase longer than it may."""
        age = monotonic() - self.since
        return self.phase != "over" and age > self.limit_seconds(limit_seconds)


@dataclass(frozen=True)
class Host:
    """The ranks of one host, as a report names them.

    Attributes
    ----------
    size : int
        Of the job.
    ranks, process_ids, stack_files : list of int, by local rank
        Numbers in the job, of the processes, and of their descriptors of the files that ``faulthandler`` writes stacks to.
    heartbeat_files : list of int, by local rank
        Descriptors of the file described above.
    limit_seconds : float
        ``--timeout``.
    """

    size: int
    ranks: list[int]
    process_ids: list[int]
    stack_files: list[int]
    heartbeat_files: list[int]
    limit_seconds: float

    def to_json(self, local_rank: int) -> str:
        """What ``main`` takes."""
        return json.dumps([asdict(self), local_rank])

    def hang_report(self, heartbeats: list[Heartbeat], local_rank: int, stack: str = "") -> str:
        """Lines that name the ranks that are the cause, and where they are.

        Parameters
        ----------
        heartbeats
            By local rank.
        local_rank : int
            The rank that noticed; it is named where no other is the cause.
        stack : str
            Where that rank is.
        """
        stopped = [rank for rank, process in enumerate(self.process_ids) if _is_stopped(process)]
        late = [
            rank
            for rank, beat in enumerate(heartbeats)
            if self._is_cause(beat) or (rank in stopped and beat.phase != "over")
        ]
        named = late or [local_rank]
        who = f"rank{'s' * (len(named) > 1)} {', '.join(str(self.ranks[rank]) for rank in named)}"
        first = heartbeats[named[0]]
        limit, why = first.limit_seconds(self.limit_seconds), "--timeout"
        if limit > self.limit_seconds:
            why = f"--timeout {self.limit_seconds:g}; {limit:g} for {first.phase}"
        first_line = f"lepton_mpi: {who} of {self.size} made no progress for {limit:g} s ({why}); the ranks of this host:"
        lines = [first_line, *self._lines_of_ranks(heartbeats, named, stopped)]
        for rank in dict.fromkeys((*named, local_rank)):
            text = stack if rank == local_rank else ""
            if text := text or self._last_stack(rank):
                room = REPORT_LINES - len(lines) - 1
                lines += [f"where rank {self.ranks[rank]} is:", *innermost(text, room)]
                break
        return "\n".join(lines)

    def death_report(
        self,
        local_ranks: list[int],
        heartbeats: list[Heartbeat],
        causes: str,
        stack: str,
        place: str = "",
    ) -> list[str]:
        """Lines that name a rank that has died, or those of which one has; ``stack`` is what ``faulthandler`` has written.

        ``place`` : more behind its process's number.
        """
        if len(local_ranks) > 1:
            names = ", ".join(str(self.ranks[rank]) for rank in sorted(local_ranks))
            return [
                f"lepton_mpi: one of ranks {names} of {self.size} died: all of them were gone at once{causes}",
                *self._lines_of_ranks(heartbeats, local_ranks, []),
            ]
        local_rank = local_ranks[0]
        who = f"rank {self.ranks[local_rank]} of {self.size} (process {self.process_ids[local_rank]}{place})"
        lines = [f"lepton_mpi: {who} died: {heartbeats[local_rank]}{causes}"]
        if stack:
            lines += ["where it was:", *innermost(stack, _CRASH_LINES)]
        return lines

    def _lines_of_ranks(
        self, heartbeats: list[Heartbeat], named: list[int], stopped: list[int]
    ) -> list[str]:
        """Where the ranks are, a line each; of many, those that are the cause, and the number of the others in each phase."""
        ranks = range(len(heartbeats))
        shown = sorted(sorted(ranks, key=lambda rank: rank not in named)[:_RANKS_SHOWN])
        lines = [
            f"  rank {self.ranks[rank]}: {heartbeats[rank]}{', stopped by a signal' * (rank in stopped)}"
            for rank in shown
        ]
        others = Counter(heartbeats[rank].place for rank in ranks if rank not in shown)
        if others:
            words = (f"{count} in {place}" for place, count in others.most_common(_RANKS_SHOWN))
            lines.append(f"  {others.total()} others: {', '.join(words)}")
        return lines

    def _is_cause(self, beat: Heartbeat) -> bool:
        return not beat.waits and beat.is_overdue(self.limit_seconds)

    def _last_stack(self, local_rank: int) -> str:
        """What ``faulthandler`` has written of a rank that holds the interpreter lock, a paragraph a thread; empty of others."""
        try:
            path = f"/proc/{self.process_ids[local_rank]}/fd/{self.stack_files[local_rank]}"
            threads = Path(path).read_text(errors="replace").split("\n\n")
        except OSError:
            return ""
        # The watchdog's thread waits for the lock, as every idle thread does. The last one is the main thread.
        return next((text for text in reversed(threads) if text and _WATCHDOG not in text), "")


def innermost(stack: str, lines_max: int) -> list[str]:
    """The innermost calls of a stack, as text of ``traceback`` or ``faulthandler``: two lines a call of the one, one of the other."""
    lines = [line for line in stack.splitlines() if not set(line) <= set("^~ ")]
    calls = [line for line in lines if line.startswith("  ")]
    if "most recent call first" in stack:
        return calls[:lines_max]
    return calls[-(lines_max // 2 * 2) :]


def _is_stopped(process_id: int) -> bool:
    """Whether a process was stopped, as by SIGSTOP: it may be in any phase, and holds up the others."""
    found = look_at(process_id)
    return found is not None and found.state in "Tt"


def heartbeats_of(content: bytes) -> list[Heartbeat]:
    """All rows of the file."""
    label = read_label(content[LABEL_AT:ROWS_AT])
    rows = _ROW.iter_unpack(content[ROWS_AT:])
    return [Heartbeat(step, phase, since, label) for step, phase, since in rows]


def label_bytes(label: str) -> bytes:
    """What is written of a label, cut to its room in the file."""
    room = ROWS_AT - LABEL_AT
    return label.encode(errors="replace")[:room].ljust(room, b"\0")


def read_label(content: bytes) -> str:
    """The label that these bytes are of; a character that was cut is left out."""
    return content.rstrip(b"\0").decode(errors="ignore")


def is_first_report(file: int) -> bool:
    """Whether no rank of the host has reported; then the word says from now on that one has died or hangs. Keeps the file's lock."""
    fcntl.flock(file, fcntl.LOCK_EX)
    word = _WORD.unpack(os.pread(file, _WORD.size, 0))[0]
    if has_reported(word):
        return False
    os.pwrite(file, _WORD.pack(reported_with(code_of(word) or RankError.exit_code)), 0)
    return True


def main(argument: str) -> None:
    """Report for a rank whose interpreter is stuck, if it is one, and no rank of the host has reported yet."""
    fields, local_rank = json.loads(argument)
    host = Host(**fields)
    path = f"/proc/{host.process_ids[local_rank]}/fd/{host.heartbeat_files[local_rank]}"
    file = os.open(path, os.O_RDWR)
    heartbeats = heartbeats_of(os.pread(file, file_bytes(len(host.ranks)), 0))
    if not heartbeats[local_rank].is_overdue(host.limit_seconds):
        return
    if is_first_report(file):
        print(host.hang_report(heartbeats, local_rank), file=sys.stderr, flush=True)
        _end_launcher_of(host.process_ids[local_rank])


def _end_launcher_of(process_id: int) -> None:
    """As the rank would do if it could (``failure.py``); it ends 5 s from now."""
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    import launchers

    launchers.end_launcher(launchers.launcher_of(process_id), _LAUNCHER_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
