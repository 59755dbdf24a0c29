"""Which scratch slot each segment arrives in, and which held segments are added when. Pure.

A slot is taken when a receive is posted and free again when an addition has used up its contents: at
once for a segment that is added to the rank's own, later for one that is held. Slots are given in the
order of the receives, and taken again only by a receive that cannot be posted before they are free: so
a slot needs no watching at run time, and scratch memory never holds a message up.
"""

from dataclasses import dataclass

from lepton_mpi.collectives.schedules.schedule import Action, Fold, Receive, Step
from lepton_mpi.collectives.summation_tree import EagerSum

_IN_USE = 1 << 62


@dataclass(frozen=True, slots=True)
class Addition:
    """Add scratch slot ``other`` to slot ``target``; -1 is the rank's own memory of elements [start, stop)."""

    target: int
    other: int
    start: int
    stop: int


class Scratch:
    """Takes in one rank's receives in their order and keeps the books.

    Parameters
    ----------
    steps, bounds, receives_in_flight
        As for ``program.compile_program``.

    Attributes
    ----------
    added_alone : list of bool
        Per receive: it is added to the rank's own segment as soon as it is complete.
    additions : list of list of Addition
        Per receive: the additions of held segments that it makes possible.
    changes_vector : list of bool
        Per receive: the rank's own segment is different afterwards.
    slot_count : int
    """

    def __init__(self, steps: list[Step], bounds: list[int], receives_in_flight: int) -> None:
        self.added_alone: list[bool] = []
        self.additions: list[list[Addition]] = []
        self.changes_vector: list[bool] = []
        self._free_after: list[int] = []
        self._ahead = receives_in_flight
        self._folds = [
            (number, bounds[fold.start], bounds[fold.stop], fold)
            for number, step in enumerate(steps)
            for fold in step.folds
        ]
        self._sums: dict[tuple[int, int, int], _SegmentSum] = {}

    @property
    def slot_count(self) -> int:
        return len(self._free_after)

    def arrive(self, receive: Receive, start: int, stop: int, step: int) -> int:
        """Take in the next receive: elements [start, stop) of ``receive``. Returns its slot, -1 for none."""
        index, additions = len(self.additions), []
        slot = -1 if receive.action is Action.COPY else self._take(index)
        if receive.action is Action.ADD:
            self._free_after[slot] = index
        elif receive.action is Action.HOLD:
            additions = self._sum_of(start, stop, step).arrive(receive.leaf, slot)
            for addition in additions:
                self._free_after[addition.other] = index
        self.added_alone.append(receive.action is Action.ADD)
        self.additions.append(additions)
        own_changes = any(addition.target < 0 for addition in additions)
        self.changes_vector.append(receive.action is not Action.HOLD or own_changes)
        return slot

    def _take(self, index: int) -> int:
        """The slot that is free for longest, if it is free when receive ``index`` may first be posted."""
        slots = self._free_after
        slot = min(range(len(slots)), key=slots.__getitem__, default=-1)
        if slot < 0 or slots[slot] > index - self._ahead:
            slot = len(slots)
            slots.append(_IN_USE)
        slots[slot] = _IN_USE
        return slot

    def _sum_of(self, start: int, stop: int, step: int) -> "_SegmentSum":
        """The sum that a segment held in ``step`` is part of: it is due at the next fold of its chunk."""
        due, fold = next(
            (at, fold)
            for at, first, last, fold in self._folds
            if at >= step and first <= start < last
        )
        if (due, start, stop) not in self._sums:
            self._sums[due, start, stop] = _SegmentSum(fold, start, stop)
        return self._sums[due, start, stop]


class _SegmentSum:
    """One segment on its way up the tree: which slot holds which node. The rank's own leaf comes last."""

    def __init__(self, fold: Fold, start: int, stop: int) -> None:
        self._tree, self._own, self._missing = EagerSum(fold.leaves), fold.own, len(fold.leaves) - 1
        self._slot_of = {fold.own: -1}
        self._start, self._stop = start, stop

    def arrive(self, leaf: int, slot: int) -> list[Addition]:
        self._slot_of[leaf] = slot
        self._missing -= 1
        pairs = self._tree.arrive(leaf)
        if self._missing == 0:
            pairs += self._tree.arrive(self._own)
        return [self._addition(left, right) for left, right in pairs]

    def _addition(self, left: int, right: int) -> Addition:
        target, other = self._slot_of[left], self._slot_of.pop(right)
        if other < 0:  # the sum of a node with the own leaf in it lies in the rank's own memory
            target, other = other, target
        self._slot_of[left] = target
        return Addition(target, other, self._start, self._stop)
