"""The micro-batches of a step, computed side by side, since a layer needs sums over all of them (``layers.layer.Synchronised``).

    micro-batch   0    forward ----|          |---- … ---- loss ---- backward ----|          |---- …
                  1    forward ----| meeting  |---- … ---- loss ---- backward ----| meeting  |---- …

Each has a plan in an arena of its own, and runs from one meeting to the next by itself, so that its arrays stay in the caches. The plans
of all row counts have the same calls, so every rank comes to the same meetings in the same order, those without rows among them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lepton_mpi.layers.bound import Bound, Step
from lepton_mpi.layers.compose import Graph
from lepton_mpi.layers.layer import Array, Sums, Synchronised, When
from lepton_mpi.layers.plan import Plan
from lepton_mpi.models.model import MicroBatch
from lepton_mpi.sync import Exchange


class Meeting(NamedTuple):
    """Before call ``position`` of the plan, of a layer whose parts have ``size`` numbers."""

    position: int
    layer: Synchronised
    is_forward: bool
    size: int


def meetings_of(plan: Plan, graph: Graph) -> list[Meeting]:
    """All of a training step, in order."""
    found = []
    for position, call in enumerate(plan.calls):
        layer: Any = call.node.layer
        if call.does in ("forward", "backward") and isinstance(layer, Synchronised):
            size = layer.part_size(graph.values[call.node.inputs[0]])
            found.append(Meeting(position, layer, call.does == "forward", size))
    return found


class JointStep:
    """Some micro-batches on their way through a step.

    Parameters
    ----------
    micro_batches : sequence of MicroBatch
    bounds : sequence of Bound
        Their calls.
    """

    def __init__(self, micro_batches: Sequence[MicroBatch], bounds: Sequence[Bound]) -> None:
        self._walks = [
            _Walk(each, bound) for each, bound in zip(micro_batches, bounds, strict=True)
        ]

    def run(self, meetings: Sequence[Meeting], exchange: Exchange) -> Sums:
        """All of it; returns loss and correct count of these micro-batches. Collective over the ranks of the exchange."""
        for meeting in meetings:
            parts, whole = np.zeros((exchange.count, meeting.size)), np.zeros(meeting.size)
            for walk in self._walks:
                walk.run_to(meeting.position)
                walk.tell(meeting, parts[walk.number])
            # -0 plus another rank's 0 is 0, and alone it would stay -0.
            parts += 0.0
            exchange.sum(parts)
            if self._walks:
                layer = meeting.layer
                merge = layer.merge_forward if meeting.is_forward else layer.merge_backward
                merge(parts, whole)
            for walk in self._walks:
                walk.take(meeting, whole)
        for walk in self._walks:
            walk.run_to(None)
        return sum(walk.sums[0] for walk in self._walks), sum(walk.sums[1] for walk in self._walks)


class _Walk:
    """One of them, and how far it is."""

    def __init__(self, micro_batch: MicroBatch, bound: Bound) -> None:
        batch = micro_batch.batch
        self.number, self._bound, self._y = micro_batch.number, bound, batch.y
        self._when, self._next = When(True, batch.draw, batch.rows), 0
        # The head's call has None.
        self._steps: list[Step | None] = [*bound.before, None, *bound.after]
        self.sums: Sums = (0.0, 0.0)

    def run_to(self, position: int | None) -> None:
        """Make the calls before ``position``, None for all."""
        for step in self._steps[self._next : position]:
            if step is None:
                self.sums = self._bound.loss_and_gradient(self._y)
            else:
                step.run(self._when)
        self._next = len(self._steps) if position is None else position

    def tell(self, meeting: Meeting, part: Array) -> None:
        """Fill its part."""
        step = self._steps[meeting.position]
        assert step and step.meeting
        step.meeting.tell(self._when, part)

    def take(self, meeting: Meeting, whole: Array) -> None:
        """What the parts give together."""
        step = self._steps[meeting.position]
        assert step and step.meeting
        step.meeting.whole[...] = whole
