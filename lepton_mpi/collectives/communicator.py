"""Collectives of a group on any contiguous NumPy arrays, of another length at each call: the plan-free form of ``allreduce.py``.

    one host       a staging area in shared memory, in parts that are copied in, folded and copied out (within_host/staged_kernels.py);
                   short calls by a ring of entries (within_host/short_kernels.py)
    several hosts  the same inside each host, messages between the ranks of different hosts (between_hosts/staged_hosts.py)

All ranks meet in every collective call and compare a fingerprint of it before any array is written. So ranks that call different
verbs, or one verb with arguments that do not fit together, raise the same error, and may go on with the next call. A rank that
refuses its own arguments tells the others in the same meeting. A rank that calls nothing is named by the watchdog.

On one host, ranks do not all meet in a short broadcast or reduce: its fingerprint is compared with the root's, and by all in one of
the next 8 calls (within_host/call_kernels.py). If such a call differs between ranks, some have gone on. Each raises the error as soon
as it sees it, and in all calls from then on: the communicator is of no more use.

A communicator serves one thread at a time. Several may be used in several threads: on one host they have nothing in common, and
over hosts one lock of the process is held in each call of MPI (``between_hosts/staged_hosts.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import addressof, c_char
from typing import Any

import numpy as np

from lepton_mpi.collectives.between_hosts.staged_hosts import StagedHosts
from lepton_mpi.collectives.calls import (
    NUMBER_OF,
    Block,
    EvenBlocks,
    Fingerprint,
    Ways,
    combination,
)
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.messages.mail import Mail
from lepton_mpi.collectives.within_host.staging import StagedCollectives
from lepton_mpi.errors import ConfigurationError

STAGING_BYTES = 32 << 20


class Communicator:
    """Collectives of ``group``. Making one is collective over the group, and so is every method but ``send`` and ``receive``.

    Arrays are NumPy arrays of any shape, C-contiguous and in native byte order. Lengths are in elements and may be 0. What is
    only moved may have any dtype without objects. What is combined has dtype bool, uint8, int8, int16, int32, int64, float16,
    float32 or float64, or is bfloat16 in an array of uint16 with ``kind="bfloat16"``. ``op`` is sum, max, min, product, mean (of
    floats), band, bor or bxor (of whole numbers). float16 and bfloat16 are combined in float32 and rounded once. Of bool, sum
    and max are "or", product and min are "and". Of floats, a maximum or minimum is NaN if one of them is.
    The order of additions is that of ``summation_tree.py``: the same bits on all ranks, and those of ``make_plan`` on one host.

    Parameters
    ----------
    group : World or Group
        Outlives the communicator.
    staging_bytes : int
        Upper bound of the staging area that the ranks of a host share; 16 entries of at most 32 KiB for each rank come on top.

    Attributes
    ----------
    rank, size : int
        This rank's number in the group, and how many there are.

    Raises
    ------
    ConfigurationError
        On all ranks: arguments of one of them that fit no call. Of ``send`` and ``receive``, on that rank alone.
    RankError
        On all ranks: different verbs, or one verb with arguments that do not fit together. On one host, of a short broadcast or
        reduce in that call or one of the next 8, and in all that follow.
    """

    def __init__(self, group: Group, *, staging_bytes: int = STAGING_BYTES) -> None:
        self.rank, self.size = group.rank, group.size
        self._group, self._clock, self._number = group, group.clock, 0
        self._ranks = range(self.size)
        with group.agreeing():
            ways = StagedCollectives if group.host_count == 1 else StagedHosts
            self._ways: Ways = ways(group, staging_bytes)
        self._mail = Mail(group.collective_comm)

    # -- reductions ------------------------------------------------------------------------------

    def allreduce(self, array: np.ndarray, op: str = "sum", kind: str | None = None) -> None:
        """Replace every rank's ``array`` by the combination of all of them."""
        self._call(self._reduce, "allreduce", array, -1, op, kind)

    def reduce(
        self, array: np.ndarray, root: int, op: str = "sum", kind: str | None = None
    ) -> None:
        """The same on ``root`` alone; the others' arrays stay as they are."""
        self._call(self._reduce, "reduce", array, root, op, kind)

    def reduce_scatter(
        self, output: np.ndarray, input: np.ndarray, op: str = "sum", kind: str | None = None
    ) -> None:
        """``output`` of rank r is part r of the combination of all ``input``; ``len(input) == size * len(output)``."""
        self._call(self._reduce_scatter, output, input, op, kind)

    def reduce_scatterv(
        self,
        output: np.ndarray,
        inputs: Sequence[np.ndarray],
        op: str = "sum",
        kind: str | None = None,
    ) -> None:
        """The same for parts of any lengths: ``inputs[r]`` goes to rank r, whose ``output`` has its length."""
        self._call(self._reduce_scatterv, output, inputs, op, kind)

    # -- moves -----------------------------------------------------------------------------------

    def broadcast(self, array: np.ndarray, root: int) -> None:
        """Fill every rank's ``array`` with that of ``root``."""
        self._call(self._broadcast, array, root)

    def allgather(self, output: np.ndarray, input: np.ndarray) -> None:
        """Part r of every rank's ``output`` is the ``input`` of rank r; ``len(output) == size * len(input)``.

        ``input`` may be this rank's part of ``output``.
        """
        self._call(self._allgather, output, input)

    def allgatherv(self, outputs: Sequence[np.ndarray], input: np.ndarray) -> None:
        """The same for parts of any lengths: ``outputs[r]`` has the length of rank r's ``input``."""
        self._call(self._allgatherv, outputs, input)

    def alltoall(self, output: np.ndarray, input: np.ndarray) -> None:
        """Part r of ``output`` is that part of rank r's ``input`` which has this rank's number; of equal lengths."""
        self._call(self._alltoall, output, input)

    def alltoallv(self, outputs: Sequence[np.ndarray], inputs: Sequence[np.ndarray]) -> None:
        """The same for parts of any lengths: ``outputs[r]`` has that of this rank's part of ``inputs`` on rank r."""
        self._call(self._alltoallv, outputs, inputs)

    def gather(self, outputs: Sequence[np.ndarray] | None, input: np.ndarray, root: int) -> None:
        """On ``root``, ``outputs[r]`` becomes the ``input`` of rank r, and has its length; the others pass None."""
        self._call(self._gather, outputs, input, root)

    def scatter(self, output: np.ndarray, inputs: Sequence[np.ndarray] | None, root: int) -> None:
        """``output`` of rank r becomes ``inputs[r]`` of ``root``, and has its length; the others pass None."""
        self._call(self._scatter, output, inputs, root)

    def barrier(self) -> None:
        """Return once all ranks have called it."""
        self._call(self._ways.meet, Fingerprint(NUMBER_OF["barrier"]))

    # -- messages --------------------------------------------------------------------------------

    def send(self, array: np.ndarray, to: int, tag: int = 0) -> None:
        """Send ``array`` to one rank. Returns when ``array`` may be filled again; the other may not have received it yet."""
        block = _block(array)
        self._check_rank("to", to)
        with self._communicating():
            self._mail.send(block, to, tag)

    def receive(self, array: np.ndarray, source: int, tag: int = 0) -> None:
        """Fill ``array`` with what ``source`` sends under ``tag``; of one sender and tag in the order of sending.

        Raises RankError, on this rank alone, if the message has another length.
        """
        block = _target(array)
        self._check_rank("source", source)
        with self._communicating():
            self._mail.receive(block, source, tag)

    def close(self) -> None:
        """Give back memory and communicators. Collective; does nothing the second time."""
        self._mail.close()
        self._ways.close()

    # -- a call ----------------------------------------------------------------------------------

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        """``function``, with the clock told; an error of this rank's arguments is told to all ranks."""
        # As ``_communicating``, which takes 2 us more.
        self._number += 1
        self._clock.enter("communication", self._number)
        try:
            function(*arguments)
        except ConfigurationError as error:
            if error.agreed:
                raise
            self._ways.refuse(error)
        finally:
            self._clock.enter("compute")

    @contextmanager
    def _communicating(self) -> Iterator[None]:
        """A block in which the watchdog knows that this rank waits for others, in which call."""
        self._number += 1
        self._clock.enter("communication", self._number)
        try:
            yield
        finally:
            self._clock.enter("compute")

    def _reduce(self, verb: str, array: np.ndarray, root: int, op: str, kind: str | None) -> None:
        block = _block(array)
        how = combination(array.dtype, op, kind)
        if verb == "reduce":
            self._check_rank("root", root)
        if root in (-1, self.rank):
            _check_writable(array)
        number = NUMBER_OF[verb]
        told = Fingerprint(number, how.code, how.operation_code, root, block[1])
        self._ways.reduce(told, block, how)

    def _reduce_scatter(
        self, output: np.ndarray, input: np.ndarray, op: str, kind: str | None
    ) -> None:
        parts = self._parts(input, output, "input", "output")
        self._reduce_blocks("reduce_scatter", output, input.dtype, parts, op, kind)

    def _reduce_scatterv(
        self, output: np.ndarray, inputs: Sequence[np.ndarray], op: str, kind: str | None
    ) -> None:
        parts = self._blocks(inputs, "inputs")
        self._reduce_blocks("reduce_scatterv", output, _dtype(inputs), parts, op, kind)

    def _reduce_blocks(
        self,
        verb: str,
        output: np.ndarray,
        dtype: np.dtype,
        inputs: Sequence[Block],
        op: str,
        kind: str | None,
    ) -> None:
        block = _target(output)
        if output.dtype != dtype:
            raise ConfigurationError(f"{verb}: output is {output.dtype}, input {dtype}")
        how = combination(dtype, op, kind)
        byte_count = block[1] if verb == "reduce_scatter" else 0
        told = Fingerprint(NUMBER_OF[verb], how.code, how.operation_code, -1, byte_count)
        self._ways.reduce_blocks(told, block, inputs, how)

    def _broadcast(self, array: np.ndarray, root: int) -> None:
        self._check_rank("root", root)
        is_root = root == self.rank
        block = _block(array) if is_root else _target(array)
        told = Fingerprint(NUMBER_OF["broadcast"], root=root, byte_count=block[1])
        wanted: list[Block | None] = [None] * self.size
        if not is_root:
            wanted[root] = block
        self._ways.spread(told, block if is_root else None, wanted)

    def _allgather(self, output: np.ndarray, input: np.ndarray) -> None:
        parts = self._parts(output, input, "output", "input")
        _check_writable(output)
        told = Fingerprint(NUMBER_OF["allgather"], byte_count=parts.byte_count)
        self._ways.spread(told, _block(input), parts)

    def _allgatherv(self, outputs: Sequence[np.ndarray], input: np.ndarray) -> None:
        source, targets = _block(input), self._blocks(outputs, "outputs", _target)
        lengths = [source[1]] * self.size, [size for _, size in targets]
        self._ways.spread(Fingerprint(NUMBER_OF["allgatherv"]), source, targets, lengths)

    def _alltoall(self, output: np.ndarray, input: np.ndarray) -> None:
        if output.nbytes != input.nbytes or input.size % self.size:
            raise ConfigurationError(
                f"alltoall: expected output and input of one length, a multiple of {self.size}, got {output.size} elements of "
                f"{output.dtype} and {input.size} of {input.dtype}"
            )
        _check_writable(output)
        targets, sources = self._cut(_block(output)), self._cut(_block(input))
        told = Fingerprint(NUMBER_OF["alltoall"], byte_count=sources.byte_count)
        self._ways.exchange(told, targets, sources)

    def _alltoallv(self, outputs: Sequence[np.ndarray], inputs: Sequence[np.ndarray]) -> None:
        targets = self._blocks(outputs, "outputs", _target)
        told = Fingerprint(NUMBER_OF["alltoallv"])
        self._ways.exchange(told, targets, self._blocks(inputs, "inputs"))

    def _gather(self, outputs: Sequence[np.ndarray] | None, input: np.ndarray, root: int) -> None:
        self._check_rank("root", root)
        source, is_root = _block(input), root == self.rank
        targets: Sequence[Block | None] = [None] * self.size
        expected = [0] * self.size
        if is_root:
            targets = blocks = self._blocks(outputs, "outputs", _target)
            expected = [size for _, size in blocks]
        sent = [source[1] if rank == root else 0 for rank in self._ranks]
        told = Fingerprint(NUMBER_OF["gather"], root=root)
        self._ways.spread(told, source, targets, (sent, expected), not is_root)

    def _scatter(self, output: np.ndarray, inputs: Sequence[np.ndarray] | None, root: int) -> None:
        self._check_rank("root", root)
        target = _target(output)
        sources = [_NOTHING] * self.size
        if root == self.rank:
            sources = self._blocks(inputs, "inputs")
        targets = [target if rank == root else _NOTHING for rank in self._ranks]
        self._ways.exchange(Fingerprint(NUMBER_OF["scatter"], root=root), targets, sources)

    # -- arguments -------------------------------------------------------------------------------

    def _check_rank(self, name: str, rank: int) -> None:
        if not isinstance(rank, int | np.integer) or not 0 <= rank < self.size:
            raise ConfigurationError(
                f"{name}: expected a rank from 0 to {self.size - 1}, got {rank!r}"
            )

    def _cut(self, block: Block) -> EvenBlocks:
        """A part for each rank."""
        return EvenBlocks(block[0], block[1] // self.size, self.size)

    def _parts(self, whole: np.ndarray, part: np.ndarray, name: str, part_name: str) -> EvenBlocks:
        """Those of ``whole``, of which each is as long as ``part``."""
        blocks = _block(whole), _block(part)
        if blocks[0][1] != self.size * blocks[1][1]:
            raise ConfigurationError(
                f"expected len({name}) == {self.size} * len({part_name}), got {whole.size} elements of {whole.dtype} and "
                f"{part.size} of {part.dtype}"
            )
        return self._cut(blocks[0])

    def _blocks(
        self,
        arrays: Sequence[np.ndarray] | None,
        name: str,
        block: Callable[[np.ndarray], Block] | None = None,
    ) -> list[Block]:
        if arrays is None or len(arrays) != self.size:
            came = "None" if arrays is None else f"{len(arrays)} of them"
            raise ConfigurationError(
                f"{name}: expected {self.size} arrays, one for each rank, got {came}"
            )
        return list(map(block or _block, arrays))


_NOTHING: Block = (0, 0)
_from_buffer = c_char.from_buffer


def _block(array: np.ndarray) -> Block:
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


def _target(array: np.ndarray) -> Block:
    """The same of an array that is filled."""
    block = _block(array)
    _check_writable(array)
    return block


def _check_writable(array: np.ndarray) -> None:
    if not array.flags.writeable:
        raise ConfigurationError(
            f"expected an array to be filled, got one of shape {array.shape} that is read-only; pass array.copy()"
        )


def _dtype(arrays: Sequence[np.ndarray]) -> np.dtype:
    """That of all ``arrays``."""
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) != 1:
        raise ConfigurationError(f"inputs: expected one dtype, got {', '.join(map(str, dtypes))}")
    return dtypes.pop()
