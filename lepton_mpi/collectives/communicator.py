"""Collectives of a group on any contiguous NumPy arrays, of another length at each call: the plan-free form of ``allreduce.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton_mpi.collectives.group import Group
from lepton_mpi.errors import ConfigurationError, LeptonError, RankError

OPERATIONS = ("sum", "max", "min", "product", "mean", "band", "bor", "bxor")
REDUCED_DTYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
KINDS = ("bfloat16",)
STAGING_BYTES = 32 << 20


class Communicator:
    """Collectives of ``group``. Making one is collective over the group, and so is every method but ``send`` and ``receive``.

    Arrays are NumPy arrays of any shape, C-contiguous and in native byte order. Lengths, counted in elements, may be 0. What is
    only moved may have any dtype without objects; what is combined one of ``REDUCED_DTYPES``, or bfloat16 as a uint16 array
    with ``kind="bfloat16"``. float16 and bfloat16 are combined in float32 and rounded once. Of bool, sum and max are "or",
    product and min are "and".

    Parameters
    ----------
    group : World or Group
    staging_bytes : int
        Upper bound of the memory that the ranks of a host share for this communicator.

    Attributes
    ----------
    rank, size : int
        This rank's number in the group, and how many there are.

    Raises
    ------
    ConfigurationError
        An argument that fits no call. It is raised on all ranks if they meet, else as an error of its rank alone.
    RankError
        On all ranks: ranks that called different verbs, or the same one with arguments that do not fit together.
    """

    def __init__(self, group: Group, *, staging_bytes: int = STAGING_BYTES) -> None:
        self.rank, self.size = group.rank, group.size
        self._group, self._number = group, 0
        self._comm = group.collective_comm.Dup()
        self._mail = group.collective_comm.Dup()

    # -- reductions ------------------------------------------------------------------------------

    def allreduce(self, array: np.ndarray, op: str = "sum", kind: str | None = None) -> None:
        """Replace every rank's ``array`` by the combination of all of them."""
        self._agree("allreduce", (array.size, array.dtype.name, op, kind))
        array[...] = self._combined(array, op, kind)

    def reduce(
        self, array: np.ndarray, root: int, op: str = "sum", kind: str | None = None
    ) -> None:
        """The same on ``root`` alone; the others' arrays stay as they are."""
        self._agree("reduce", (array.size, array.dtype.name, op, kind, root))
        combined = self._combined(array, op, kind)
        if self.rank == root:
            array[...] = combined

    def reduce_scatter(
        self, output: np.ndarray, input: np.ndarray, op: str = "sum", kind: str | None = None
    ) -> None:
        """``output`` of rank r is part r of the combination of all ``input``; ``len(input) == size * len(output)``."""
        self.reduce_scatterv(output, list(input.reshape(self.size, -1)), op, kind)

    def reduce_scatterv(
        self,
        output: np.ndarray,
        inputs: Sequence[np.ndarray],
        op: str = "sum",
        kind: str | None = None,
    ) -> None:
        """The same for parts of any lengths: ``inputs[r]`` goes to rank r, whose ``output`` has its length."""
        sizes = tuple(part.size for part in inputs)
        self._agree("reduce_scatter", (sizes, output.dtype.name, op, kind))
        whole = np.concatenate([part.reshape(-1) for part in inputs])
        combined = self._combined(whole, op, kind)
        start = sum(sizes[: self.rank])
        output.reshape(-1)[:] = combined[start : start + output.size]

    # -- moves -----------------------------------------------------------------------------------

    def broadcast(self, array: np.ndarray, root: int) -> None:
        """Fill every rank's ``array`` with that of ``root``."""
        self._agree("broadcast", (array.size, array.dtype.name, root))
        self._comm.Bcast(_bytes(array), root)

    def allgather(self, output: np.ndarray, input: np.ndarray) -> None:
        """Part r of every rank's ``output`` is the ``input`` of rank r; ``len(output) == size * len(input)``."""
        self.allgatherv(list(output.reshape(self.size, -1)), input)

    def allgatherv(self, outputs: Sequence[np.ndarray], input: np.ndarray) -> None:
        """The same for parts of any lengths: ``outputs[r]`` has the length of rank r's ``input``."""
        self._agree("allgather", (tuple(part.size for part in outputs), input.dtype.name))
        self._exchange([input] * self.size, outputs)

    def alltoall(self, output: np.ndarray, input: np.ndarray) -> None:
        """Part r of ``output`` is the part of rank r's ``input`` that has this rank's number."""
        parts = [list(array.reshape(self.size, -1)) for array in (output, input)]
        self.alltoallv(*parts)

    def alltoallv(self, outputs: Sequence[np.ndarray], inputs: Sequence[np.ndarray]) -> None:
        """The same for parts of any lengths: ``outputs[r]`` has that of ``inputs[rank]`` on rank r."""
        self._agree("alltoall", (inputs[0].dtype.name,))
        self._exchange(inputs, outputs)

    def gather(self, outputs: Sequence[np.ndarray] | None, input: np.ndarray, root: int) -> None:
        """On ``root``, ``outputs[r]`` is the ``input`` of rank r; None on the others."""
        self._agree("gather", (input.dtype.name, root))
        empty = input.reshape(-1)[:0]
        inputs = [input if rank == root else empty for rank in range(self.size)]
        self._exchange(inputs, outputs if outputs is not None else [empty] * self.size)

    def scatter(self, output: np.ndarray, inputs: Sequence[np.ndarray] | None, root: int) -> None:
        """``output`` of rank r is ``inputs[r]`` of ``root``; None on the others."""
        self._agree("scatter", (output.dtype.name, root))
        empty = output.reshape(-1)[:0]
        outputs = [output if rank == root else empty for rank in range(self.size)]
        self._exchange(inputs if inputs is not None else [empty] * self.size, outputs)

    def barrier(self) -> None:
        """Return once all ranks have called it."""
        self._agree("barrier", ())

    # -- messages --------------------------------------------------------------------------------

    def send(self, array: np.ndarray, to: int, tag: int = 0) -> None:
        """Send ``array`` to one rank. Returns when it may be filled again."""
        self._mail.Send(_bytes(array), to, tag)

    def receive(self, array: np.ndarray, source: int, tag: int = 0) -> None:
        """Fill ``array`` with what ``source`` sends under ``tag``; of one sender and tag in the order of sending."""
        self._mail.Recv(_bytes(array), source, tag)

    def close(self) -> None:
        """Give back memory and communicators. Collective; does nothing the second time."""
        if self._comm is not None:
            self._comm.Free()
            self._mail.Free()
            self._comm = self._mail = None

    # -- within ----------------------------------------------------------------------------------

    def _agree(self, verb: str, value: Any) -> None:
        self._number += 1
        told = self._comm.allgather((verb, value))
        for rank, other in enumerate(told):
            if other != told[0]:
                raise RankError(
                    f"call {self._number} of the communicator differs between ranks: rank 0 has {told[0]}, rank {rank} has {other}"
                ).on_all_ranks()

    def _combined(self, array: np.ndarray, op: str, kind: str | None) -> np.ndarray:
        everybody = np.empty((self.size, array.size), array.dtype)
        self._comm.Allgather(_bytes(array), _bytes(everybody))
        return combined(everybody, op, kind).reshape(array.shape)

    def _exchange(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        sizes = self._comm.alltoall([part.nbytes for part in inputs])
        error: LeptonError | None = None
        if sizes != [part.nbytes for part in outputs]:
            error = RankError(
                f"rank {self.rank}: expected {[part.nbytes for part in outputs]} bytes from the ranks, they send {sizes}"
            )
        for message in self._comm.allgather(error and str(error)):
            if message:
                raise RankError(message).on_all_ranks()
        requests = [self._comm.Irecv(_bytes(part), rank) for rank, part in enumerate(outputs)]
        requests += [self._comm.Isend(_bytes(part), rank) for rank, part in enumerate(inputs)]
        for request in requests:
            request.Wait()


def _bytes(array: np.ndarray) -> np.ndarray:
    if not array.flags.c_contiguous:
        raise ConfigurationError(
            f"expected a contiguous array, got shape {array.shape}, strides {array.strides}; pass np.ascontiguousarray(array)"
        )
    return array.reshape(-1).view(np.uint8)


def combined(rows: np.ndarray, op: str, kind: str | None) -> np.ndarray:
    """The rows of a matrix, combined."""
    if op not in OPERATIONS:
        raise ConfigurationError(f"op: expected one of {', '.join(OPERATIONS)}, got {op!r}")
    dtype = rows.dtype
    if kind == "bfloat16":
        rows = (rows.astype(np.uint32) << 16).view(np.float32)
    elif dtype == np.float16:
        rows = rows.astype(np.float32)
    ufuncs = {
        **{"sum": np.add, "mean": np.add, "max": np.maximum, "min": np.minimum},
        **{"product": np.multiply, "band": np.bitwise_and, "bor": np.bitwise_or},
        "bxor": np.bitwise_xor,
    }
    result = ufuncs[op].reduce(rows, axis=0, dtype=rows.dtype)
    if op == "mean":
        result = result / result.dtype.type(len(rows))
    if kind == "bfloat16":
        bits = result.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return result.astype(dtype)
