"""What the ranks of a host tell each other as they meet in a plan, and what is said where it differs.

A rank that has skipped a call, or made one too many, meets the others in the next one: of the same plan in another step, or of another plan,
where each waits for the rest. The first is found before anything is reduced (``meeting_kernels.arrive``); both are looked for about once a second by
the watchdog's thread, which ends the job with ``Meetings.difference``.
"""

from __future__ import annotations

import threading
from collections import Counter
from hashlib import blake2b
from weakref import WeakSet

import numpy as np

from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.within_host import meeting_kernels as kernels

_NAME = "meetings of a host"


def workers_of(group: Group) -> int:
    """Cores of the host that can be at work for its ranks at once."""
    return min(group.local_size, group.cores)


def meet_by(group: Group, control: np.ndarray, plan: np.ndarray, text: str) -> Meeting:
    """Have the ranks of the host tell each other what they call by a plan, ``text`` for people. Collective over the group."""
    start = _line(group, group.local_rank)
    plan[kernels.TOLD], plan[kernels.TOLD_AT] = _fingerprint(text, plan), start
    control[start + kernels.TOLD_PLAN] = plan[kernels.TOLD]
    words = control[start + kernels.TOLD_TEXT : start + kernels.LINE_WORDS]
    room = words.nbytes
    content = text.encode(errors="replace")[:room].ljust(room, b"\0")
    words[:] = np.frombuffer(content, np.int64)
    return Meeting(group, control)


def _fingerprint(text: str, plan: np.ndarray) -> int:
    """48 bits of what a plan does: ``text``, which has the elements, and its folds."""
    folds = plan[kernels.PLAN_HEADER : plan[kernels.WORK]].tolist()
    return int.from_bytes(blake2b(repr((text, folds)).encode(), digest_size=6).digest(), "little")


def _line(group: Group, local_rank: int) -> int:
    return kernels.TICKETS + kernels.LINE_WORDS * (workers_of(group) + local_rank)


class Meeting:
    """Where the ranks of a host meet by one plan; watched by ``group`` as long as this object lives.

    Parameters
    ----------
    group : Group
    control : int64
        Its control block.
    """

    def __init__(self, group: Group, control: np.ndarray) -> None:
        self._control = control
        self._lines = [_line(group, local_rank) for local_rank in range(group.local_size)]
        self._number = _meetings_of(group).add(self)

    @property
    def differs(self) -> bool:
        """Whether the ranks have met with different calls; then all of them stay there."""
        return bool(self._control[kernels.DIFFERS])

    def call_numbers(self) -> list[int]:
        """Of the last call of each rank."""
        return [int(self._control[line + kernels.TOLD_CALL]) for line in self._lines]

    def call_of(self, local_rank: int) -> str:
        """The last call of a rank, for people."""
        line = self._lines[local_rank]
        words = self._control[line : line + kernels.LINE_WORDS]
        text = words[kernels.TOLD_TEXT :].tobytes().rstrip(b"\0").decode(errors="replace")
        step = int(words[kernels.TOLD_STEP])
        return f"{text}{f' in step {step}' if step else ''}, call {int(words[kernels.TOLD_CALL])}"

    def plan_of(self, local_rank: int) -> str:
        """By what plan a rank has made its last call, where its text does not tell: the plan's number in the group, and its fingerprint."""
        told = int(self._control[self._lines[local_rank] + kernels.TOLD_PLAN])
        return f"plan {self._number} ({told:012x})"


class Meetings:
    """All of a group, watched together: ranks that wait in different ones wait for each other.

    Parameters
    ----------
    ranks : list of int
        Numbers of the ranks of the host.
    """

    def __init__(self, ranks: list[int]) -> None:
        self._ranks = ranks
        self._all: WeakSet[Meeting] = WeakSet()
        self._count = 0
        self._lock = threading.Lock()
        self._waited_before: dict[int, tuple[int, int]] = {}

    def add(self, meeting: Meeting) -> int:
        """One more; its number, which is the same on all ranks: they are made in one order."""
        with self._lock:
            self._all.add(meeting)
            self._count += 1
            return self._count

    def difference(self) -> str:
        """How what the ranks call differs, for people; empty while it does not."""
        with self._lock:
            meetings = list(self._all)
        for meeting in meetings:
            if meeting.differs:
                return self._text([meeting] * len(self._ranks))
        where: dict[int, Meeting] = {}
        for meeting in meetings:
            numbers = meeting.call_numbers()
            where |= {rank: meeting for rank, n in enumerate(numbers) if n > min(numbers)}
        waited = {rank: (id(one), one.call_numbers()[rank]) for rank, one in where.items()}
        is_stuck = waited == self._waited_before and len(waited) == len(self._ranks)
        self._waited_before = waited
        if not is_stuck or len(set(where.values())) == 1:
            return ""
        return self._text([where[rank] for rank in range(len(self._ranks))])

    def _text(self, where: list[Meeting]) -> str:
        """The call that fewest make, and the one that most make; ``where`` each rank waits."""
        calls = [meeting.call_of(rank) for rank, meeting in enumerate(where)]
        if len(set(calls)) == 1:
            calls = [f"{calls[rank]}, {one.plan_of(rank)}" for rank, one in enumerate(where)]
        counts = Counter(calls)
        odd = min(range(len(calls)), key=lambda rank: counts[calls[rank]])
        usual = max(range(len(calls)), key=lambda rank: (rank != odd, counts[calls[rank]], -rank))
        return (
            f"the ranks sum different things, and nothing was summed: rank {self._ranks[odd]} calls {calls[odd]}, "
            f"rank {self._ranks[usual]} {calls[usual]}; all ranks must make the same calls in the same steps"
        )


def _meetings_of(group: Group) -> Meetings:
    found: Meetings | None = group.remembered.get(_NAME)
    if found is None:
        found = group.remembered[_NAME] = Meetings(group.ranks_of_hosts[group.host_index])
        group.watch(found.difference)
    return found
