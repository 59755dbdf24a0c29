"""Schedules run on expressions instead of numbers, to see what is added to what.

An expression is a number: ``rank`` for a rank's contribution, a new one for each distinct sum of two.
Addition of floats is commutative but not associative, so ``a + b`` and ``b + a`` are the same expression
and ``(a + b) + c`` and ``a + (b + c)`` are not: equal expressions give equal bits.
"""

from collections import defaultdict

from lepton_mpi.collectives.schedules.schedule import Action, Algorithm, Step


class Expressions:
    """All sums that were made, each once."""

    def __init__(self, world_size: int) -> None:
        self._numbers: dict[tuple[int, int], int] = {}
        self.contributions = [(rank,) for rank in range(world_size)]

    def add(self, a: int, b: int) -> int:
        """The sum of two expressions."""
        pair = min(a, b), max(a, b)
        if pair not in self._numbers:
            self._numbers[pair] = len(self.contributions)
            self.contributions.append(tuple(sorted(self.contributions[a] + self.contributions[b])))
        return self._numbers[pair]


def check_allreduce(algorithm: Algorithm, world_size: int) -> None:
    """The three promises of ``schedule.py``. Raises AssertionError."""
    schedule = [algorithm.steps(world_size, rank) for rank in range(world_size)]
    assert len({len(steps) for steps in schedule}) == 1, "ranks have different numbers of steps"
    chunks = range(algorithm.chunk_count(world_size))
    expressions = Expressions(world_size)
    values = [[rank] * len(chunks) for rank in range(world_size)]
    for step in zip(*schedule, strict=True):
        check_step(step, len(chunks))
        values = run_step(step, values, expressions.add)
    for chunk in chunks:
        ends = {values[rank][chunk] for rank in range(world_size)}
        assert len(ends) == 1, f"chunk {chunk} was summed in different orders"
        found = expressions.contributions[ends.pop()]
        assert found == tuple(range(world_size)), (
            f"chunk {chunk} holds the contributions of ranks {found}"
        )


def check_step(step: tuple[Step, ...], chunk_count: int) -> None:
    """What one step of all ranks must keep to, whatever it is for. Raises AssertionError."""
    sent, received = defaultdict(list), defaultdict(list)
    for rank, mine in enumerate(step):
        for send in mine.sends:
            assert 0 <= send.start < send.stop <= chunk_count
            assert send.dest in range(len(step)) and send.dest != rank
            sent[rank, send.dest] += range(send.start, send.stop)
        arrived = [
            chunk for receive in mine.receives for chunk in range(receive.start, receive.stop)
        ]
        for receive in mine.receives:
            received[receive.source, rank] += range(receive.start, receive.stop)
        assert len(set(arrived)) == len(arrived), f"rank {rank} receives a chunk twice"
        copied = {
            c for r in mine.receives if r.action is Action.COPY for c in range(r.start, r.stop)
        }
        leaving = {chunk for send in mine.sends for chunk in range(send.start, send.stop)}
        assert not copied & leaving, f"rank {rank} sends and copies onto chunks {copied & leaving}"
    # Messages between two ranks arrive in the order sent, so the order of chunks counts as well.
    assert sent == received, "what is sent is not what is received"


def run_step(step: tuple[Step, ...], values: list, add) -> list:
    """Values of ``[rank][chunk]`` after a step in which all ranks send what they had before it."""
    after = [list(chunks) for chunks in values]
    for rank, mine in enumerate(step):
        for receive in mine.receives:
            for chunk in range(receive.start, receive.stop):
                arrived = values[receive.source][chunk]
                added = receive.action is Action.ADD
                after[rank][chunk] = add(values[rank][chunk], arrived) if added else arrived
    return after
