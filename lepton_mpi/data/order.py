"""Which rows, in which order, on which rank. Pure functions of numbers; the order never sees a rank count."""

import numpy as np

from lepton_mpi import counter_random

# Streams of the random numbers; each use has its own.
_VALIDATION, _TEST, _EPOCHS = 1, 2, 1_000


def epoch_order(row_count: int, seed: int, epoch: int) -> np.ndarray:
    """Rows 0 … row_count-1 in the order of one epoch, int64, shape (row_count,): a function of seed and epoch."""
    return counter_random.permutation(seed, _EPOCHS + epoch, row_count)


def hold_out(
    row_count: int, fraction: float, seed: int, purpose: str
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows at random into (kept, held out), each ascending int64; ``purpose`` is validation or test.

    ``round(fraction * row_count)`` rows are held out.
    """
    stream = {"validation": _VALIDATION, "test": _TEST}[purpose]
    shuffled = counter_random.permutation(seed, stream, row_count)
    held_out = round(fraction * row_count)
    return np.sort(shuffled[held_out:]), np.sort(shuffled[:held_out])


def share(start: int, stop: int, world_size: int, rank: int) -> tuple[int, int]:
    """This rank's part of [start, stop): contiguous, disjoint, all covered, lengths differing by at most 1.

    A rank gets nothing, (x, x), where there are fewer rows than ranks.

    >>> [share(0, 5, 3, rank) for rank in range(3)]
    [(0, 2), (2, 4), (4, 5)]
    """
    length, longer = divmod(max(0, stop - start), world_size)
    first = start + rank * length + min(rank, longer)
    return first, first + length + (rank < longer)


def step_bounds(row_count: int, batch_rows: int) -> list[tuple[int, int]]:
    """Ranges of positions in the epoch's order, one per step; the last step may be shorter.

    >>> step_bounds(10, 4)
    [(0, 4), (4, 8), (8, 10)]
    """
    return [
        (start, min(start + batch_rows, row_count)) for start in range(0, row_count, batch_rows)
    ]
