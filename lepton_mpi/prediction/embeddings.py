"""Activations of a layer, as in evaluation: ``--embeddings LAYER``."""

from math import prod

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.interpretation.scored import value_of_layer
from lepton_mpi.layers.bound import Bound, Room, make_arena, make_lasting
from lepton_mpi.layers.layer import Array, When
from lepton_mpi.layers.plan import make_plan
from lepton_mpi.models.as_network import as_network
from lepton_mpi.models.model import Model
from lepton_mpi.vectors import Views


class Embeddings:
    """What the layer called ``layer`` gives for a row, flattened.

    Attributes
    ----------
    width : int

    Raises
    ------
    ConfigurationError
        For a model that is no network, or that has no such layer: the message lists those that there are.
    """

    def __init__(self, model: Model, parameters: Views, layer: str) -> None:
        try:
            self._network, self._parameters = as_network(model, parameters)
            self._value = value_of_layer(self._network, layer)
        except ConfigurationError as error:
            raise ConfigurationError(f"--embeddings: {error}") from None
        self._dtype = next(iter(parameters.values())).dtype
        self._bounds: dict[int, Bound] = {}
        self.width = prod(self._bound(1).value(self._value).shape[1:])

    def of(self, batch: Batch, out: Array) -> None:
        """Fill ``out``, shape (rows, width)."""
        network, rows = self._network, len(batch.y)
        bound = self._bound(rows)
        names = network.inputs
        arrays = [batch.x] if len(names) == 1 else [batch.inputs[name] for name in names]
        specs = names.values()
        bound.take(
            tuple(a.reshape(rows, *spec.shape) for a, spec in zip(arrays, specs, strict=True)), None
        )
        for step in bound.before:
            step.run(When(False))
        np.copyto(out, bound.value(self._value).reshape(rows, -1))

    def _bound(self, rows: int) -> Bound:
        """Calls for so many rows: batches have few lengths."""
        if rows not in self._bounds:
            graph = self._network.graph
            plan = make_plan(graph, rows, self._dtype, training=False, wanted=[self._value])
            room = Room(make_arena(plan.arena_bytes), make_lasting(plan))
            self._bounds[rows] = Bound(graph, plan, room, self._parameters, None)
        return self._bounds[rows]
