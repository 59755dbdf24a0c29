"""Ring allreduce: reduce-scatter, then allgather, each rank talking to its two neighbours only.

    reduce-scatter, p = 4       step 0         step 1         step 2
                             0 --c0--> 1    0 --c3--> 1    0 --c2--> 1     rank r sends chunk (r - step) mod p,
                             1 --c1--> 2    1 --c0--> 2    1 --c3--> 2     adds what it receives, and ends with
                             2 --c2--> 3    2 --c1--> 3    2 --c0--> 3     the whole sum of chunk (r + 1) mod p
                             3 --c3--> 0    3 --c2--> 0    3 --c1--> 0

    allgather: the finished chunks travel once around the same ring and are copied.

Cost per rank: 2(p-1) steps and 2(p-1)/p N bytes sent, the lower bound for any allreduce; latency grows
with p. Chunk c is summed in the order c, c+1, …, c+p-1 (mod p), so all ranks get the same bits, but the
bits depend on p. Source: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
workstations", JPDC 69 (2009).

The segmented (pipelined) ring is this same schedule: ``program.py`` cuts chunks into segments that go on
alone, and smaller segments overlap adding and sending better.

The bidirectional ring cuts every chunk in two and sends the halves around in opposite directions at the
same time. Steps and bytes per rank are those of the ring, twice as many messages of half the size: it
pays where a link carries as much in each direction at once and the neighbours hang on different links.
"""

from lepton_mpi.collectives.schedules.schedule import (
    Action,
    Algorithm,
    Collective,
    Receive,
    Send,
    Step,
    renumbered,
)


def reduce_scatter_steps(world_size: int, rank: int, ahead: int = 1) -> list[Step]:
    """Steps after which rank r holds the sum of chunk (r + ahead) mod p."""
    return [
        _ring_step(world_size, rank, rank + ahead - 1 - step, Action.ADD)
        for step in range(world_size - 1)
    ]


def allgather_steps(world_size: int, rank: int, ahead: int = 1) -> list[Step]:
    """Steps that start with chunk (r + ahead) mod p on rank r and end with all chunks on all ranks."""
    return [
        _ring_step(world_size, rank, rank + ahead - step, Action.COPY)
        for step in range(world_size - 1)
    ]


def allreduce_steps(world_size: int, rank: int) -> list[Step]:
    """Reduce-scatter, then allgather."""
    return reduce_scatter_steps(world_size, rank) + allgather_steps(world_size, rank)


def bidirectional_steps(world_size: int, rank: int) -> list[Step]:
    """Chunk 2c goes around as chunk c of the ring does, chunk 2c + 1 the same way in the mirrored ring."""

    def mirror(number: int) -> int:
        return -number % world_size

    steps = []
    rings = allreduce_steps(world_size, rank), allreduce_steps(world_size, mirror(rank))
    for step, opposite in zip(*rings, strict=True):
        one = renumbered(step, lambda r: r, lambda chunk, _: (2 * chunk, 2 * chunk + 1))
        other = renumbered(
            opposite, mirror, lambda chunk, _: (2 * mirror(chunk) + 1, 2 * mirror(chunk) + 2)
        )
        steps.append(Step(one.sends + other.sends, one.receives + other.receives))
    return steps


def _ring_step(world_size: int, rank: int, send_chunk: int, action: Action) -> Step:
    right, left = (rank + 1) % world_size, (rank - 1) % world_size
    sent, received = send_chunk % world_size, (send_chunk - 1) % world_size
    return Step((Send(right, sent, sent + 1),), (Receive(left, received, received + 1, action),))


def _one_per_rank(world_size: int) -> int:
    return world_size


RING = Algorithm("ring", chunk_count=_one_per_rank, steps=allreduce_steps, symmetric=True)
BIDIRECTIONAL_RING = Algorithm(
    "bidirectional_ring",
    chunk_count=lambda world_size: 2 * world_size,
    steps=bidirectional_steps,
    symmetric=True,
)
RING_REDUCE_SCATTER = Algorithm(
    "ring",
    chunk_count=_one_per_rank,
    steps=lambda world_size, rank: reduce_scatter_steps(world_size, rank, ahead=0),
    collective=Collective.REDUCE_SCATTER,
    symmetric=True,
)
RING_ALLGATHER = Algorithm(
    "ring",
    chunk_count=_one_per_rank,
    steps=lambda world_size, rank: allgather_steps(world_size, rank, ahead=0),
    collective=Collective.ALLGATHER,
    symmetric=True,
)
