"""``Model``: from batch to loss and gradient. A model knows nothing of ranks, files or optimizers."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from lepton_mpi.batch import Batch, Input
from lepton_mpi.kernels.compiling import Kernel
from lepton_mpi.sync import Sync
from lepton_mpi.vectors import Views

# Loss, and rows (or tokens) predicted correctly or NaN, both summed over a batch.
Sums = tuple[float, float]


class Model(Protocol):
    """The protocol of the built-in models. A user's own has a smaller door: ``own_model.py``.

    ``parameters`` and ``gradient`` are mappings of name to array, views into flat vectors of the configured dtype, in
    which a name keeps its array. ``parameters`` must not be changed.

    Attributes
    ----------
    name : str
        For people, and in checkpoints; ``str(model)`` may say more.
    shapes : mapping of str to shape
        Parameters in forward order.
    inputs : mapping of str to Input
        The arrays of ``Batch.inputs`` that are read, with their kind and the shape of one row.
    task : str
        Name in the registry of tasks: what the outputs are.
    kernels : sequence of Kernel
        Those that it calls, to be compiled by all ranks side by side before the first step. One that is left out is compiled
        at its first call.
    reads_in_place : bool
        True if the model indexes ``batch.x`` by ``batch.places``; rows are then not copied.
    asks_for_parameters : bool
        True if ``sync.need(name)`` is called before a parameter is read; a step may then begin before the last one's
        sums have all arrived.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    inputs: Mapping[str, Input]
    task: str
    kernels: Sequence[Kernel]
    reads_in_place: bool
    asks_for_parameters: bool

    def initialise(self, parameters: Views, seed: int) -> None:
        """Fill ``parameters``, a function of ``seed`` alone."""

    def loss_and_gradient(
        self, parameters: Views, batch: Batch, gradient: Views, sync: Sync
    ) -> Sums:
        """Fill every array of ``gradient``; return loss and correct count. All are sums over the batch, not means.

        Random numbers are a function of ``batch.draw`` and ``batch.rows``, never of a generator with a state: then the
        weights do not depend on the number of ranks.
        """

    def evaluate(self, parameters: Views, batch: Batch, predicted: np.ndarray) -> float:
        """Fill ``predicted`` as the task wants it (``Task.room_for``); return the summed loss."""

    def predict(self, parameters: Views, batch: Batch, outputs: np.ndarray) -> None:
        """Fill ``outputs``, shape (rows, outputs): probabilities of the classes, or predicted targets."""
