"""Runs a schedule on symbols instead of numbers: who sends what when, and what each rank holds afterwards.

The trace is the executor for people and for tests. It takes the steps of all ranks one after the other,
refuses a step that breaks a promise of ``schedule.py``, and compares the end with what the collective is for.

A value is a sum of contributions together with the order in which they were added. Addition of floats
commutes but does not associate, so a + b and b + a are the same value here, and (a + b) + c and
a + (b + c) are not: equal values mean equal bits.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from lepton_mpi.collectives.schedules.schedule import (
    SUMS,
    Action,
    Algorithm,
    Collective,
    Fold,
    Receive,
    Send,
    Step,
)
from lepton_mpi.collectives.summation_tree import additions


class ScheduleError(Exception):
    """A schedule breaks a promise; the message says which, in which step and on which rank."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Contributions of ``ranks``, ascending, added as ``parts`` say; a single one has no parts."""

    ranks: tuple[int, ...]
    parts: tuple["Sum", ...] = ()

    def __add__(self, other: "Sum") -> "Sum":
        # Longer sums first, so that equal values look equal and a chain needs no parentheses.
        parts = sorted((self, other), key=lambda part: (-len(part.ranks), part.ranks))
        return Sum(tuple(sorted(self.ranks + other.ranks)), tuple(parts))

    def text(self, letter: str) -> str:
        """As a formula, with ``letter`` for the chunk.

        >>> (Sum((2,)) + Sum((0,)) + (Sum((1,)) + Sum((3,)))).text("a")
        '(a0+a2)+(a1+a3)'
        """
        if not self.parts:
            return f"{letter}{self.ranks[0]}"
        left, right = (part.text(letter) for part in self.parts)
        if len(self.parts[1].ranks) > 1:
            # A sum of two equally long sums shows both in parentheses, a chain none.
            return f"({left})+({right})"
        return f"{left}+{right}"

    def short_text(self, letter: str) -> str:
        """Only the contributions.

        >>> (Sum((2,)) + Sum((0,)) + Sum((1,)) + Sum((5,))).short_text("a")
        'a0-2,5'
        """
        return letter + ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in _runs(self.ranks))


@dataclass
class TracedStep:
    """One step of all ranks and the state after it.

    Attributes
    ----------
    moves : list of (rank, Receive)
        Who receives what; a send is the other end of a receive.
    folds : list of (rank, Fold)
    values : list of list of Sum or None
        By rank and chunk; None where a rank has nothing.
    changed : set of (rank, chunk)
    held : dict (rank, chunk) -> dict leaf -> Sum
        What is kept for a later fold.
    heard_of : list of frozenset
        By rank: the ranks that had certainly begun when this step was over.
    """

    moves: list[tuple[int, Receive]]
    folds: list[tuple[int, Fold]]
    values: list[list[Sum | None]]
    changed: set[tuple[int, int]]
    held: dict[tuple[int, int], dict[int, Sum]]
    heard_of: list[frozenset[int]]


@dataclass
class Trace:
    """A schedule that has kept its promises; ``steps[0]`` is the state before the first step."""

    algorithm: Algorithm
    world_size: int
    chunk_count: int
    steps: list[TracedStep] = field(default_factory=list)


def trace(algorithm: Algorithm, world_size: int) -> Trace:
    """Run a schedule on symbols. Raises ScheduleError where it breaks a promise."""
    chunk_count = algorithm.chunk_count(world_size)
    schedule = [algorithm.steps(world_size, rank) for rank in range(world_size)]
    if len({len(steps) for steps in schedule}) > 1:
        raise ScheduleError(
            f"{algorithm.name}: ranks have {sorted({len(s) for s in schedule})} steps"
        )
    run = _Run(algorithm, world_size, chunk_count)
    result = Trace(algorithm, world_size, chunk_count, [run.snapshot([], [], set())])
    for number, steps in enumerate(zip(*schedule, strict=True)):
        try:
            check_step(steps, chunk_count)
            result.steps.append(run.step(steps))
        except ScheduleError as error:
            raise ScheduleError(
                f"{algorithm.name}, {world_size} ranks, step {number}: {error}"
            ) from None
    try:
        run.check_end()
    except ScheduleError as error:
        raise ScheduleError(f"{algorithm.name}, {world_size} ranks, at the end: {error}") from None
    return result


