"""Numbers in which a maximum goes wrong: zeros of both signs, infinities, NaN of several bit patterns, in every order of ranks."""

import itertools
import math

import numpy as np

# NaN as computations make it on x86, as NumPy has it, and one with other bits.
_NAN = {
    4: (0xFFC00000, 0x7FC00000, 0x7FC00123),
    8: (0xFFF8000000000000, 0x7FF8000000000000, 0x7FF8000000000123),
}


def _values(dtype) -> np.ndarray:
    size = np.dtype(dtype).itemsize
    nan = np.array(_NAN[size], f"u{size}").view(dtype)
    tiny = np.finfo(dtype).smallest_subnormal
    return np.concatenate([np.array([0.0, -0.0, tiny, -tiny, np.inf, -np.inf, 1.5], dtype), nan])


def parts(ranks: int, dtype) -> list[np.ndarray]:
    """Of each rank: every pair of values at every pair of neighbours, the other ranks with the first of the two."""
    pairs = list(itertools.product(_values(dtype), repeat=2))
    rows = [
        np.array([two[1] if rank == (place % ranks) else two[0] for place, two in enumerate(pairs)])
        for rank in range(ranks)
    ]
    shifted = [np.roll(row, 3) for row in rows]  # the second of a pair at other ranks and places
    return [np.concatenate(each).astype(dtype) for each in zip(rows, shifted, strict=True)]


def expected(rows: list[np.ndarray], operation: str) -> np.ndarray:
    """Written out: NaN of NumPy's pattern if there is one; else the greatest, or the least, where +0 is above -0."""
    choose = max if operation == "max" else min
    columns = zip(*(row.tolist() for row in rows), strict=True)
    chosen = [
        math.nan
        if any(map(math.isnan, column))
        else choose(column, key=lambda value: (value, math.copysign(1, value)))
        for column in columns
    ]
    return np.array(chosen, rows[0].dtype)
