"""A step whose micro-batches are computed together: all of this rank's at once, in exchange with the other ranks.

For models with a layer that needs sums over all rows of a step (``Model.synchronised``). A rank holds the rows of its micro-batches and a
gradient for each, of which the strategy takes one after the other. The ranks meet in each such layer, forward and backward; waiting
there is watched as in any collective call, so that a rank that dies or hangs is named and ends the job.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lepton_mpi.batch import Batch
from lepton_mpi.models.model import MicroBatch
from lepton_mpi.run import drift
from lepton_mpi.run.run import Run, Step
from lepton_mpi.vectors import Views
from lepton_mpi.world.world import World


class RankExchange:
    """The ``Exchange`` of all ranks of the job."""

    def __init__(self, world: World, count: int) -> None:
        self._world, self.count = world, count

    def sum(self, table: NDArray[np.float64]) -> None:
        """In place. Collective."""
        if self._world.size == 1:
            return
        clock = self._world.clock
        clock.enter("communication")
        table[...] = self._world.sum(table)
        clock.enter("compute")


class Held:
    """A copy of a micro-batch in memory of its own."""

    def __init__(self) -> None:
        self._rooms: dict[str, np.ndarray] = {}

    def hold(self, batch: Batch) -> Batch:
        """The same batch, which holds until the next call."""
        named = None
        if batch.named is not None:
            named = {
                name: self._copy(f"input {name}", array) for name, array in batch.named.items()
            }
        rows = None if batch.rows is None else self._copy("rows", batch.rows)
        x, y = self._copy("x", batch.x), self._copy("y", batch.y)
        return Batch(x, y, rows, batch.draw, None, named)

    def _copy(self, name: str, array: np.ndarray) -> np.ndarray:
        room = self._rooms.get(name)
        if room is None or len(room) < len(array):
            room = self._rooms[name] = np.empty_like(array)
        room[: len(array)] = array
        return room[: len(array)]


class Together:
    """Memory of this rank's micro-batches, and ``compute``."""

    def __init__(self, run: Run) -> None:
        self._exchange = RankExchange(run.world, run.micro_batches.count)
        self._held: list[Held] = []
        self._vectors: list[np.ndarray] = []
        self._gradients: list[Views] = []
        # For ``--check-every``: a gradient computed once more, and its arrays.
        self._again: list[tuple[np.ndarray, Views]] = []

    def _hold(self, run: Run) -> None:
        """Memory for one more micro-batch: ``--balance auto`` may give this rank others than it began with."""
        self._held.append(Held())
        self._vectors.append(np.zeros(run.layout.size, run.strategy.parameters.dtype))
        self._gradients.append(run.layout.views(self._vectors[-1]))

    def compute(self, run: Run, step: Step) -> None:
        """What ``loop.compute`` does. Collective."""
        # Parameters are read before the first share, which else asks for them.
        drift.finish(run)
        numbers, clock = run.strategy.numbers, run.world.clock
        while len(self._held) < len(numbers):
            self._hold(run)
        clock.enter("input", step.number)
        batches = [held.hold(run.next_batch(step)) for held in self._held[: len(numbers)]]
        clock.enter("compute")
        micro_batches: list[MicroBatch] = []
        for slot, (number, batch) in enumerate(zip(numbers, batches, strict=True)):
            if batch.y.size:
                micro_batches.append(MicroBatch(number, batch, self._gradients[slot]))
            else:
                self._vectors[slot][:] = 0
        sums = run.model.loss_and_gradients(run.parameters, micro_batches, self._exchange)
        slots = zip(numbers, batches, self._vectors[: len(numbers)], strict=True)
        computed = [each for each in slots if each[1].y.size]
        run.divergence.add(computed, sums)
        if run.drift and run.drift.is_due():
            self._compare_again(run, micro_batches, [vector for _, _, vector in computed])
        shares = run.strategy.shares(step.number)
        for share, vector in zip(shares, self._vectors[: len(numbers)], strict=True):
            share.vector[:] = vector

    def _compare_again(
        self, run: Run, micro_batches: Sequence[MicroBatch], vectors: Sequence[np.ndarray]
    ) -> None:
        """Compute the gradients, which are in ``vectors``, once more: the same bits must come out. Collective."""
        assert run.drift
        while len(self._again) < len(micro_batches):
            vector = np.zeros_like(self._vectors[0])
            self._again.append((vector, run.layout.views(vector)))
        second = self._again[: len(micro_batches)]
        pairs = zip(micro_batches, second, strict=True)
        again = [each._replace(gradient=views) for each, (_, views) in pairs]
        run.model.loss_and_gradients(run.parameters, again, self._exchange)
        for each, vector, (other, _) in zip(micro_batches, vectors, second, strict=True):
            run.drift.compare(each.number, vector, other)
