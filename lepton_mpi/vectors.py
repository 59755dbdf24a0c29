"""Flat vectors with named, shaped views: what parameters, gradients and optimizer state are made of.

A bucket is a slice of such a vector, a checkpoint is the vectors and their names, an optimizer is a
kernel on a slice, and a collective knows slices only. Nothing here knows a layer.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from math import prod

import numpy as np


class Views(dict[str, np.ndarray]):
    """Named, shaped views into a flat vector: a dict of name to array, in which a name keeps its array."""

    def __setitem__(self, name: str, array: np.ndarray, /) -> None:
        """Kernels keep the addresses of the arrays; ``views[name] += 1`` ends here, with the same one."""
        if array is not self.get(name):
            raise TypeError(
                f"views[{name!r}] cannot be another array: fill it, views[{name!r}][:] = …"
            )

    def __reduce__(self) -> tuple[type, tuple[dict[str, np.ndarray]]]:
        """Copies are plain dicts."""
        return dict, (dict(self),)


@dataclass(frozen=True)
class Layout:
    """Where each named parameter lies in a flat vector: one after the other, in the order given.

    Attributes
    ----------
    shapes : mapping of name to shape
        A shape may be ``()`` (one element) or hold a 0 (none).
    """

    shapes: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        """Write shapes in one way: a user's may be lists, or hold NumPy's integers."""
        plain = {name: tuple(map(int, shape)) for name, shape in self.shapes.items()}
        object.__setattr__(self, "shapes", plain)

    @cached_property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Half-open range (start, stop) of elements of each parameter, in order."""
        stops = list(accumulate(prod(shape) for shape in self.shapes.values()))
        return tuple(zip([0, *stops[:-1]], stops, strict=True)) if stops else ()

    @property
    def size(self) -> int:
        """Elements of the flat vector."""
        return self.bounds[-1][1] if self.bounds else 0

    def views(self, vector: np.ndarray) -> Views:
        """Named, shaped views into ``vector``, shape (size,); they share its memory."""
        if vector.shape != (self.size,):
            raise ValueError(f"expected a vector of shape ({self.size},), got {vector.shape}")
        return Views(
            (name, vector[start:stop].reshape(shape))
            for (name, shape), (start, stop) in zip(self.shapes.items(), self.bounds, strict=True)
        )

    def buckets(self, elements_max: int) -> list[tuple[int, int]]:
        """Slices (start, stop) that cover the vector from its end to its start, of at most ``elements_max`` elements.

        Backward passes finish the last layer first, so the first bucket is the first that is complete.
        Only parameters that are longer are cut, into parts of nearly the same length.
        """
        buckets: list[tuple[int, int]] = []
        for start, stop in reversed(self._parts(elements_max)):
            if buckets and buckets[-1][1] - start <= elements_max:
                buckets[-1] = (start, buckets[-1][1])
            else:
                buckets.append((start, stop))
        return buckets

    def _parts(self, elements_max: int) -> list[tuple[int, int]]:
        """Parameters, or the parts of those that are too long."""
        parts = []
        for start, stop in self.bounds:
            count = -(-(stop - start) // elements_max)
            cuts = [start + (stop - start) * number // count for number in range(count)]
            parts += pairwise([*cuts, stop])
        return parts

    def digest(self, vector: np.ndarray) -> str:
        """BLAKE2b of names, shapes, dtype and bits of ``vector``: equal digests, equal weights."""
        blake = hashlib.blake2b(digest_size=16)
        little_endian = np.ascontiguousarray(vector, dtype=vector.dtype.newbyteorder("<"))
        blake.update(repr((list(self.shapes.items()), little_endian.dtype.str)).encode())
        blake.update(little_endian.data)
        return blake.hexdigest()


# A cache line, and the widest vector of a processor.
_ALIGNMENT_BYTES = 64


def aligned_zeros(size: int, dtype: np.dtype) -> np.ndarray:
    """Zeros, shape (size,), that begin at a multiple of 64 bytes, as memory shared by a host does.

    Where an array begins decides how other libraries' matrix products add up: with this, parameters of a rank alone give the bits
    of shared ones.
    """
    memory = np.zeros(size * dtype.itemsize + _ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT_BYTES
    return memory[start : start + size * dtype.itemsize].view(dtype)


def digest_of(*arrays: np.ndarray) -> str:
    """BLAKE2b of the bytes of arrays that are contiguous, in hexadecimal."""
    blake = hashlib.blake2b(digest_size=16)
    for array in arrays:
        blake.update(array.data)
    return blake.hexdigest()
