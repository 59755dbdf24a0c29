"""One call of a communicator, as its executors take it, and as it is told to other ranks: five whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from lepton_mpi.errors import ConfigurationError

VERBS = (
    *("barrier", "allreduce", "reduce", "broadcast", "allgather", "allgatherv", "reduce_scatter"),
    *("reduce_scatterv", "alltoall", "alltoallv", "gather", "scatter", "refused"),
)
NUMBER_OF = {verb: number for number, verb in enumerate(VERBS)}
OPERATIONS = ("sum", "max", "min", "product", "mean", "band", "bor", "bxor")
REDUCED_DTYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "bfloat16"),
)
KINDS = (None, "bfloat16")
# A bool is a byte of 0 or 1.
_OF_BOOL = {"sum": "bor", "max": "bor", "bor": "bor", "bxor": "bxor"}
_OF_BOOL |= dict.fromkeys(("product", "min", "band"), "band")
_NO_ROOT = -1


@dataclass(frozen=True)
class Combination:
    """How elements are combined.

    Attributes
    ----------
    code, operation_code : int
        Numbers of dtype and operation, for the fingerprint.
    stored : str
        Name of the dtype in ``row_fold_kernels.FOLDS``; ``wide`` that of partial results which are still to be combined.
    operation : str
        What is carried out.
    item_bytes : int
        Of an element as it is stored.
    """

    code: int
    operation_code: int
    stored: str
    wide: str
    operation: str
    item_bytes: int


@cache
def combination(dtype: np.dtype, op: str, kind: str | None) -> Combination:
    """What ``op`` means for arrays of ``dtype`` and ``kind``; ConfigurationError if nothing."""
    if kind not in KINDS:
        raise ConfigurationError(f"kind: expected None or bfloat16, got {kind!r}")
    if op not in OPERATIONS:
        raise ConfigurationError(f"op: expected one of {', '.join(OPERATIONS)}, got {op!r}")
    name = kind or dtype.name
    if kind and dtype != np.uint16:
        raise ConfigurationError(f"kind bfloat16: expected an array of uint16, got {dtype}")
    if name not in REDUCED_DTYPES or not dtype.isnative:
        raise ConfigurationError(
            f'expected dtype {", ".join(REDUCED_DTYPES[:-1])}, or uint16 with kind="bfloat16", got {dtype}'
        )
    is_float = "float" in name
    if is_float and op in ("band", "bor", "bxor"):
        raise ConfigurationError(f"op {op}: expected whole numbers or bool, got {name}")
    if not is_float and op == "mean":
        raise ConfigurationError(f"op mean: expected floats, got {name}; take sum and divide it")
    stored = "uint8" if name == "bool" else name
    return Combination(
        *(REDUCED_DTYPES.index(name), OPERATIONS.index(op), stored),
        "float32" if name in ("float16", "bfloat16") else stored,
        _OF_BOOL[op] if name == "bool" else op,
        dtype.itemsize,
    )


class Fingerprint(NamedTuple):
    """What must be the same on all ranks of a call; ``byte_count`` is 0 where blocks have lengths of their own.

    Of a refused call ``root`` is the rank that refused its arguments, and ``byte_count`` the length of its message.
    """

    verb: int
    dtype: int = 0
    operation: int = 0
    root: int = _NO_ROOT
    byte_count: int = 0

    def __str__(self) -> str:
        verb = VERBS[self.verb]
        words = []
        if verb in ("allreduce", "reduce", "reduce_scatter", "reduce_scatterv"):
            words = [OPERATIONS[self.operation], REDUCED_DTYPES[self.dtype]]
        if verb != "barrier" and not verb.endswith("v") and verb not in ("gather", "scatter"):
            words.append(f"{self.byte_count} bytes")
        if self.root != _NO_ROOT:
            words.append(f"root {self.root}")
        return f"{verb}({', '.join(words)})"


REFUSED = NUMBER_OF["refused"]
