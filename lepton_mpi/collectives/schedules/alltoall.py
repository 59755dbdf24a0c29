"""All-to-all: rank s has a block for each rank d, which is chunk ``s p + d`` of a vector of all p p blocks.

    pairwise, step s    rank r sends its block for rank r + s straight there
    Bruck, step k       a block that has delta = d - s (mod p) ranks to go moves by 2^k if bit k of delta is set

    Bruck, p = 4        step 0: blocks of delta 1 and 3 move by 1      step 1: those of delta 2 and 3 move by 2

Cost per rank, of N bytes that a rank sends in all (which is 1/p of that vector): pairwise p - 1 steps and (p-1)/p N bytes, the
lower bound of bytes; Bruck ceil(log2 p) steps, the lower bound of steps, and up to ceil(log2 p)/2 N bytes. For short blocks.
Source: Bruck et al., "Efficient algorithms for all-to-all communications", IEEE TPDS 8 (1997).
"""

from lepton_mpi.collectives.schedules.schedule import (
    Action,
    Algorithm,
    Collective,
    Receive,
    Send,
    Step,
)


def pairwise_steps(world_size: int, rank: int) -> list[Step]:
    """See the module."""
    steps = []
    for shift in range(1, world_size):
        dest, source = (rank + shift) % world_size, (rank - shift) % world_size
        given, taken = rank * world_size + dest, source * world_size + rank
        steps.append(
            Step(
                (Send(dest, given, given + 1),),
                (Receive(source, taken, taken + 1, Action.COPY),),
            )
        )
    return steps


def bruck_steps(world_size: int, rank: int) -> list[Step]:
    """See the module."""
    steps = []
    for level in range((world_size - 1).bit_length()):
        distance = 1 << level
        dest, source = (rank + distance) % world_size, (rank - distance) % world_size
        steps.append(
            Step(
                tuple(Send(dest, c, c + 1) for c in _blocks_that_move(world_size, rank, distance)),
                tuple(
                    Receive(source, c, c + 1, Action.COPY)
                    for c in _blocks_that_move(world_size, source, distance)
                ),
            )
        )
    return steps


def _blocks_that_move(world_size: int, rank: int, distance: int) -> list[int]:
    """Chunks that are at ``rank`` when all shorter distances are done, and have this one to go."""
    chunks = []
    for delta in range(1, world_size):
        if delta & distance:
            source = (rank - delta % distance) % world_size
            chunks.append(source * world_size + (source + delta) % world_size)
    return chunks


def _all_blocks(world_size: int) -> int:
    return world_size * world_size


PAIRWISE_ALLTOALL = Algorithm(
    "pairwise", _all_blocks, pairwise_steps, Collective.ALLTOALL, symmetric=True
)
BRUCK = Algorithm("bruck", _all_blocks, bruck_steps, Collective.ALLTOALL, symmetric=True)
