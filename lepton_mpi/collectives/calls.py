"""One call of a communicator, as its executors take it, and as it is told to other ranks: five whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np

from lepton_mpi.errors import ConfigurationError, LeptonError, RankError

VERBS = (
    *("barrier", "allreduce", "reduce", "broadcast", "allgather", "allgatherv", "reduce_scatter"),
    *("reduce_scatterv", "alltoall", "alltoallv", "gather", "scatter", "refused"),
    "allreduce_mapped",
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


@dataclass(frozen=True, eq=False)
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

    @property
    def wide_bytes(self) -> int:
        """Of an element of a partial result."""
        return 4 if self.wide != self.stored else self.item_bytes


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
        if "reduce" in verb:
            words = [OPERATIONS[self.operation], REDUCED_DTYPES[self.dtype]]
        if verb != "barrier" and not verb.endswith("v") and verb not in ("gather", "scatter"):
            words.append(f"{self.byte_count} bytes")
        if verb in ("allgatherv", "reduce_scatterv") and self.byte_count:
            words.append(f"lengths with checksum {self.byte_count:08x}")
        if self.root != _NO_ROOT:
            words.append(f"root {self.root}")
        return f"{verb}({', '.join(words)})"


REFUSED = NUMBER_OF["refused"]
# Added to a verb as the ranks of a host compare it: all of them meet, and nothing is moved.
MEETING = 64


def difference_error(
    number: int, rank: int, told: Fingerprint, other: int, told_other: Fingerprint
) -> LeptonError:
    """Two ranks call different things; the same on all ranks."""
    return RankError(
        f"call {number} of the communicator differs between ranks: rank {rank} calls {told}, rank {other} calls {told_other}"
    ).on_all_ranks()


def length_error(
    number: int, told: Fingerprint, sender: int, sent: int, receiver: int, expected: int
) -> LeptonError:
    """Two ranks see the length of a block differently; the same on all ranks."""
    return RankError(
        f"call {number} of the communicator, {told}: rank {sender} has {sent} bytes for rank {receiver}, which expects "
        f"{expected}"
    ).on_all_ranks()


# Address and bytes.
Block = tuple[int, int]


class EvenBlocks(Sequence[Block]):
    """A block for each rank, of equal lengths, one behind the other."""

    def __init__(self, address: int, byte_count: int, ranks: int) -> None:
        self.address, self.byte_count, self.ranks = address, byte_count, ranks

    def __len__(self) -> int:
        return self.ranks

    def __getitem__(self, rank):
        """The block of one rank."""
        if not 0 <= rank < self.ranks:
            raise IndexError(rank)
        return self.address + rank * self.byte_count, self.byte_count


class Ways(Protocol):
    """How calls are carried out, on one host or on several. All collective; nothing is written if ranks were told different things."""

    def reduce(self, told: Fingerprint, array: Block, combination: Combination) -> None:
        """Combine the arrays of all ranks in place of each or, with a ``told.root``, of that of the root."""

    def reduce_blocks(
        self, told: Fingerprint, output: Block, inputs: Sequence[Block], combination: Combination
    ) -> None:
        """Combine what all ranks have for this one."""

    def reduce_mapped(
        self, told: Fingerprint, addresses: Sequence[int], combination: Combination
    ) -> None:
        """Combine the arrays of all ranks, which this one has at ``addresses``, in place of each. On one host."""

    def spread(
        self,
        told: Fingerprint,
        source: Block | None,
        targets: Sequence[Block | None],
        lengths: tuple[Sequence[int], Sequence[int]] | None = None,
        others_want_it: bool = True,
    ) -> None:
        """Every rank that has a block, ``source``, copies it to all that want it.

        targets : for each rank, where its block goes on this one; None where it is not wanted.
        lengths : bytes to and from each rank, where they are not told by ``told.byte_count``.
        others_want_it : whether any rank but this one wants its block.
        """

    def exchange(
        self, told: Fingerprint, outputs: Sequence[Block], inputs: Sequence[Block]
    ) -> None:
        """Block r of ``inputs`` goes to rank r, block r of ``outputs`` comes from there."""

    def meet(self, told: Fingerprint) -> None:
        """All ranks meet, and compare what they were told."""

    def refuse(self, error: LeptonError) -> None:
        """Meet the others in their call, with an error in place of arguments, which all ranks raise."""

    def close(self) -> None:
        """Give back what is not memory."""
