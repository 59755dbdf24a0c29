"""``Scored``: a trained network as a function of its rows, with gradients by whatever value of its graph is asked for.

    scored = Scored(network, parameters, wanted=[0])      of the first input
    found = scored.at(inputs, outputs)                    found.scores (rows,), found.gradients[0] (rows, …)

The score of a row is the output that ``outputs`` names, before any softmax (``layers/scores.py``). The pass is that of evaluation:
dropout keeps all, batch normalisation goes by its running statistics. An input of codes has no gradient; the value that an
embedding makes of it has, and may be replaced, so that a path between two rows is followed there.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.bound import Bound, Room, make_arena, make_lasting
from lepton_mpi.layers.layer import Array, When
from lepton_mpi.layers.plan import make_plan
from lepton_mpi.layers.scores import score_of
from lepton_mpi.models.network import Network
from lepton_mpi.vectors import Layout


class Found(NamedTuple):
    """Of a batch; arrays of its own.

    Attributes
    ----------
    scores : float64, shape (rows,)
    values, gradients : dict of int to array
        Of the values that were wanted; of an input there is the gradient alone.
    """

    scores: Array
    values: dict[int, Array]
    gradients: dict[int, Array]


class Scored:
    """See the module.

    Parameters
    ----------
    network : Network
    parameters : mapping of str to array
        Of one type, float32 or float64, which is that of the inputs, too.
    wanted : collection of int
        Numbers of values, see ``layers.plan.make_plan``.
    """

    def __init__(
        self, network: Network, parameters: Mapping[str, Array], wanted: Collection[int] = ()
    ) -> None:
        graph = network.graph
        self._head = score_of(graph.head.layer, graph.output)  # type: ignore[arg-type]
        self._graph, self._parameters, self._wanted = (
            graph.with_head(self._head),
            parameters,
            [*wanted],
        )
        self._dtype = next(iter(parameters.values())).dtype
        layout = Layout(network.shapes)
        self._gradient = layout.views(np.empty(layout.size, self._dtype))
        self._bounds: dict[int, Bound] = {}
        self._fillers = {node.output: node for node in self._graph.nodes}

    def at(
        self,
        inputs: tuple[Array, ...],
        outputs: Array,
        replaced: Mapping[int, Array] | None = None,
    ) -> Found:
        """One pass forward and backward.

        Parameters
        ----------
        inputs
            The network's, each of shape (rows, …).
        outputs : int32, shape (rows,), or (rows, length) of a model of tokens
            Which output is the score; below 0: none.
        replaced
            Numbers that stand in for those that the network computes of a wanted value.
        """
        rows = len(outputs)
        bound = self._bounds.get(rows) or self._bind(rows)
        bound.take(inputs, None)
        when = When(False)
        for step, (call, output) in zip(bound.before, self._order, strict=True):
            step.run(when)
            if replaced and call == "forward" and output in replaced:
                np.copyto(bound.value(output), replaced[output])
        scores = self._head.of_rows(bound.head_parameters, bound.head, outputs)
        bound.loss_and_gradient(outputs)
        for step in bound.after:
            step.run(when)
        values = {v: bound.value(v).copy() for v in self._wanted if v in self._fillers}
        return Found(scores, values, {v: bound.gradient_by(v).copy() for v in self._wanted})

    def _bind(self, rows: int) -> Bound:
        plan = make_plan(self._graph, rows, self._dtype, wanted=self._wanted)
        position = next(n for n, call in enumerate(plan.calls) if call.does == "head")
        self._order = [(call.does, call.node.output) for call in plan.calls[:position]]
        room = Room(make_arena(plan.arena_bytes), make_lasting(plan))
        bound = Bound(self._graph, plan, room, self._parameters, self._gradient)
        self._bounds[rows] = bound
        return bound


def values_of(
    network: Network,
    parameters: Mapping[str, Array],
    inputs: tuple[Array, ...],
    wanted: Collection[int],
) -> dict[int, Array]:
    """Values of a forward pass alone, as in evaluation; without the memory of a backward pass."""
    rows, graph = len(inputs[0]), network.graph
    dtype = next(iter(parameters.values())).dtype
    plan = make_plan(graph, rows, dtype, training=False, wanted=wanted)
    bound = Bound(
        graph, plan, Room(make_arena(plan.arena_bytes), make_lasting(plan)), parameters, None
    )
    bound.take(inputs, None)
    for step in bound.before:
        step.run(When(False))
    return {value: bound.value(value).copy() for value in wanted}


def value_of_layer(network: Network, name: str) -> int:
    """The value that the layer of this name gives. Raises ConfigurationError."""
    for node in network.graph.nodes:
        if node.name == name:
            return node.output
    names = ", ".join(node.name for node in network.graph.nodes)
    raise ConfigurationError(f"layer {name!r}: expected one of {names}")
