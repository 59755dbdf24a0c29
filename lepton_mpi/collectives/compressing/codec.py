"""``Codec``: how a vector becomes fewer bytes. One file each.

Error feedback (Seide et al., "1-bit stochastic gradient descent", Interspeech 2014; Karimireddy et al., "Error feedback
fixes SignSGD", ICML 2019): with the residual r of the steps before, a host sends ``c = encode(x + r)`` and keeps
``r = x + r - decode(c)``. So every part of every vector is sent in the end, and nothing is lost by compression but time.

A codec holds scratch memory, so it belongs to one thread.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.kernels.compiling import Kernel


class Codec(Protocol):
    """Made by ``make(option, dtype)``: the text behind ``NAME:``, empty for none, and float32 or float64.

    Attributes
    ----------
    name : str
        As ``--compress`` has it, with its option.
    sums_payloads : bool
        Whether payloads of one key, as vectors of ``dtype``, may be added: the sum is the payload of the sum.
    is_sparse : bool
        Whether a payload says nothing of most elements. Hosts then send theirs to all others; else each host decodes all
        payloads of a part of the vector, adds, and encodes the sum for all others.
    kernels : sequence of Kernel
        To be compiled by all ranks side by side.
    """

    name: str
    dtype: np.dtype
    sums_payloads: bool
    is_sparse: bool
    kernels: Sequence[Kernel]

    def sent_bytes(self, count: int) -> int:
        """Bytes of the payload of ``count`` elements; 0 for none."""

    def encode(
        self, x: np.ndarray, residual: np.ndarray, payload: np.ndarray, key: np.uint64
    ) -> None:
        """Make ``payload`` of ``x + residual``, and leave in ``residual`` what it does not hold.

        Parameters
        ----------
        x, residual : ``dtype``, shape (count,), count at least 1
            ``x`` stays.
        payload : uint8, shape (sent_bytes(count),), its address a multiple of 8
        key : uint64
            What random numbers follow from.

        A NaN or an infinity in ``x`` ends as NaN or infinity in ``decode``, there or in more elements.
        """

    def decode(self, payload: np.ndarray, out: np.ndarray, key: np.uint64, adds: bool) -> None:
        """Fill ``out``, shape (count,), or add to it, what ``payload`` holds; ``key`` is that of ``encode``."""


def none(option: str, dtype: np.dtype) -> None:
    """``--compress none``: vectors are sent as they are."""
    no_option("none", option)


def whole_option(name: str, option: str, expected: str, most: int) -> int:
    """A whole number from 1 to ``most`` behind the name of a codec. Raises ConfigurationError."""
    if not (option.isascii() and option.isdigit() and 1 <= int(option) <= most):
        raise _wrong(name, option, expected)
    return int(option)


def share_option(name: str, option: str, expected: str) -> float:
    """A share above 0, at most 1. Raises ConfigurationError."""
    try:
        share = float(option)
    except ValueError:
        raise _wrong(name, option, expected) from None
    if not 0 < share <= 1:
        raise _wrong(name, option, expected)
    return share


def no_option(name: str, option: str) -> None:
    """Raises ConfigurationError if there is an option behind the name of a codec that has none."""
    if option:
        raise ConfigurationError(f"--compress: expected {name} alone, got {name}:{option}")


def check_dtype(name: str, dtype: np.dtype) -> np.dtype:
    """``dtype``, if it is one of a codec. Raises ConfigurationError."""
    if np.dtype(dtype).name not in ("float32", "float64"):
        raise ConfigurationError(
            f"--compress {name}: expected float32 or float64, got {np.dtype(dtype)}"
        )
    return np.dtype(dtype)


def _wrong(name: str, option: str, expected: str) -> ConfigurationError:
    got = f"{name}:{option}" if option else name
    return ConfigurationError(f"--compress: expected {expected}, got {got}")


def chosen_count(share: float, count: int) -> int:
    """Elements that are this share of ``count``, rounded up; none of none.

    >>> [chosen_count(0.01, count) for count in (0, 1, 100, 101)]
    [0, 1, 1, 2]
    """
    return min(count, int(np.ceil(np.round(share * count, 6))))
