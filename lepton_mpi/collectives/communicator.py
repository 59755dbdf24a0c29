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

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lepton_mpi.collectives.arguments import block_of, check_writable, dtype_of, target_of
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
from lepton_mpi.collectives.within_host.quick_calls import DECLINED, QuickCalls
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
        self._group, self._clock = group, group.clock
        self._ranks = range(self.size)
        with group.agreeing():
            host = StagedCollectives(group, staging_bytes) if group.host_count == 1 else None
            self._ways: Ways = host or StagedHosts(group, staging_bytes)
        self._quick = QuickCalls(group.clock, host)
        self._quickly = self._quick.call
        self._mail = Mail(group.collective_comm)

    # -- reductions ------------------------------------------------------------------------------

    def allreduce(self, array: np.ndarray, op: str = "sum", kind: str | None = None) -> None:
        """Replace every rank's ``array`` by the combination of all of them."""
        if verdict := self._quickly(_ALLREDUCE, array, array, -1, op, kind):
            self._call(verdict, self._reduce, "allreduce", array, -1, op, kind)

    def reduce(
        self, array: np.ndarray, root: int, op: str = "sum", kind: str | None = None
    ) -> None:
        """The same on ``root`` alone; the others' arrays stay as they are."""
        if verdict := self._quickly(_REDUCE, array, array, root, op, kind):
            self._call(verdict, self._reduce, "reduce", array, root, op, kind)

    def reduce_scatter(
        self, output: np.ndarray, input: np.ndarray, op: str = "sum", kind: str | None = None
    ) -> None:
        """``output`` of rank r is part r of the combination of all ``input``; ``len(input) == size * len(output)``."""
        if verdict := self._quickly(_REDUCE_SCATTER, output, input, -1, op, kind):
            self._call(verdict, self._reduce_scatter, output, input, op, kind)

    def reduce_scatterv(
        self,
        output: np.ndarray,
        inputs: Sequence[np.ndarray],
        op: str = "sum",
        kind: str | None = None,
    ) -> None:
        """The same for parts of any lengths: ``inputs[r]`` goes to rank r, whose ``output`` has its length."""
        self._call(DECLINED, self._reduce_scatterv, output, inputs, op, kind)

    def allreduce_mapped(
        self, array: np.ndarray, addresses: Sequence[int], op: str = "sum", kind: str | None = None
    ) -> None:
        """``allreduce``, on one host, of arrays that each rank has in its address space: ``addresses``, by rank, where it has them.

        Nothing is copied. ``SharedArrays`` knows the addresses.
        """
        self._call(DECLINED, self._reduce_mapped, array, addresses, op, kind)

    # -- moves -----------------------------------------------------------------------------------

    def broadcast(self, array: np.ndarray, root: int) -> None:
        """Fill every rank's ``array`` with that of ``root``."""
        if verdict := self._quickly(_BROADCAST, array, array, root, None, None):
            self._call(verdict, self._broadcast, array, root)

    def allgather(self, output: np.ndarray, input: np.ndarray) -> None:
        """Part r of every rank's ``output`` is the ``input`` of rank r; ``len(output) == size * len(input)``.

        ``input`` may be this rank's part of ``output``.
        """
        if verdict := self._quickly(_ALLGATHER, output, input, -1, None, None):
            self._call(verdict, self._allgather, output, input)

    def allgatherv(self, outputs: Sequence[np.ndarray], input: np.ndarray) -> None:
        """The same for parts of any lengths: ``outputs[r]`` has the length of rank r's ``input``."""
        self._call(DECLINED, self._allgatherv, outputs, input)

    def alltoall(self, output: np.ndarray, input: np.ndarray) -> None:
        """Part r of ``output`` is that part of rank r's ``input`` which has this rank's number; of equal lengths."""
        if verdict := self._quickly(_ALLTOALL, output, input, -1, None, None):
            self._call(verdict, self._alltoall, output, input)

    def alltoallv(self, outputs: Sequence[np.ndarray], inputs: Sequence[np.ndarray]) -> None:
        """The same for parts of any lengths: ``outputs[r]`` has that of this rank's part of ``inputs`` on rank r."""
        self._call(DECLINED, self._alltoallv, outputs, inputs)

    def gather(self, outputs: Sequence[np.ndarray] | None, input: np.ndarray, root: int) -> None:
        """On ``root``, ``outputs[r]`` becomes the ``input`` of rank r, and has its length; the others pass None."""
        self._call(DECLINED, self._gather, outputs, input, root)

    def scatter(self, output: np.ndarray, inputs: Sequence[np.ndarray] | None, root: int) -> None:
        """``output`` of rank r becomes ``inputs[r]`` of ``root``, and has its length; the others pass None."""
        self._call(DECLINED, self._scatter, output, inputs, root)

    def barrier(self) -> None:
        """Return once all ranks have called it."""
        if verdict := self._quickly(_BARRIER, None, None, -1, None, None):
            self._call(verdict, self._ways.meet, Fingerprint(_BARRIER))

    # -- messages --------------------------------------------------------------------------------

    def send(self, array: np.ndarray, to: int, tag: int = 0) -> None:
        """Send ``array`` to one rank. Returns when ``array`` may be filled again; the other may not have received it yet."""
        block = block_of(array)
        self._check_rank("to", to)
        self._exchange_mail(self._mail.send, block, to, tag)

    def receive(self, array: np.ndarray, source: int, tag: int = 0) -> None:
        """Fill ``array`` with what ``source`` sends under ``tag``; of one sender and tag in the order of sending.

        Raises RankError, on this rank alone, if the message has another length.
        """
        block = target_of(array)
        self._check_rank("source", source)
        self._exchange_mail(self._mail.receive, block, source, tag)

    def book(self) -> None:
        """Have the clock count the time of quick calls as communication; ``close`` and collective calls of other kinds do it, too."""
        self._quick.book()

    def close(self) -> None:
        """Give back memory and communicators. Collective; does nothing the second time."""
        self._quick.book()
        self._mail.close()
        self._ways.close()

    # -- a call ----------------------------------------------------------------------------------

    def _call(self, verdict: int, function: Callable[..., None], *arguments: Any) -> None:
        """``function``, with the clock told, unless ``verdict`` of the quick way is that ranks differ.

        An error of this rank's arguments is told to all ranks.
        """
        if verdict != DECLINED:
            raise self._quick.error(verdict)
        self._clock.enter("communication", self._quick.next_number())
        try:
            function(*arguments)
        except ConfigurationError as error:
            if error.agreed:
                raise
            self._ways.refuse(error)
        finally:
            self._clock.enter("compute")
            self._quick.book()

    def _exchange_mail(
        self, function: Callable[[Block, int, int], None], block: Block, rank: int, tag: int
    ) -> None:
        """``function``, with the clock told. A context manager for both would take as long as a short message."""
        self._clock.enter("communication", self._quick.next_number())
        try:
            function(block, rank, tag)
        finally:
            self._clock.enter("compute")

    def _reduce(self, verb: str, array: np.ndarray, root: int, op: str, kind: str | None) -> None:
        block = block_of(array)
        how = combination(array.dtype, op, kind)
        if verb == "reduce":
            self._check_rank("root", root)
        if root in (-1, self.rank):
            check_writable(array)
        number = NUMBER_OF[verb]
        told = Fingerprint(number, how.code, how.operation_code, root, block[1])
        self._quick.learn(array.dtype, op, kind, how)
        self._ways.reduce(told, block, how)

    def _reduce_mapped(
        self, array: np.ndarray, addresses: Sequence[int], op: str, kind: str | None
    ) -> None:
        block, how = target_of(array), combination(array.dtype, op, kind)
        number = NUMBER_OF["allreduce_mapped"]
        told = Fingerprint(number, how.code, how.operation_code, -1, block[1])
        self._ways.reduce_mapped(told, addresses, how)

    def _reduce_scatter(
        self, output: np.ndarray, input: np.ndarray, op: str, kind: str | None
    ) -> None:
        parts = self._parts(input, output, "input", "output")
        self._reduce_blocks("reduce_scatter", output, input.dtype, parts, op, kind)

    def _reduce_scatterv(
        self, output: np.ndarray, inputs: Sequence[np.ndarray], op: str, kind: str | None
    ) -> None:
        parts = self._blocks(inputs, "inputs")
        self._reduce_blocks("reduce_scatterv", output, dtype_of(inputs), parts, op, kind)

    def _reduce_blocks(
        self,
        verb: str,
        output: np.ndarray,
        dtype: np.dtype,
        inputs: Sequence[Block],
        op: str,
        kind: str | None,
    ) -> None:
        block = target_of(output)
        if output.dtype != dtype:
            raise ConfigurationError(f"{verb}: output is {output.dtype}, input {dtype}")
        how = combination(dtype, op, kind)
        byte_count = block[1] if verb == "reduce_scatter" else 0
        told = Fingerprint(NUMBER_OF[verb], how.code, how.operation_code, -1, byte_count)
        self._quick.learn(dtype, op, kind, how)
        self._ways.reduce_blocks(told, block, inputs, how)

    def _broadcast(self, array: np.ndarray, root: int) -> None:
        self._check_rank("root", root)
        is_root = root == self.rank
        block = block_of(array) if is_root else target_of(array)
        told = Fingerprint(NUMBER_OF["broadcast"], root=root, byte_count=block[1])
        wanted: list[Block | None] = [None] * self.size
        if not is_root:
            wanted[root] = block
        self._learn_moves(array)
        self._ways.spread(told, block if is_root else None, wanted)

    def _allgather(self, output: np.ndarray, input: np.ndarray) -> None:
        parts = self._parts(output, input, "output", "input")
        check_writable(output)
        self._learn_moves(output, input)
        told = Fingerprint(NUMBER_OF["allgather"], byte_count=parts.byte_count)
        self._ways.spread(told, block_of(input), parts)

    def _allgatherv(self, outputs: Sequence[np.ndarray], input: np.ndarray) -> None:
        source, targets = block_of(input), self._blocks(outputs, "outputs", target_of)
        lengths = [source[1]] * self.size, [size for _, size in targets]
        self._ways.spread(Fingerprint(NUMBER_OF["allgatherv"]), source, targets, lengths)

    def _alltoall(self, output: np.ndarray, input: np.ndarray) -> None:
        if output.nbytes != input.nbytes or input.size % self.size:
            raise ConfigurationError(
                f"alltoall: expected output and input of one length, a multiple of {self.size}, got {output.size} elements of "
                f"{output.dtype} and {input.size} of {input.dtype}"
            )
        check_writable(output)
        targets, sources = self._cut(block_of(output)), self._cut(block_of(input))
        self._learn_moves(output, input)
        told = Fingerprint(NUMBER_OF["alltoall"], byte_count=sources.byte_count)
        self._ways.exchange(told, targets, sources)

    def _alltoallv(self, outputs: Sequence[np.ndarray], inputs: Sequence[np.ndarray]) -> None:
        targets = self._blocks(outputs, "outputs", target_of)
        told = Fingerprint(NUMBER_OF["alltoallv"])
        self._ways.exchange(told, targets, self._blocks(inputs, "inputs"))

    def _gather(self, outputs: Sequence[np.ndarray] | None, input: np.ndarray, root: int) -> None:
        self._check_rank("root", root)
        source, is_root = block_of(input), root == self.rank
        targets: Sequence[Block | None] = [None] * self.size
        expected = [0] * self.size
        if is_root:
            targets = blocks = self._blocks(outputs, "outputs", target_of)
            expected = [size for _, size in blocks]
        sent = [source[1] if rank == root else 0 for rank in self._ranks]
        told = Fingerprint(NUMBER_OF["gather"], root=root)
        self._ways.spread(told, source, targets, (sent, expected), not is_root)

    def _scatter(self, output: np.ndarray, inputs: Sequence[np.ndarray] | None, root: int) -> None:
        self._check_rank("root", root)
        target = target_of(output)
        sources = [_NOTHING] * self.size
        if root == self.rank:
            sources = self._blocks(inputs, "inputs")
        targets = [target if rank == root else _NOTHING for rank in self._ranks]
        self._ways.exchange(Fingerprint(NUMBER_OF["scatter"], root=root), targets, sources)

    def _learn_moves(self, *arrays: np.ndarray) -> None:
        for array in arrays:
            self._quick.learn(array.dtype, None, None, None)

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
        blocks = block_of(whole), block_of(part)
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
        return list(map(block or block_of, arrays))


_BARRIER, _BROADCAST = NUMBER_OF["barrier"], NUMBER_OF["broadcast"]
_ALLREDUCE, _REDUCE = NUMBER_OF["allreduce"], NUMBER_OF["reduce"]
_ALLGATHER, _ALLTOALL = NUMBER_OF["allgather"], NUMBER_OF["alltoall"]
_REDUCE_SCATTER = NUMBER_OF["reduce_scatter"]
_NOTHING: Block = (0, 0)
