"""What a schedule costs, counted from the schedule itself, and the least that it could cost. Pure.

Volumes are parts of the vector's length N: chunks are taken as equally long, which is exact where the
number of chunks divides N and off by less than one element per chunk elsewhere.

Time follows the usual linear model: a message of m bytes takes alpha + beta m seconds, adding m bytes takes
gamma m, a rank sends and receives at the same time, and the messages of one step overlap. A step lasts as
long as its busiest rank needs, and the next begins when it is over:

    T = sum over steps of ( alpha + beta max(sent, received) N + gamma added N ), each the maximum over ranks

In segments the steps overlap. Then only the first segment of each step makes its way alone, and all that
comes behind it is taken to keep the busiest rank's wire or adder busy without a gap, the best case:

    T = the sum above with one segment for each step
        + max over ranks of max(beta x rest of sent, beta x rest of received, gamma x rest of added)

Sources: Hockney's model as in Thakur, Rabenseifner and Gropp, IJHPCA 19 (2005); the bound on bytes from
Patarasuk and Yuan, JPDC 69 (2009).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from lepton_mpi.chunks import chunk_bounds
from lepton_mpi.collectives.schedules.schedule import Action, Algorithm, Collective, Step


@dataclass(frozen=True, slots=True)
class Cost:
    """Steps, and what the busiest rank sends, receives and adds in all of them, as parts of N."""

    steps: int
    sent: Fraction
    received: Fraction
    added: Fraction


def cost(algorithm: Algorithm, world_size: int) -> Cost:
    """Cost of one run; steps in which nobody sends do not count."""
    chunk_count = algorithm.chunk_count(world_size)
    ranks = [[_volume(step) for step in steps] for steps in _schedule(algorithm, world_size)]
    busy = sum(
        any(volume.sent or volume.received for volume in step) for step in zip(*ranks, strict=True)
    )
    sent, received, added = (
        max(sum(getattr(volume, part) for volume in volumes) for volumes in ranks)
        for part in ("sent", "received", "added")
    )
    return Cost(busy, *(Fraction(chunks, chunk_count) for chunks in (sent, received, added)))


def busiest_of_steps(algorithm: Algorithm, world_size: int) -> list[tuple[Fraction, ...]]:
    """For every step in which anybody sends: the longest message, and what the busiest rank moves and adds.

    Each as a part of N, and each the maximum over ranks; what is moved is the greater of sent and received.
    """
    chunk_count = algorithm.chunk_count(world_size)
    ranks = [[_volume(step) for step in steps] for steps in _schedule(algorithm, world_size)]
    busiest = [
        (
            max(volume.longest for volume in step),
            max(max(volume.sent, volume.received) for volume in step),
            max(volume.added for volume in step),
        )
        for step in zip(*ranks, strict=True)
    ]
    return [tuple(Fraction(c, chunk_count) for c in chunks) for chunks in busiest if chunks[0]]


def elements_sent_max(algorithm: Algorithm, world_size: int, count: int) -> int:
    """What the busiest rank sends of a vector of ``count`` elements, with chunks as they are cut in earnest."""
    bounds = chunk_bounds(count, algorithm.chunk_count(world_size))
    return max(
        sum(
            bounds[send.stop] - bounds[send.start]
            for step in algorithm.steps(world_size, rank)
            for send in step.sends
        )
        for rank in range(world_size)
    )


def lower_bound(collective: Collective, world_size: int) -> Cost:
    """The least possible number of steps, and the least that the busiest rank must send, receive and add.

    Each is a bound of its own; no algorithm needs to reach all of them at once.
    """
    steps = (world_size - 1).bit_length()  # who knows of whom can only double in a step
    once = Fraction(world_size - 1, world_size)
    moved = {
        Collective.ALLREDUCE: (2 * once, 2 * once, once),
        Collective.REDUCE_SCATTER: (once, once, once),
        Collective.ALLGATHER: (once, once, Fraction(0)),
        # Rank 0 must part with every element, and every other rank must get it.
        Collective.BROADCAST: (Fraction(world_size > 1), Fraction(world_size > 1), Fraction(0)),
        # Every rank but the root must part with its vector, of which the root needs one sum at least.
        Collective.REDUCE: (Fraction(world_size > 1), Fraction(world_size > 1), once),
        Collective.GATHER: (once / max(1, world_size - 1), once, Fraction(0)),
        Collective.SCATTER: (once, once / max(1, world_size - 1), Fraction(0)),
        Collective.ALLTOALL: (once / world_size, once / world_size, Fraction(0)),
        Collective.BARRIER: (Fraction(0), Fraction(0), Fraction(0)),
    }
    return Cost(steps, *moved[collective])


def predicted_seconds(
    algorithm: Algorithm,
    world_size: int,
    count_bytes: float,
    alpha: float,
    beta: float,
    gamma: float,
    segment_bytes: float = float("inf"),
) -> float:
    """Time of one run by the model above.

    Parameters
    ----------
    count_bytes
        Length N of the vector.
    alpha, beta, gamma
        Seconds per step, per byte on the wire of one rank, per byte added.
    segment_bytes
        Longest message; infinity for whole transfers.
    """
    chunk_bytes = count_bytes / algorithm.chunk_count(world_size)
    wire, adder = beta * chunk_bytes, gamma * chunk_bytes
    ranks = [[_volume(step) for step in steps] for steps in _schedule(algorithm, world_size)]
    behind = [[0.0, 0.0, 0.0] for _ in ranks]
    seconds = 0.0
    for step in zip(*ranks, strict=True):
        longest = max(volume.longest for volume in step)
        if longest == 0:
            continue
        first = min(1.0, segment_bytes / (longest * chunk_bytes)) if chunk_bytes else 1.0
        seconds += alpha + first * wire * max(max(volume.sent, volume.received) for volume in step)
        seconds += first * adder * max(volume.added for volume in step)
        for rest, volume in zip(behind, step, strict=True):
            rest[0] += (1 - first) * wire * volume.sent
            rest[1] += (1 - first) * wire * volume.received
            rest[2] += (1 - first) * adder * volume.added
    return seconds + max(map(max, behind))


@dataclass(frozen=True, slots=True)
class _Volume:
    """What one rank does in one step, in chunks; ``longest`` is its longest transfer."""

    sent: int
    received: int
    added: int
    longest: int


def _schedule(algorithm: Algorithm, world_size: int) -> Iterator[list[Step]]:
    """The steps of every rank, or of one that stands for all."""
    for rank in range(1 if algorithm.symmetric else world_size):
        yield algorithm.steps(world_size, rank)


def _volume(step: Step) -> _Volume:
    sent = [send.stop - send.start for send in step.sends]
    received = [receive.stop - receive.start for receive in step.receives]
    added = sum(r.stop - r.start for r in step.receives if r.action is not Action.COPY)
    return _Volume(sum(sent), sum(received), added, max(sent + received, default=0))
