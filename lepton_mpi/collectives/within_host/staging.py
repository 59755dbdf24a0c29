"""The collectives of a host's ranks on arrays of any origin: the words of ``staged_kernels.py`` for each call."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

import numpy as np

from lepton_mpi.collectives.calls import (
    MEETING,
    NUMBER_OF,
    REFUSED,
    Block,
    Combination,
    EvenBlocks,
    Fingerprint,
    length_error,
)
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.within_host import (
    call_kernels,
    short_kernels,
)
from lepton_mpi.collectives.within_host import staged_kernels as kernels
from lepton_mpi.collectives.within_host.call_errors import entry_error
from lepton_mpi.collectives.within_host.direct_reduce_kernels import direct_reduce
from lepton_mpi.collectives.within_host.even_move_kernels import even_move
from lepton_mpi.collectives.within_host.lost_turns import LostTurns
from lepton_mpi.collectives.within_host.mapped_reduce_kernels import mapped_reduce
from lepton_mpi.collectives.within_host.plan_words import waited_seconds
from lepton_mpi.collectives.within_host.row_folds import fold_words
from lepton_mpi.collectives.within_host.staging_memory import StagingMemory
from lepton_mpi.errors import LeptonError, RankError
from lepton_mpi.kernels.intrinsics import LINE_BYTES

# Reductions of so many bytes are carried out without stages while ranks lose turns to other processes.
LONG_BYTES = 2 << 20


class StagedCollectives:
    """Collectives of ranks on one host. Making one is collective over the host, and so is each call.

    Parameters
    ----------
    group : Group
        ``local_rank`` and ``local_size`` are taken.
    staging_bytes : int
        Upper bound of the staging area. RING_CALLS blocks of a short call for each rank are shared besides.

    Attributes
    ----------
    plan : int64, one dimension
        Of this rank's calls, for ``quick_calls.py``.
    """

    def __init__(self, group: Group, staging_bytes: int) -> None:
        self._ranks, self._own = group.local_size, group.local_rank
        self._numbers = group.ranks_of_hosts[group.host_index]
        self._memory = memory = StagingMemory(group, staging_bytes)
        self._slot, self._short, self._small = memory.slot, memory.short, memory.small
        self.plan = memory.plan
        # Setting an element of it takes a third of the time.
        self._words = memoryview(memory.plan)
        self._lost_turns = LostTurns(group, self._words, memory.can_read_all)
        self._address_words = memoryview(memory.addresses.reshape(-1))
        self._length_words = memoryview(memory.lengths.reshape(-1)).cast("B")
        self._row = Struct(f"{2 * self._ranks}q")
        self._number_shift = 0
        self._broken: LeptonError | None = None
        for kernel in (kernels.staged_move, kernels.staged_reduce, direct_reduce):
            kernel.compile("i8(i8[::1])")
        for kernel in (short_kernels.short_move, even_move):
            kernel.compile(f"i8(i8[::1]{', i8' * 7})")
        short_kernels.short_combine.compile(f"i8(i8[::1]{', i8' * 10})")

    @property
    def wait_seconds(self) -> float:
        """Time that this rank waited for others, but for the first polls of each wait."""
        return waited_seconds(self.plan)

    # -- calls -----------------------------------------------------------------------------------

    def reduce(self, told: Fingerprint, array: Block, combination: Combination) -> None:
        """Combine the arrays of all ranks in place of each or, with a ``told.root``, of that of the root."""
        if array[1] <= self._small:
            self._combine_shortly(told, array[0], array[0], combination)
            return
        words = self._begin(told)
        words[kernels.TARGET], words[kernels.BYTES] = array
        words[kernels.UNIT], words[kernels.ITEM] = self._slot, combination.item_bytes
        words[kernels.FOLD], words[kernels.OPERATION], _ = fold_words(combination, False)
        words[kernels.ROOT] = told.root
        if told.root >= 0 or array[1] < LONG_BYTES:
            self._run(kernels.staged_reduce, told)
            return
        is_direct = self._lost_turns.begin()
        if is_direct:
            self._enter_slices(array)
        self._run(direct_reduce if is_direct else kernels.staged_reduce, told)
        self._lost_turns.end(array[1])

    def reduce_mapped(
        self, told: Fingerprint, addresses: Sequence[int], combination: Combination
    ) -> None:
        """Combine arrays of ``told.byte_count`` bytes in place of each; ``addresses`` are those, by rank, at which this one has them."""
        words = self._begin(told)
        words[kernels.BYTES], words[kernels.ITEM] = told.byte_count, combination.item_bytes
        words[kernels.FOLD], words[kernels.OPERATION], _ = fold_words(combination, False)
        for rank, address in enumerate(addresses):
            words[kernels.ENTRIES + rank] = address
        # Looking for it in each call would take longer than a short one.
        if not mapped_reduce.overloads:
            mapped_reduce.compile("i8(i8[::1])")
        self._run(mapped_reduce, told)

    def reduce_blocks(
        self,
        told: Fingerprint,
        output: Block,
        inputs: Sequence[Block],
        combination: Combination,
        is_partial: bool = False,
    ) -> None:
        """Combine what all ranks have for this one.

        The bytes of ``output`` are those of a block as it goes in. A partial result has as many elements of ``combination.wide``.
        """
        if type(inputs) is EvenBlocks and inputs.byte_count * self._ranks <= self._small:
            self._combine_shortly(told, inputs.address, output[0], combination)
            return
        words = self._begin(told)
        unit = self._send_pieces(inputs)
        words[kernels.TARGET], words[kernels.BYTES] = output
        words[kernels.SOURCE], words[kernels.ITEM] = inputs[self._own][0], combination.item_bytes
        fold = fold_words(combination, is_partial)
        words[kernels.FOLD], words[kernels.OPERATION], words[kernels.RESULT_ITEM] = fold
        words[kernels.INCOMING] = words[kernels.OWN_BYTES] = 0
        lengths = [size for _, size in inputs]
        self._note_parts(told, unit, lengths, [output[1]] * self._ranks)
        if told.verb != _REDUCE_SCATTER or told.byte_count * self._ranks < LONG_BYTES:
            self._run(kernels.staged_move, told)
            return
        is_direct = self._lost_turns.begin()
        if is_direct:
            self._tell_addresses(inputs)
        self._run(direct_reduce if is_direct else kernels.staged_move, told)
        self._lost_turns.end(told.byte_count * self._ranks)

    def spread(
        self,
        told: Fingerprint,
        source: Block | None,
        targets: Sequence[Block | None],
        lengths: tuple[Sequence[int], Sequence[int]] | None = None,
        others_want_it: bool = True,
    ) -> None:
        """Every rank that has a block, ``source``, copies it to all that want it; see ``Ways``."""
        if told.verb in _EVEN:
            self._spread_evenly(told, source, targets)
            return
        words, own = self._begin(told), self._own
        words[kernels.FOLD] = words[kernels.OUTGOING] = words[kernels.OWN_BYTES] = 0
        if source is not None:
            self._enter(0, own * self._slot, source)
            words[kernels.OUTGOING] = int(others_want_it)
            self._tell_addresses([source] * self._ranks)
            if (kept := targets[own]) is not None:
                words[kernels.OWN_FROM], words[kernels.OWN_BYTES] = source
                words[kernels.OWN_TO] = kept[0]
        count = 0
        for rank, target in enumerate(targets):
            if target is not None and rank != own:
                self._enter(self._ranks + count, rank * self._slot, target)
                count += 1
        words[kernels.INCOMING] = count
        self._note_parts(told, self._slot, *(lengths or ((), ())))
        self._run(kernels.staged_move, told)

    def exchange(
        self, told: Fingerprint, outputs: Sequence[Block], inputs: Sequence[Block]
    ) -> None:
        """Block r of ``inputs`` goes to rank r, block r of ``outputs`` comes from there."""
        if type(inputs) is EvenBlocks:
            assert type(outputs) is EvenBlocks
            length = inputs.byte_count * self._ranks
            self._move_evenly(told, inputs.address, outputs.address, length)
            return
        words, own = self._begin(told), self._own
        words[kernels.FOLD] = 0
        self._tell_addresses(inputs)
        unit, count = self._send_pieces(inputs), 0
        for rank, target in enumerate(outputs):
            if rank != own and target[1]:
                self._enter(self._ranks + count, rank * self._slot + own * unit, target)
                count += 1
        words[kernels.INCOMING] = count
        words[kernels.OWN_FROM], words[kernels.OWN_BYTES] = inputs[own]
        words[kernels.OWN_TO] = outputs[own][0]
        lengths = ([size for _, size in blocks] for blocks in (inputs, outputs))
        self._note_parts(told, unit, *lengths)
        self._run(kernels.staged_move, told)

    def meet(self, told: Fingerprint) -> None:
        """All ranks meet, and compare what they were told."""
        if told.verb != _BARRIER:  # which moves nothing
            told = told._replace(verb=told.verb + MEETING)
        self._move_shortly(told, 0, 0)

    def refuse(self, error: LeptonError) -> None:
        """Meet the others in their call, with an error in place of arguments, which all ranks raise."""
        text = np.frombuffer(str(error).encode()[: self._short], np.uint8)
        told = Fingerprint(REFUSED, root=self._own, byte_count=text.size)
        self._move_shortly(told, text.ctypes.data, 0)
        raise error.on_all_ranks()  # there is no other

    def quick_error(self, verdict: int) -> LeptonError:
        """What a quick call of this rank has found; the same on all ranks."""
        first = call_kernels.FINGERPRINT
        told = Fingerprint(*self._words[first : first + call_kernels.FINGERPRINT_WORDS])
        return self._error(verdict, told)

    def number_next(self, number: int) -> None:
        """Have errors call the next call ``number``; else they are counted from 1."""
        self._number_shift = number - 1 - self._words[call_kernels.CALL]

    def close(self) -> None:
        """There is memory only, which goes with this object."""

    # -- short calls, and blocks of one length ---------------------------------------------------

    def _spread_evenly(
        self, told: Fingerprint, source: Block | None, targets: Sequence[Block | None]
    ) -> None:
        """A broadcast or an all-gather."""
        if type(targets) is EvenBlocks:
            assert source is not None
            self._move_evenly(told, source[0], targets.address, told.byte_count)
            return
        block = source or targets[told.root]
        assert block is not None
        self._move_evenly(told, block[0], block[0], told.byte_count)

    def _move_evenly(self, told: Fingerprint, source: int, target: int, length: int) -> None:
        """``length`` bytes go out of a rank."""
        self._check_whole()
        move = short_kernels.short_move if length <= self._short else even_move
        if verdict := move(self.plan, *told, source, target):
            raise self._error(verdict, told)

    def _move_shortly(self, told: Fingerprint, source: int, target: int) -> None:
        self._move_evenly(told, source, target, 0)

    def _combine_shortly(
        self, told: Fingerprint, source: int, target: int, combination: Combination
    ) -> None:
        self._check_whole()
        fold, operation, _ = fold_words(combination, False)
        verdict = short_kernels.short_combine(
            self.plan, *told, source, target, fold, operation, combination.item_bytes
        )
        if verdict:
            raise self._error(verdict, told)

    def _check_whole(self) -> None:
        if self._broken is not None:
            raise type(self._broken)(str(self._broken)).on_all_ranks()

    # -- words -----------------------------------------------------------------------------------

    def _begin(self, told: Fingerprint) -> memoryview:
        self._check_whole()
        words, at = self._words, call_kernels.FINGERPRINT
        for number in told:
            words[at] = number
            at += 1
        return words

    def _enter(self, number: int, offset: int, block: Block) -> None:
        """Of the entries of blocks, those that come in are numbered from the number of ranks on."""
        words, at = self._words, kernels.ENTRIES + 3 * number
        words[at] = offset
        words[at + 1], words[at + 2] = block

    def _tell_addresses(self, blocks: Sequence[Block]) -> None:
        """Where those are that others may read."""
        addresses = self._address_words
        at = (self._words[kernels.MEETINGS] % 2 * self._ranks + self._own) * self._ranks
        for address, _ in blocks:
            addresses[at] = address
            at += 1

    def _enter_slices(self, array: Block) -> None:
        """Of an allreduce: the slices of the array, this rank's as the one to fold, and the others' as what comes in."""
        words, own, (address, size) = self._words, self._own, array
        slices = [
            kernels.slice_bounds.py_func(rank, self._ranks, size) for rank in range(self._ranks)
        ]
        blocks = [(address + start, stop - start) for start, stop in slices]
        self._tell_addresses(blocks)
        words[kernels.SOURCE] = words[kernels.TARGET] = blocks[own][0]
        words[kernels.BYTES] = blocks[own][1]
        words[kernels.RESULT_ITEM] = words[kernels.ITEM]
        for count in range(self._ranks - 1):
            rank = (own + 1 + count) % self._ranks
            self._enter(self._ranks + count, rank, blocks[rank])
        words[kernels.INCOMING] = self._ranks - 1

    def _send_pieces(self, inputs: Sequence[Block]) -> int:
        """A slot has a piece for each rank, whose bytes are returned."""
        unit = self._slot // self._ranks // LINE_BYTES * LINE_BYTES
        first, count = self._own * self._slot, 0
        for rank, block in enumerate(inputs):
            if rank != self._own and block[1]:
                self._enter(count, first + rank * unit, block)
                count += 1
        self._words[kernels.OUTGOING] = count
        return unit

    def _note_parts(
        self,
        told: Fingerprint,
        unit: int,
        sent: Sequence[int],
        expected: Sequence[int],
    ) -> None:
        """Bytes of a piece, and how many parts there are, or the lengths from which they follow."""
        words = self._words
        words[kernels.UNIT] = unit
        if told.verb in _TOLD_BY_LENGTHS:
            row = words[kernels.MEETINGS] % 2 * self._ranks + self._own
            self._row.pack_into(self._length_words, row * self._row.size, *sent, *expected)
            words[kernels.PARTS] = 0
        else:
            words[kernels.PARTS] = max(1, -(-told.byte_count // unit))

    def _run(self, kernel, told: Fingerprint) -> None:
        verdict = kernel(self.plan)
        if verdict:
            raise self._error(verdict, told)

    # -- errors ----------------------------------------------------------------------------------

    def _error(self, verdict: int, told: Fingerprint) -> LeptonError:
        """The same on all ranks, but for memory that one of them could not read."""
        if verdict == self._ranks:
            return RankError(f"{told}: memory of another rank cannot be read any more")
        plan, numbers = self.plan, self._numbers
        present = int(plan[call_kernels.CALL])
        if verdict < 0:
            sender, receiver = divmod(-1 - verdict, self._ranks)
            table = self._memory.lengths[(int(plan[kernels.MEETINGS]) - 1) % 2]
            sent, expected = table[sender, 0, receiver], table[receiver, 1, sender]
            return length_error(
                *(present + self._number_shift, told, numbers[sender], sent),
                *(numbers[receiver], expected),
            )
        call = int(plan[call_kernels.DIFFERENT])
        entries = self._memory.ring[call % call_kernels.RING_CALLS]
        error = entry_error(entries, numbers, verdict, call + 1 + self._number_shift)
        if plan[call_kernels.BROKEN]:
            self._broken = error
        return error


_BARRIER, _REDUCE_SCATTER = NUMBER_OF["barrier"], NUMBER_OF["reduce_scatter"]
_EVEN = frozenset((NUMBER_OF["broadcast"], NUMBER_OF["allgather"]))
_TOLD_BY_LENGTHS = frozenset(
    NUMBER_OF[verb] for verb in ("allgatherv", "reduce_scatterv", "alltoallv", "gather", "scatter")
)
