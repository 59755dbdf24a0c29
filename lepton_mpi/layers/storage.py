"""Which values of a graph share memory, and which are computed a second time: decided before any call is written down."""

from collections.abc import Collection
from math import prod
from typing import Any, cast

from lepton_mpi.layers.compose import Graph, Node
from lepton_mpi.layers.layer import Join, Layer


class Storage:
    """Where the values of a graph lie.

    Parameters
    ----------
    recompute : int
        Parts of the outermost ``Sequential`` in a segment of which only what others read is kept; 0 for one segment that
        keeps all. The last segment keeps all, too, since its backward pass comes at once.
    wanted : collection of int
        Values that nothing may write over.

    Attributes
    ----------
    segment_count : int
    is_free_after_head : bool
        Whether nothing but the head reads the network's output.
    """

    def __init__(self, graph: Graph, recompute: int, wanted: Collection[int] = ()) -> None:
        self._graph, self._recompute = graph, recompute
        self.segment_count = self.segment_of(graph.head) + 1
        count = len(graph.values)
        self._view_roots, self._roots = list(range(count)), list(range(count))
        for node in graph.nodes:
            if node.layer is None:
                self._view_roots[node.output] = self._view_roots[node.inputs[0]]
        self._wanted = {self._view_roots[value] for value in wanted}
        layers = [node for node in graph.nodes if node.layer is not None]
        self._filler = {node.output: node for node in layers}
        self._readers: dict[int, list[Node]] = {root: [] for root in self._view_roots}
        for node in [*layers, graph.head]:
            for value in node.inputs:
                self._readers[self._view_roots[value]].append(node)
        self._crossing = {
            root
            for root, readers in self._readers.items()
            if root in self._filler
            and any(self.segment_of(r) != self.segment_of(self._filler[root]) for r in readers)
        }
        # What lies in the memory of a value in the end: the layer that fills it last.
        self._last_filler = dict(self._filler)
        for node in layers:
            self._work_in_place(node)
        self.is_free_after_head = self._is_free_for(graph.head)

    def segment_of(self, node: Node) -> int:
        """Number of its segment."""
        return node.block // self._recompute if self._recompute else 0

    def is_recomputed(self, segment: int) -> bool:
        """Whether a segment is computed a second time."""
        return segment < self.segment_count - 1

    def is_wanted(self, value: int) -> bool:
        """Whether nothing may write over it, nor over the gradient by it."""
        return self._view_roots[value] in self._wanted

    def view_root(self, value: int) -> int:
        """The first of the values that are the same numbers in other shapes."""
        return self._view_roots[value]

    def key(self, value: int, reader: Node, again: bool) -> tuple[Any, ...]:
        """The buffer of a value for ``reader``, the second one with ``again`` if the value is computed a second time."""
        root = self._root(value)
        if root < len(self._graph.inputs):
            return ("input", root)
        return ("value", root, again and self._is_internal(root, self.segment_of(reader)))

    def again(self, segment: int) -> list[Node]:
        """The layers that a backward pass through the segment needs a second time, in forward order."""
        if not self.is_recomputed(segment):
            return []
        nodes = [n for n in self._filler.values() if self.segment_of(n) == segment]
        needed: set[int] = set()
        for node in nodes:
            if isinstance(node.layer, Layer | Join) and node.layer.needs_x:
                needed.update(map(self._root, node.inputs))
            if not isinstance(node.layer, Join) and cast(Layer, node.layer).needs_out:
                needed.add(self._root(node.output))
        found = []
        for node in reversed(nodes):
            root = self._root(node.output)
            if self._keeps(node) or (root in needed and self._is_internal(root, segment)):
                found.append(node)
                needed.update(map(self._root, node.inputs))
        return found[::-1]

    def _root(self, value: int) -> int:
        """The value whose buffer it lies in."""
        while self._roots[self._view_roots[value]] != self._view_roots[value]:
            value = self._roots[self._view_roots[value]]
        return self._view_roots[value]

    def _is_internal(self, root: int, segment: int) -> bool:
        """Whether a value is filled and read in one segment, which is computed a second time."""
        is_its = root in self._filler and self.segment_of(self._filler[root]) == segment
        return is_its and self.is_recomputed(segment) and root not in self._crossing

    def _keeps(self, node: Node) -> bool:
        if isinstance(node.layer, Join):
            return False
        layer, x = cast(Layer, node.layer), self._graph.values[node.inputs[0]]
        return any(memory.lives == "kept" for memory in layer.memory(1, x).values())

    def _work_in_place(self, node: Node) -> None:
        """Let a layer's output lie where its input does, if it may and nothing else reads that."""
        layer, segment = node.layer, self.segment_of(node)
        if (
            isinstance(layer, Join)
            or not cast(Layer, layer).in_place
            or not self._is_free_for(node)
        ):
            return
        root, values = self._root(node.inputs[0]), self._graph.values
        has_room = prod(values[node.output].shape) == prod(values[node.inputs[0]].shape)
        # From another segment it is needed as it was, when this one is computed again.
        is_from_elsewhere = self.segment_of(self._filler[root]) != segment
        if has_room and not is_from_elsewhere:
            self._roots[node.output] = root
            self._readers[root] = self._readers[node.output]
            self._last_filler[root] = node

    def _is_free_for(self, node: Node) -> bool:
        """Whether ``node`` may write over its input: nobody else reads it, neither forward nor backward."""
        root = self._root(node.inputs[0])
        if root < len(self._graph.inputs) or self._readers[root] != [node]:
            return False
        if self.is_wanted(node.inputs[0]):
            return False
        layer, filler = node.layer, self._last_filler[root].layer
        is_read = isinstance(layer, Layer) and layer.needs_x
        return not is_read and (isinstance(filler, Join) or not cast(Layer, filler).needs_out)
