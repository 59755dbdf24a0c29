"""``--strategy adasum``: gradients are added where they point apart, and averaged where they point the same way.

    adasum(a, b) = (1 - a.b / (2 |a|^2)) a + (1 - a.b / (2 |b|^2)) b          parameter by parameter

Orthogonal gradients give their sum, equal ones their mean: so the step of many ranks is as long as their gradients allow
without another learning rate. Of more than two it runs along a binary tree over the ranks, left with right: of n ranks, as many
as a power of two; those beyond it are first combined with the first ones. Every rank gets the same bits, and holds all parameters.
Running statistics of a normalisation are averaged.

The order of messages: in round k a rank exchanges its whole vector with the one whose number differs in bit k, both
combine the two in the same order. Between hosts it costs log2 n vectors a step.
Source: Maleki et al., "Scaling distributed training with adaptive summation", MLSys 2021.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lepton_mpi.collectives.messages.mpi import MpiTransport
from lepton_mpi.collectives.messages.neighbours import NeighbourExchange
from lepton_mpi.strategies.clipping import ReplicatedNorm, clipped_scale
from lepton_mpi.strategies.strategy import Copy, Setting, Share, SkipScope, Strategy, StrategyBase
from lepton_mpi.strategies.workers import RankWorker, ranks_by_place

# Of messages on the group's ``collective_comm``, as 9 is that of gossip.
_TAG = 10
Bounds = Sequence[tuple[int, int]]


class Adasum(StrategyBase):
    """See the module. Making one and stepping are collective over the group."""

    reproducible = freezes = True
    skips: SkipScope = "all"

    def __init__(self, setting: Setting) -> None:
        group, layout = setting.group, setting.layout
        worker = RankWorker(setting)
        self._worker, self._clock, self._group = worker, group.clock, group
        self.parameters, self.optimizer, self.kernels = (
            worker.parameters,
            worker.optimizer,
            worker.kernels,
        )
        self.numbers, self.weighed = worker.numbers, worker.weighed
        # The vector ends with the rows that it is of.
        self._vector = np.zeros(layout.size + 1, setting.dtype)
        self._messages = NeighbourExchange(self._vector, MpiTransport(group.collective_comm, _TAG))
        names = zip(layout.shapes, layout.bounds, strict=True)
        others = {*setting.averaged, *setting.frozen}
        self._trained = [bounds for name, bounds in names if name not in others]
        self._frozen = [slice(*span) for span in setting.frozen_spans]
        self._clip_norm = setting.clip_norm
        gradient = self._vector[:-1]
        self._norm = ReplicatedNorm(gradient, setting.trained_spans) if setting.clips else None
        self._rank_of_place = ranks_by_place(group)

    def shares(self, step: int) -> Iterable[Share]:
        """See ``Strategy``."""
        return self._worker.shares(step)

    def step(self, step: int, weight: int) -> None:
        """See ``Strategy``: the rank's mean gradient, combined with the others'."""
        gradient = self._vector[:-1]
        gradient[:] = self._worker.gradient
        for start, stop in self._trained:
            gradient[start:stop] *= gradient.dtype.type(1 / max(1, weight))
        for span in self._frozen:
            gradient[span] = 0  # it may be anything
        self._vector[-1] = weight
        self._clock.enter("communication")
        self._combine()
        self._clock.enter("compute")
        scale = 1.0
        if self._norm:
            scale = clipped_scale(scale, self._norm.compute(), self._clip_norm)
        optimizer = self._worker.optimizer
        optimizer.begin_step(step, scale, 1.0 / max(1.0, float(self._vector[-1])))
        optimizer.update(self.parameters, gradient, 0, gradient.size)

    def _combine(self) -> None:
        """Replace the vector by that of all ranks."""
        place, size = self._group.place, self._group.size
        whole = 1 << size.bit_length() - 1
        extra = place + whole if place + whole < size else None
        if place >= whole:
            self._send_and_receive([place - whole], [])
            (self._vector[:],) = self._send_and_receive([], [place - whole])
            return
        if extra is not None:
            (other,) = self._send_and_receive([], [extra])
            combine(self._vector, other, self._trained)
        distance = 1
        while distance < whole:
            peer = place ^ distance
            (other,) = self._send_and_receive([peer], [peer])
            if place < peer:
                combine(self._vector, other, self._trained)
            else:
                left = other.copy()
                combine(left, self._vector, self._trained)
                self._vector[:] = left
            distance *= 2
        if extra is not None:
            self._send_and_receive([extra], [])

    def _send_and_receive(self, targets: list[int], sources: list[int]) -> list[np.ndarray]:
        ranks = self._rank_of_place
        return self._messages.run(
            [ranks[place] for place in targets], [ranks[place] for place in sources]
        )

    def copies(self) -> list[Copy]:
        """See ``Strategy``: of the same gradient all ranks make the same."""
        return self.copies_at_end()

    def own_vectors(self) -> int:
        """With what is sent, and what came from each that was heard of."""
        return self._worker.own_vectors + 1 + self._messages.peer_count

    def facts(self) -> dict[str, Any]:
        """How many gradients are combined."""
        return {"strategy": "adasum", "workers": self._group.size}

    def __str__(self) -> str:
        return f"adasum of {self._group.size} gradients; same bits for {self._group.size} ranks wherever they run"


def combine(a: np.ndarray, b: np.ndarray, trained: Bounds) -> None:
    """``a = adasum(a, b)``, parameter by parameter; what lies between the ``trained`` is added up. Shapes (n,), both."""
    stop_before = 0
    for start, stop in [*trained, (a.size, a.size)]:
        a[stop_before:start] += b[stop_before:start]
        stop_before = stop
        left, right = a[start:stop], b[start:stop]
        both = float(np.dot(left.astype(np.float64), right.astype(np.float64)))
        of_left = float(np.dot(left.astype(np.float64), left.astype(np.float64)))
        of_right = float(np.dot(right.astype(np.float64), right.astype(np.float64)))
        keep_left = 1 - both / (2 * of_left) if of_left else 1.0
        keep_right = 1 - both / (2 * of_right) if of_right else 1.0
        kind = a.dtype.type
        a[start:stop] = kind(keep_left) * left + kind(keep_right) * right


def make(setting: Setting) -> Strategy:
    """Collective over the group. Raises ConfigurationError."""
    return Adasum(setting)
