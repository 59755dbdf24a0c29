"""The collectives of a host's ranks on arrays of any origin: the words of ``staged_kernels.py`` for each call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from lepton_mpi.collectives.calls import NUMBER_OF, REFUSED, Combination, Fingerprint
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.within_host import meeting_kernels, row_fold_kernels
from lepton_mpi.collectives.within_host import staged_kernels as kernels
from lepton_mpi.collectives.within_host.plan_words import (
    POLLS,
    YIELDS,
    control_block,
    waited_seconds,
)
from lepton_mpi.collectives.within_host.vectors import map_pages
from lepton_mpi.errors import ConfigurationError, LeptonError, RankError
from lepton_mpi.kernels.intrinsics import LINE_BYTES

# Of a slot, and so of a part of a call.
SLOT_BYTES = 256 << 10
_PAGE_BYTES = 4096

# Up to this size of all ranks' arrays together every rank folds all of them, which is one meeting in place of two; as in plans.py.
SMALL_BYTES, SMALL_CROWDED_BYTES = 8 << 10, 128 << 10

_OPERATIONS = {
    **{"sum": row_fold_kernels.SUM, "max": row_fold_kernels.MAX, "min": row_fold_kernels.MIN},
    **{"product": row_fold_kernels.PRODUCT, "mean": row_fold_kernels.MEAN},
    **{"band": row_fold_kernels.AND, "bor": row_fold_kernels.OR, "bxor": row_fold_kernels.XOR},
}

# Address and bytes.
Block = tuple[int, int]


@cache
def fold_words(combination: Combination) -> tuple[int, int]:
    """Address of the fold, and its operation. Compiles it at the first call."""
    address = row_fold_kernels.fold_address(combination.stored, combination.stored)
    return address, _OPERATIONS[combination.operation]


class StagedCollectives:
    """Collectives of ranks on one host. Making one is collective over the host, and so is each call.

    Parameters
    ----------
    group : Group
        ``local_rank`` and ``local_size`` are taken.
    staging_bytes : int
        Upper bound of the memory that is shared.
    """

    def __init__(self, group: Group, staging_bytes: int) -> None:
        self._ranks, self._own = group.local_size, group.local_rank
        slots = kernels.ROUNDS * (self._ranks + 1)
        least = -(-LINE_BYTES * self._ranks // _PAGE_BYTES) * _PAGE_BYTES
        slot = min(max(SLOT_BYTES, least), staging_bytes // slots) // _PAGE_BYTES * _PAGE_BYTES
        if slot < least:
            raise ConfigurationError(
                f"staging_bytes: expected at least {slots * least} for {self._ranks} ranks on a host, got {staging_bytes}"
            )
        self._slot = slot
        self._area = group.host_array((kernels.ROUNDS, self._ranks + 1, slot), np.uint8, "staging")
        map_pages(group, self._area, [])
        self._control = control_block(group, kernels.copied.py_func(self._ranks))
        self._lengths = group.host_array((2, self._ranks, 2, self._ranks), np.int64)
        is_crowded = group.local_size > group.cores
        self._plan = plan = np.zeros(kernels.plan_words(self._ranks), np.int64)
        plan[meeting_kernels.RANKS], plan[meeting_kernels.OWN] = self._ranks, self._own
        plan[meeting_kernels.POLLS], plan[meeting_kernels.YIELDS] = (
            0 if is_crowded else POLLS,
            YIELDS,
        )
        plan[meeting_kernels.CONTROL] = self._control.ctypes.data
        plan[meeting_kernels.TABLE], plan[kernels.SLOT] = self._area.ctypes.data, slot
        plan[kernels.LENGTHS] = self._lengths.ctypes.data
        small = SMALL_CROWDED_BYTES if is_crowded else SMALL_BYTES
        plan[kernels.SMALL] = min(small // self._ranks, slot)
        plan[kernels.DIVISOR] = group.size
        # Setting an element of it takes a third of the time.
        self._words = memoryview(plan)
        for kernel in (kernels.staged_move, kernels.staged_reduce):
            kernel.compile("i8(i8[::1])")

    @property
    def wait_seconds(self) -> float:
        """Time that this rank waited for others, but for the first polls of each wait."""
        return waited_seconds(self._plan)

    # -- calls -----------------------------------------------------------------------------------

    def reduce(self, told: Fingerprint, array: Block, combination: Combination) -> None:
        """Combine the arrays of all ranks in place of each or, with a ``told.root``, of that of the root."""
        words = self._begin(told)
        words[kernels.TARGET], words[kernels.BYTES] = array
        words[kernels.UNIT], words[kernels.ITEM] = self._slot, combination.item_bytes
        words[kernels.FOLD], words[kernels.OPERATION] = fold_words(combination)
        words[kernels.ROOT] = told.root
        self._run(kernels.staged_reduce, told)

    def reduce_blocks(
        self,
        told: Fingerprint,
        output: Block,
        inputs: Sequence[Block],
        combination: Combination,
    ) -> None:
        """Combine what all ranks have for this one."""
        words = self._begin(told)
        fold = fold_words(combination)
        unit = self._send_pieces(inputs)
        words[kernels.TARGET], words[kernels.BYTES] = output
        words[kernels.SOURCE], words[kernels.ITEM] = inputs[self._own][0], combination.item_bytes
        words[kernels.FOLD], words[kernels.OPERATION] = fold
        words[kernels.INCOMING] = words[kernels.OWN_BYTES] = 0
        lengths = [size for _, size in inputs]
        self._note_parts(told, unit, lengths, [output[1]] * self._ranks)
        self._run(kernels.staged_move, told)

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
        lengths : bytes to and from each rank, where they are not told by ``told.byte_count``; others_want_it : whether any rank
        but this one wants its block.
        """
        words, own = self._begin(told), self._own
        words[kernels.FOLD] = words[kernels.OUTGOING] = words[kernels.OWN_BYTES] = 0
        if source is not None:
            self._enter(0, own * self._slot, source)
            words[kernels.OUTGOING] = int(others_want_it)
            if (kept := targets[own]) is not None:
                words[kernels.OWN_FROM], words[kernels.OWN_BYTES] = source
                words[kernels.OWN_TO] = kept[0]
        count = 0
        for rank, target in enumerate(targets):
            if target is not None and rank != own:
                self._enter(self._ranks + count, rank * self._slot, target)
                count += 1
        words[kernels.INCOMING] = count
        self._note_parts(told, self._slot, *(lengths or (None, None)))
        self._run(kernels.staged_move, told)

    def exchange(
        self, told: Fingerprint, outputs: Sequence[Block], inputs: Sequence[Block]
    ) -> None:
        """Block r of ``inputs`` goes to rank r, block r of ``outputs`` comes from there."""
        words, own = self._begin(told), self._own
        words[kernels.FOLD] = 0
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
        self.spread(told, None, ())

    def refuse(self, error: LeptonError) -> None:
        """Meet the others in their call, with an error in place of arguments, which all ranks raise."""
        text = str(error).encode()[: self._slot]
        epoch = int(self._plan[meeting_kernels.EPOCH])
        self._area[epoch % kernels.ROUNDS, self._own, : len(text)] = np.frombuffer(text, np.uint8)
        told = Fingerprint(REFUSED, root=self._own, byte_count=len(text))
        self.meet(told)
        raise error  # of a rank alone

    # -- words -----------------------------------------------------------------------------------

    def _begin(self, told: Fingerprint) -> memoryview:
        words, at = self._words, kernels.FINGERPRINT
        for number in told:
            words[at] = number
            at += 1
        return words

    def _enter(self, number: int, offset: int, block: Block) -> None:
        """Of the entries of blocks, those that come in are numbered from the number of ranks on."""
        words, at = self._words, kernels.ENTRIES + 3 * number
        words[at] = offset
        words[at + 1], words[at + 2] = block

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
        sent: Sequence[int] | None,
        expected: Sequence[int] | None,
    ) -> None:
        """Bytes of a piece, and how many parts there are, or the lengths from which they follow."""
        words = self._words
        words[kernels.UNIT] = unit
        if told.verb in _TOLD_BY_LENGTHS:
            row = self._lengths[words[kernels.CALL] % 2, self._own]
            row[0], row[1] = sent, expected
            words[kernels.PARTS] = 0
        else:
            words[kernels.PARTS] = max(1, -(-told.byte_count // unit))

    def _run(self, kernel, told: Fingerprint) -> None:
        verdict = kernel(self._plan)
        if verdict:
            raise self._error(verdict, told)

    # -- errors ----------------------------------------------------------------------------------

    def _error(self, verdict: int, told: Fingerprint) -> LeptonError:
        """The same on all ranks."""
        call = int(self._plan[kernels.CALL]) - 1
        if verdict < 0:
            sender, receiver = divmod(-1 - verdict, self._ranks)
            sent = self._lengths[call % 2, sender, 0, receiver]
            expected = self._lengths[call % 2, receiver, 1, sender]
            return RankError(
                f"call {call + 1} of the communicator, {told}: rank {sender} has {sent} bytes for rank {receiver}, which "
                f"expects {expected}"
            ).on_all_ranks()
        prints = [self._fingerprint(rank, call) for rank in range(self._ranks)]
        for rank, found in enumerate(prints):
            if found.verb == REFUSED:
                epoch = int(self._plan[meeting_kernels.EPOCH]) - 1
                text = self._area[epoch % kernels.ROUNDS, rank, : found.byte_count].tobytes()
                return ConfigurationError(text.decode(errors="replace")).on_all_ranks()
        return RankError(
            f"call {call + 1} of the communicator differs between ranks: rank 0 calls {prints[0]}, "
            f"rank {verdict} calls {prints[verdict]}"
        ).on_all_ranks()

    def _fingerprint(self, rank: int, call: int) -> Fingerprint:
        first = kernels.fingerprint.py_func(rank, call)
        return Fingerprint(*self._control[first : first + kernels.FINGERPRINT_WORDS].tolist())


_TOLD_BY_LENGTHS = frozenset(
    NUMBER_OF[verb] for verb in ("allgatherv", "reduce_scatterv", "alltoallv", "gather", "scatter")
)
