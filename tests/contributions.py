"""What ranks put into a collective, and what must come out.

The value depends on rank **and** index: with ones, or with the same numbers on every rank, a sum of
wrong parts can look right.
"""

import numpy as np

SEGMENT_ELEMENTS = 8  # short, so that a few dozen elements make many segments


def numbered(rank: int, world_size: int, count: int, dtype: type) -> np.ndarray:
    """Element i is ``i * world_size + rank``: whole numbers, so that sums are exact in any order."""
    return (np.arange(count) * world_size + rank).astype(dtype)


def numbered_sum(world_size: int, count: int, dtype: type) -> np.ndarray:
    """The closed form of the sum of ``numbered`` over all ranks."""
    return (np.arange(count) * world_size**2 + world_size * (world_size - 1) // 2).astype(dtype)


def random(rank: int, count: int, dtype: type, seed: int = 0) -> np.ndarray:
    """Numbers of both signs over six orders of magnitude, others on every rank."""
    generator = np.random.default_rng([seed, rank])
    return (generator.standard_normal(count) * 10.0 ** generator.integers(-3, 4, count)).astype(
        dtype
    )


def rounding_bound(parts: list[np.ndarray]) -> np.ndarray:
    """Largest error of a sum of p floats in any order: ``(p-1) u / (1 - (p-1) u) * sum |x|``."""
    roundings = (len(parts) - 1) * np.finfo(parts[0].dtype).eps / 2
    return (
        roundings
        / (1 - roundings)
        * np.sum([np.abs(part.astype(np.float64)) for part in parts], axis=0)
    )


def lengths(world_size: int) -> list[int]:
    """Nothing, one, around one element a rank, a prime, around the edges of segments; each once."""
    one_segment_a_rank = SEGMENT_ELEMENTS * world_size
    edges = [one_segment_a_rank + shift for shift in (-1, 0, 1)]
    return sorted({0, 1, world_size - 1, world_size, world_size + 1, 97, *edges})