def check_step(steps: Sequence[Step], chunk_count: int) -> None:
    """The first two promises, for one step of all ranks. Raises ScheduleError."""
    sent, received = defaultdict(list), defaultdict(list)
    for rank, step in enumerate(steps):
        for move in (*step.sends, *step.receives):
            peer = move.dest if isinstance(move, Send) else move.source
            _require(peer in range(len(steps)) and peer != rank, f"rank {rank} has no peer {peer}")
            _require(
                0 <= move.start < move.stop <= chunk_count, f"rank {rank}: no chunks in {move}"
            )
        for send in step.sends:
            sent[rank, send.dest].append((send.start, send.stop))
        for receive in step.receives:
            received[receive.source, rank].append((receive.start, receive.stop))
        _check_use_of_chunks(rank, step)
    for source, dest in sent.keys() | received.keys():
        leaves, arrives = sent[source, dest], received[source, dest]
        _require(
            leaves == arrives,
            f"rank {source} sends {leaves} to rank {dest}, which expects {arrives}",
        )


def _check_use_of_chunks(rank: int, step: Step) -> None:
    """Promise 2 for one rank."""
    arrivals = Counter(chunk for r in step.receives for chunk in range(r.start, r.stop))
    sent_ranges = {(send.start, send.stop) for send in step.sends}
    sent = {chunk for start, stop in sent_ranges for chunk in range(start, stop)}
    for receive in step.receives:
        for chunk in range(receive.start, receive.stop):
            if receive.action is Action.COPY:
                alone = arrivals[chunk] == 1 and chunk not in sent
                _require(
                    alone, f"rank {rank} copies onto chunk {chunk}, which it also sends or receives"
                )
            elif chunk in sent and receive.action is Action.ADD:
                alone = arrivals[chunk] == 1 and {
                    r for r in sent_ranges if r[0] <= chunk < r[1]
                } == {(receive.start, receive.stop)}
                _require(
                    alone,
                    f"rank {rank} adds to chunk {chunk}, which it also sends or receives otherwise",
                )


def _require(kept: bool, broken: str) -> None:
    if not kept:
        raise ScheduleError(broken)


