"""The canonical order of a sum: a fixed binary tree over numbered leaves. Pure.

    leaves     0   1   2   3   4          the node at level j, index k covers the leaves
    level 1    0 + 1   2 + 3   4          [k 2^j, (k+1) 2^j) as far as there are any;
    level 2    (0+1)+(2+3)     4          a node without a right sibling goes up unchanged
    level 3    ((0+1)+(2+3)) + 4

Rule: the tree depends on the numbers of the leaves alone, never on who holds them or on when they
arrive. IEEE addition commutes bit for bit, so with the tree the bits are fixed.

Who holds a contiguous run of leaves may add up the nodes that lie whole inside it (``whole_nodes``) and
hand over each node as one leaf, numbered by its first: the tree over the remaining numbers goes on just
as the full tree would. That is what makes a sum independent of how leaves are spread over ranks.

Cost: n - 1 additions, as in any order, and depth ceil(log2 n), so the rounding error grows with log n
where that of a chain grows with n (Higham, "The accuracy of floating point summation", SIAM J. Sci.
Comput. 14, 1993). Leaves that arrive in cyclic order can be added on the way with at most
2 ceil(log2 n) values alive, which is what ``EagerSum`` is for.
"""

from collections.abc import Sequence


def additions(leaves: Sequence[int]) -> list[tuple[int, int]]:
    """The tree over ascending ``leaves`` as a list of (left, right): add right's sum to left's.

    A node is named by its first leaf, so the whole sum ends up in ``leaves[0]``.

    >>> additions(range(5))
    [(0, 1), (2, 3), (0, 2), (0, 4)]
    >>> additions([0, 4, 6])  # 0 stands for the sum of 0 to 3
    [(4, 6), (0, 4)]
    """
    pairs = []
    nodes, level = list(leaves), 0
    while len(nodes) > 1:
        level += 1
        parents: list[int] = []
        for node in nodes:
            if parents and parents[-1] >> level == node >> level:
                pairs.append((parents[-1], node))
            else:
                parents.append(node)
        nodes = parents
    return pairs


def whole_nodes(start: int, stop: int, leaf_count: int) -> list[tuple[int, int]]:
    """Cut the run [start, stop) of ``leaf_count`` leaves into the largest nodes that lie whole inside it.

    At most 2 log2(stop - start) of them, each as (start, stop).

    >>> whole_nodes(3, 8, 9)
    [(3, 4), (4, 8)]
    >>> whole_nodes(3, 9, 9)  # the last node has no right sibling
    [(3, 4), (4, 8), (8, 9)]
    >>> whole_nodes(4, 7, 7)
    [(4, 7)]
    """
    assert 0 <= start <= stop <= leaf_count
    nodes = []
    while start < stop:
        width = 1
        # The parent of the node at ``start`` lies whole inside as long as it begins there and ends in time.
        while (
            start % (2 * width) == 0
            and min(start + 2 * width, leaf_count) <= stop
            and width < stop - start
        ):
            width *= 2
        nodes.append((start, min(start + width, stop)))
        start = nodes[-1][1]
    return nodes


class EagerSum:
    """Says, leaf by leaf as they arrive, which additions of the tree have become possible.

    >>> tree = EagerSum(range(3))
    >>> [tree.arrive(leaf) for leaf in (2, 0, 1)]
    [[], [], [(0, 1), (0, 2)]]
    """

    def __init__(self, leaves: Sequence[int]) -> None:
        self._pairs = additions(leaves)
        value_of = {
            leaf: -1 - leaf for leaf in leaves
        }  # a leaf is value -1 - leaf, a pair's sum is its index
        self._consumer: dict[int, int] = {}
        for index, (left, right) in enumerate(self._pairs):
            self._consumer[value_of[left]] = self._consumer[value_of[right]] = index
            value_of[left] = index
        self._half_done: set[int] = set()

    def arrive(self, leaf: int) -> list[tuple[int, int]]:
        """Additions (left, right), in the sense of ``additions``, that ``leaf`` completes."""
        possible = []
        value = -1 - leaf
        while (pair := self._consumer.get(value)) is not None:
            if pair not in self._half_done:
                self._half_done.add(pair)
                break
            possible.append(self._pairs[pair])
            value = pair
        return possible
