"""A sum in the order of the tree, as a list of folds: passes that add 2, 4 or 8 vectors at once. Pure.

    8 leaves   one fold of 8                 5 leaves   fold of 4 to a slot, then slot + leaf
    16         two folds of 8 to slots,      6          fold of 4, fold of 2, then both
               then both                     1          a copy

A fold of 4 is (a b)(c d), a fold of 8 two of those, so a subtree of that form is one pass over memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lepton_mpi.collectives.summation_tree import additions

_ARITIES = (8, 4, 2)

# A leaf of the tree is the number of its row, an inner node the pair of its children.
_Node = int | tuple["_Node", "_Node"]


@dataclass(frozen=True)
class Fold:
    """Combine ``operands``, 1, 2, 4 or 8 of them, and store the result to all ``targets``.

    Numbers name rows of a table, and from some number on scratch slots.
    """

    operands: tuple[int, ...]
    targets: tuple[int, ...]

    def words(self) -> list[int]:
        """What ``meeting_kernels`` reads."""
        return [len(self.operands), len(self.targets), *self.operands, *self.targets]


def plan_folds(
    rows: Sequence[int], leaves: Sequence[int], targets: Sequence[int], first_slot: int
) -> list[Fold]:
    """Folds that add ``rows``, which hold ``leaves`` of the tree, to ``targets``; slots count from ``first_slot``.

    >>> plan_folds([0, 1, 2], [0, 1, 2], [3], first_slot=4)
    [Fold(operands=(0, 1), targets=(4,)), Fold(operands=(4, 2), targets=(3,))]
    """
    nodes: dict[int, _Node] = dict(zip(leaves, rows, strict=True))
    for left, right in additions(leaves):
        nodes[left] = nodes[left], nodes.pop(right)
    (root,) = nodes.values()
    folds: list[Fold] = []
    if isinstance(root, int):
        others = tuple(target for target in targets if target != root)
        return [Fold((root,), others)] if others else []
    operands = _operands(root, folds, first_slot)
    folds.append(Fold(operands, tuple(targets)))
    return folds


def _operands(node: _Node, folds: list[Fold], first_slot: int) -> tuple[int, ...]:
    """Rows and slots whose fold is ``node``; appends the folds that fill the slots."""
    for arity in _ARITIES:
        if rows := _rows_of_full_tree(node, arity):
            return rows
    operands = []
    for child in node:
        if not isinstance(child, int):
            inner = _operands(child, folds, first_slot)
            folds.append(Fold(inner, (first_slot + len(folds),)))
            child = folds[-1].targets[0]
        operands.append(child)
    return tuple(operands)


def _rows_of_full_tree(node: _Node, leaf_count: int) -> tuple[int, ...]:
    """The rows below ``node`` if it is a full tree of ``leaf_count`` of them, else nothing."""
    if leaf_count == 1:
        return (node,) if isinstance(node, int) else ()
    if isinstance(node, int):
        return ()
    left, right = (_rows_of_full_tree(child, leaf_count // 2) for child in node)
    return left + right if left and right else ()
