"""``Network``: a model made of layers over planned memory.

    Network("mlp", Sequential([Dense(128, "relu"), Dense(10)]), {"x": Input("numbers", (784,))}, CrossEntropy())

The graph of its layers (``layers/compose.py``) becomes a plan for each row count (``layers/plan.py``), in one arena for all of
them, and Python walks the plan's calls; all work is in the layers' kernels. A dense layer of one unit takes 5 us, forward
and backward: 3 us for calls of its four kernels, the rest for Python. In the fused ``layers/dense_stack.py`` it takes 0.5 us.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lepton_mpi.batch import Batch, Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import packing_kernels
from lepton_mpi.layers.bound import Bound, Room, make_arena, make_lasting
from lepton_mpi.layers.compose import Graph, Part
from lepton_mpi.layers.layer import Array, Head, Layer, Sums, Synchronised, When
from lepton_mpi.layers.losses import CrossEntropy
from lepton_mpi.layers.packing import pack
from lepton_mpi.layers.plan import Key, Plan, make_plan
from lepton_mpi.models.joint_step import JointStep, Meeting, meetings_of
from lepton_mpi.models.model import MicroBatch, Model
from lepton_mpi.sync import ALONE, Exchange, Sync
from lepton_mpi.vectors import Views

# Sets of arrays that are kept, for row counts and vectors of gradients.
_BOUND_MAX = 1_000


class Network(Model):
    """See the module.

    Parameters
    ----------
    name : str
    body : Part
        A layer, or layers put together; it begins with the first input.
    inputs : mapping of str to Input
        The batch's arrays by name. Rows may have another shape of as many elements.
    head : Head
        The loss.
    recompute : int
        Activations are kept for one in so many parts of the outermost ``Sequential``, and the others computed again in the
        backward pass; 0: all are kept.
    activations : {"dtype", "bfloat16"}
        How what is kept waits for the backward pass: of the parameters' type, or packed (``layers/packing.py``). Not with
        ``recompute``: masks of ReLU, computed again from rounded numbers, are others for some hundredths of the gradient.
    """

    asks_for_parameters = evaluates = True

    def __init__(
        self,
        name: str,
        body: Part,
        inputs: Mapping[str, Input],
        head: Head,
        recompute: int = 0,
        activations: str = "dtype",
    ) -> None:
        self.name, self.inputs, self.task = name, dict(inputs), head.task
        self._packs = activations == "bfloat16"
        if self._packs and recompute:
            raise ConfigurationError(
                f"model {name}: expected activations of bfloat16, or recomputation, got both"
            )
        self._graph, self._recompute = Graph(body, inputs, head, self._packs), recompute
        if not self._graph.parameters:
            raise ConfigurationError(f"model {name}: expected layers with parameters, got none")
        self.shapes = {key: found.shape for key, found in self._graph.parameters.items()}
        self.averaged = {
            key: found.averaged for key, found in self._graph.parameters.items() if found.averaged
        }
        self.decayed = [key for key, found in self._graph.parameters.items() if found.is_decayed]
        found = self._graph.parameters.items()
        self.outputs_first = [key for key, each in found if each.outputs_first]
        self._look_at_layers()
        self.reads_in_place = self._reads_rows() and not self.synchronised
        self._plans: dict[tuple[int, np.dtype[Any], bool], Plan] = {}
        self._lasting: dict[tuple[int, np.dtype[Any], bool], dict[Key, Array]] = {}
        self._meetings: list[Meeting] | None = None
        self._bounds: dict[tuple[int, int, bool, int, int], Bound] = {}
        self._numbers = np.arange(0)
        # One, or of micro-batches that are computed side by side one each.
        self._arenas = [make_arena(0)]

    def __str__(self) -> str:
        return f"{self.name}, {len(self._graph.nodes)} layers"

    def initialise(self, parameters: Views, seed: int) -> None:
        for index, (key, parameter) in enumerate(self._graph.parameters.items()):
            parameter.initial(parameters[key], seed, index)

    def freeze(self, names: Collection[str]) -> None:
        self.frozen = frozenset(names)
        for node in self._graph.nodes:
            if isinstance(node.layer, Layer):
                own = [own for own, name in node.parameters.items() if name in self.frozen]
                node.layer.freeze(own)
        self._look_at_layers()
        self._plans.clear()
        self._lasting.clear()
        self._meetings = None
        self._bounds.clear()

    def loss_and_gradient(
        self, parameters: Views, batch: Batch, gradient: Views, sync: Sync
    ) -> Sums:
        if self.synchronised:
            return self.loss_and_gradients(parameters, [MicroBatch(0, batch, gradient)], ALONE)
        bound = self._bind(parameters, batch, gradient)
        when = When(True, batch.draw, batch.rows)
        if sync.awaits or sync.follows:
            return _walk_in_sync(bound, batch.y, when, gradient, sync)
        for step in bound.before:
            step.run(when)
        sums = bound.loss_and_gradient(batch.y)
        for step in bound.after:
            step.run(when)
        return sums

    def loss_and_gradients(
        self, parameters: Views, micro_batches: Sequence[MicroBatch], exchange: Exchange
    ) -> Sums:
        bounds = [
            self._bind(parameters, each.batch, each.gradient, slot)
            for slot, each in enumerate(micro_batches)
        ]
        if self._meetings is None:
            # The plans of all numbers of rows have the same calls.
            plan = self.plan(1, next(iter(parameters.values())).dtype)
            self._meetings = meetings_of(plan, self._graph)
        return JointStep(micro_batches, bounds).run(self._meetings, exchange)

    def evaluate(self, parameters: Views, batch: Batch, predicted: Array) -> float:
        bound = self._outputs(parameters, batch)
        return bound.head_node.evaluate(bound.head_parameters, bound.head, batch.y, predicted)

    def predict(self, parameters: Views, batch: Batch, outputs: Array) -> None:
        bound = self._outputs(parameters, batch)
        bound.head_node.predict(bound.head_parameters, bound.head, outputs)

    def evaluate_and_predict(
        self, parameters: Views, batch: Batch, predicted: Array, outputs: Array
    ) -> float:
        bound = self._outputs(parameters, batch)
        bound.head_node.predict(bound.head_parameters, bound.head, outputs)
        return bound.head_node.evaluate(bound.head_parameters, bound.head, batch.y, predicted)

    @property
    def graph(self) -> Graph:
        """Its layers and the values between them, not to be changed."""
        return self._graph

    def weigh_classes(self, weights: Array) -> None:
        head = self._graph.head.layer
        if not isinstance(head, CrossEntropy) or "tokens" in self.inputs:
            super().weigh_classes(weights)
        else:
            head.weigh(weights)
            self.class_weights = weights
            self._look_at_layers()

    def memory_lines(self, rows: int, dtype: np.dtype[Any]) -> list[str]:
        return self.plan(rows, dtype).lines()

    def memory_bytes(self, batches: Iterable[tuple[int, bool]], dtype: np.dtype[Any]) -> int:
        """One arena for all, and what lives beside it."""
        plans = [self.plan(rows, dtype, training) for rows, training in batches]
        arena = max((plan.arena_bytes for plan in plans), default=0)
        return arena + sum(plan.byte_count - plan.arena_bytes for plan in plans)

    def plan(self, rows: int, dtype: np.dtype[Any], training: bool = True) -> Plan:
        """What a call on so many rows does, and the memory it takes, which is not made for it."""
        key = rows, dtype, training
        if key not in self._plans:
            plan = make_plan(*(self._graph, *key, self._recompute), frozen=self.frozen)
            self._plans[key] = pack(plan) if training and self._packs else plan
        return self._plans[key]

    def _look_at_layers(self) -> None:
        """What the network is because one of its layers is."""
        layers = [node.layer for node in [*self._graph.nodes, self._graph.head] if node.layer]
        of_packing = (packing_kernels.pack, packing_kernels.unpack) if self._packs else ()
        called = [each for layer in layers for each in layer.kernels]
        self.kernels = tuple(dict.fromkeys([*called, *of_packing]))
        self.mixes_rows = any(isinstance(each, Layer) and each.mixes_rows for each in layers)
        self.synchronised = any(isinstance(each, Synchronised) for each in layers)

    def _outputs(self, parameters: Views, batch: Batch) -> Bound:
        """With the forward pass of evaluation behind it."""
        bound = self._bind(parameters, batch, None)
        when = When(False)
        for step in bound.before:
            step.run(when)
        return bound

    def _bind(
        self, parameters: Views, batch: Batch, gradient: Views | None, slot: int = 0
    ) -> Bound:
        """The calls for a batch of this length on these vectors, which read this batch, in an arena."""
        rows = len(batch.y)
        key = rows, slot, gradient is not None, id(parameters), id(gradient)
        bound = self._bounds.get(key)
        if bound is None:
            bound = self._make_bound(rows, parameters, gradient, slot)
            # A name of ``Views`` keeps its array; other mappings may change. A Bound keeps them alive, so ids stay theirs.
            if isinstance(parameters, Views) and isinstance(gradient, Views | None):
                if len(self._bounds) >= _BOUND_MAX:
                    self._bounds.clear()
                self._bounds[key] = bound
        places = None
        if self.reads_in_place:
            places = self._numbers[:rows] if batch.places is None else batch.places
        bound.take(self._arrays(batch), places)
        return bound

    def _arrays(self, batch: Batch) -> tuple[Array, ...]:
        """Of the inputs, in their order; of a single one ``Batch.x``, whatever its name."""
        if len(self.inputs) > 1:
            named = batch.inputs
            return tuple(named[name] for name in self.inputs)
        x = batch.x
        return (x.reshape(len(x), -1) if self.reads_in_place and x.ndim != 2 else x,)

    def _make_bound(self, rows: int, parameters: Views, gradient: Views | None, slot: int) -> Bound:
        dtype = next(iter(parameters.values())).dtype
        for views in filter(None, (parameters, gradient)):
            _check_arrays(views, self.shapes, dtype)
        key = rows, dtype, gradient is not None
        plan = self.plan(*key)
        if key not in self._lasting:
            self._lasting[key] = make_lasting(plan)
        while slot >= len(self._arenas):
            self._arenas.append(make_arena(0))
        if plan.arena_bytes > self._arenas[slot].size:
            # Those that are in use just now keep their memory.
            self._bounds.clear()
            # First, so that the old one and the new are never there at once.
            self._arenas[slot] = make_arena(0)
            self._arenas[slot] = make_arena(plan.arena_bytes)
        if rows > self._numbers.size:
            self._numbers = np.arange(rows)
        room = Room(self._arenas[slot], self._lasting[key])
        return Bound(self._graph, plan, room, parameters, gradient)

    def _reads_rows(self) -> bool:
        """Whether whoever reads the only input can do it where the rows lie."""
        readers = [node.layer for node in self._graph.nodes if 0 in node.inputs]
        (x, *others) = self.inputs.values()
        is_flat = len(x.shape) == 1 and not others and 0 not in self._graph.head.inputs
        return is_flat and all(isinstance(each, Layer) and each.reads_rows for each in readers)


def _walk_in_sync(bound: Bound, y: Array, when: When, gradient: Views, sync: Sync) -> Sums:
    """The calls of a step, with what they wait for and whom they tell."""

    def ask(names: Iterable[str]) -> None:
        if sync.awaits:
            for name in names:
                sync.need(name)

    def tell(names: Iterable[str]) -> None:
        if sync.follows:
            for name in names:
                sync.done(name)

    for step in bound.before:
        ask(step.needs)
        step.run(when)
    ask(bound.head_needs)
    sums = bound.loss_and_gradient(y)
    tell(bound.head_completes)
    for step in bound.after:
        step.run(when)
        tell(step.completes)
    return sums


def _check_arrays(
    views: Mapping[str, Array], shapes: Mapping[str, Sequence[int]], dtype: np.dtype[Any]
) -> None:
    """Whether they are what the kernels take them for."""
    for name, shape in shapes.items():
        array = views[name]
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(
                f"{name}: expected a contiguous array of {dtype} and shape {shape}, got {array.dtype}, shape "
                f"{array.shape}, strides {array.strides}"
            )
