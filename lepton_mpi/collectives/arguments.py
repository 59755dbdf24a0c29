"""Arrays that a ``Communicator`` is given, as addresses and bytes. All raise ConfigurationError."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import addressof, c_char

import numpy as np

from lepton_mpi.collectives.calls import Block
from lepton_mpi.errors import ConfigurationError

_from_buffer = c_char.from_buffer


def block_of(array: np.ndarray) -> Block:
    """Where an array is; refuses what cannot be read as bytes."""
    if not isinstance(array, np.ndarray):
        raise ConfigurationError(f"expected a NumPy array, got {type(array).__name__}")
    if not array.flags.c_contiguous or array.dtype.hasobject:
        raise ConfigurationError(
            f"expected a contiguous array of numbers, got dtype {array.dtype}, shape {array.shape}, strides {array.strides}; "
            "pass np.ascontiguousarray(array)"
        )
    try:
        # A fifth of the time of ``__array_interface__``, which is for what is read-only, empty or of dtypes without a buffer.
        return addressof(_from_buffer(array)), array.nbytes
    except (TypeError, ValueError):
        return array.__array_interface__["data"][0], array.nbytes


def target_of(array: np.ndarray) -> Block:
    """The same of an array that is filled."""
    block = block_of(array)
    check_writable(array)
    return block


def check_writable(array: np.ndarray) -> None:
    if not array.flags.writeable:
        raise ConfigurationError(
            f"expected an array to be filled, got one of shape {array.shape} that is read-only; pass array.copy()"
        )


def dtype_of(arrays: Sequence[np.ndarray]) -> np.dtype:
    """That of all ``arrays``."""
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) != 1:
        raise ConfigurationError(f"inputs: expected one dtype, got {', '.join(map(str, dtypes))}")
    return dtypes.pop()