class _Run:
    """The state of all ranks between two steps."""

    def __init__(self, algorithm: Algorithm, world_size: int, chunk_count: int) -> None:
        self._collective, self._world_size, self._chunk_count = (
            algorithm.collective,
            world_size,
            chunk_count,
        )
        ranks, chunks = range(world_size), range(chunk_count)
        self._values = [
            [Sum((r,)) if self._has_at_start(r, c) else None for c in chunks] for r in ranks
        ]
        self._held: dict[tuple[int, int], dict[int, Sum]] = {}
        # What a message says of who has begun: what its sender knew when the chunk in it was complete.
        self._knows = [frozenset([rank]) for rank in ranks]
        self._knew = [[self._knows[rank]] * chunk_count for rank in ranks]

    def _has_at_start(self, rank: int, chunk: int) -> bool:
        return self._collective in (*SUMS, Collective.BARRIER) or rank == self._giver(chunk)

    def _owner(self, chunk: int) -> int:
        return chunk * self._world_size // self._chunk_count

    def _giver(self, chunk: int) -> int:
        """Who has a chunk at the start, where contributions are not added."""
        rooted = self._collective in (Collective.BROADCAST, Collective.SCATTER)
        return 0 if rooted else self._owner(chunk)

    def _holders(self, chunk: int) -> Sequence[int]:
        """Who must have a chunk at the end."""
        match self._collective:
            case Collective.REDUCE_SCATTER | Collective.SCATTER:
                return [self._owner(chunk)]
            case Collective.REDUCE | Collective.GATHER:
                return [0]
            case Collective.ALLTOALL:
                return [chunk % self._world_size]
        return range(self._world_size)

    def snapshot(self, moves: list, folds: list, changed: set) -> TracedStep:
        values = [list(chunks) for chunks in self._values]
        held = {place: dict(kept) for place, kept in self._held.items()}
        return TracedStep(moves, folds, values, changed, held, list(self._knows))

    def step(self, steps: Sequence[Step]) -> TracedStep:
        before, knew_before = (
            [list(chunks) for chunks in self._values],
            [list(row) for row in self._knew],
        )
        moves = [(rank, receive) for rank, step in enumerate(steps) for receive in step.receives]
        folds = [(rank, fold) for rank, step in enumerate(steps) for fold in step.folds]
        changed = set()
        for rank, receive in moves:
            for chunk in range(receive.start, receive.stop):
                arrived = before[receive.source][chunk]
                _require(
                    arrived is not None,
                    f"rank {receive.source} sends chunk {chunk}, which it does not have",
                )
                self._take(rank, chunk, arrived, receive)
                changed.add((rank, chunk))
                self._knows[rank] |= knew_before[receive.source][chunk]
        for rank, fold in folds:
            for chunk in range(fold.start, fold.stop):
                self._fold(rank, chunk, fold)
        for rank, chunk in changed:
            self._knew[rank][chunk] = self._knows[rank]
        return self.snapshot(moves, folds, changed)

    def _take(self, rank: int, chunk: int, arrived: Sum, receive: Receive) -> None:
        if receive.action is Action.HOLD:
            kept = self._held.setdefault((rank, chunk), {})
            _require(
                receive.leaf not in kept,
                f"rank {rank} holds leaf {receive.leaf} of chunk {chunk} twice",
            )
            kept[receive.leaf] = arrived
            return
        own = self._values[rank][chunk]
        _require(
            (rank, chunk) not in self._held,
            f"rank {rank} receives chunk {chunk} before it is folded",
        )
        if receive.action is Action.ADD:
            _require(own is not None, f"rank {rank} adds to chunk {chunk}, which it does not have")
            arrived = own + arrived
        self._values[rank][chunk] = arrived

    def _fold(self, rank: int, chunk: int, fold: Fold) -> None:
        nodes = self._held.pop((rank, chunk), {})
        _require(
            fold.own not in nodes, f"rank {rank} holds leaf {fold.own} of chunk {chunk}, its own"
        )
        nodes[fold.own] = self._values[rank][chunk]
        found, expected = sorted(nodes), sorted(fold.leaves)
        _require(
            found == expected,
            f"rank {rank} folds leaves {found} of chunk {chunk}, expected {expected}",
        )
        for left, right in additions(fold.leaves):
            nodes[left] += nodes.pop(right)
        self._values[rank][chunk] = nodes[fold.leaves[0]]

    def check_end(self) -> None:
        """The last promise."""
        _require(not self._held, f"{sorted(self._held)} (rank, chunk) were held and never folded")
        everybody = range(self._world_size)
        if self._collective is Collective.BARRIER:
            for rank, known in enumerate(self._knows):
                _require(
                    len(known) == len(everybody),
                    f"rank {rank} may end before {set(everybody) - known} began",
                )
            return
        for chunk in range(self._chunk_count):
            self._check_chunk(chunk)

    def _check_chunk(self, chunk: int) -> None:
        everybody, holders = tuple(range(self._world_size)), self._holders(chunk)
        contributions = everybody if self._collective in SUMS else (self._giver(chunk),)
        for rank in holders:
            value = self._values[rank][chunk]
            found = value.ranks if value is not None else ()
            _require(
                found == contributions, f"rank {rank} holds contributions {found} of chunk {chunk}"
            )
            _require(
                value == self._values[holders[0]][chunk],
                f"ranks {holders[0]} and {rank} added chunk {chunk} otherwise",
            )


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as runs (first, last)."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs
