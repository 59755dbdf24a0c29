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
"""

from lepton_mpi.collectives.schedule import Action, Algorithm, Receive, Send, Step


def reduce_scatter_steps(world_size: int, rank: int) -> list[Step]:
    """Steps after which rank r holds the sum of chunk (r + 1) mod p."""
    return [_ring_step(world_size, rank, rank - step, Action.ADD) for step in range(world_size - 1)]


def allgather_steps(world_size: int, rank: int) -> list[Step]:
    """Steps that start with chunk (r + 1) mod p on rank r and end with all chunks on all ranks."""
    return [_ring_step(world_size, rank, rank + 1 - step, Action.COPY) for step in range(world_size - 1)]


def allreduce_steps(world_size: int, rank: int) -> list[Step]:
    """Reduce-scatter, then allgather."""
    return reduce_scatter_steps(world_size, rank) + allgather_steps(world_size, rank)


def _ring_step(world_size: int, rank: int, send_chunk: int, action: Action) -> Step:
    right, left = (rank + 1) % world_size, (rank - 1) % world_size
    sent, received = send_chunk % world_size, (send_chunk - 1) % world_size
    return Step((Send(right, sent, sent + 1),), (Receive(left, received, received + 1, action),))


RING = Algorithm("ring", chunk_count=lambda world_size: world_size, steps=allreduce_steps)
