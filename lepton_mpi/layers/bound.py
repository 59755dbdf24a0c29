"""A plan with memory: its calls, ready to be made in each step, on arrays that are made once.

Each array is one object for each buffer and shape, so that ``grad_x is x`` says what is in place.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lepton_mpi.layers import packing_kernels
from lepton_mpi.layers.compose import Graph, Node
from lepton_mpi.layers.layer import Array, Arrays, Head, Layer, Synchronised, When, unread
from lepton_mpi.layers.placement import Buffer
from lepton_mpi.layers.plan import Call, Key, Plan, Ref

Views = Mapping[str, Array]


class Told(NamedTuple):
    """What a call of a ``Synchronised`` layer waits for: ``tell(when, part)`` of all micro-batches, and then ``whole``, to be filled."""

    tell: Callable[[When, Array], None]
    whole: Array


class Step(NamedTuple):
    """A call of a plan that can be made.

    Attributes
    ----------
    run : callable
        ``run(when)``
    needs, completes : tuple of str
        Parameters that it reads, and those whose gradient is filled after it.
    meeting : Told or None
        What comes first, in training.
    """

    run: Callable[[When], object]
    needs: tuple[str, ...]
    completes: tuple[str, ...]
    meeting: Told | None = None


class Reader(NamedTuple):
    """A call that reads inputs of the network: positions in its ``xs``, and of each the input's number and shape of a row."""

    at: Arrays
    inputs: tuple[tuple[int, int, tuple[int, ...]], ...]


class Room(NamedTuple):
    """Memory of a plan.

    Attributes
    ----------
    arena : uint8, shape (at least plan.arena_bytes,)
        Plans of which one runs at a time may share it.
    lasting : dict of Key to array
        What lives beside it, from call to call.
    """

    arena: NDArray[np.uint8]
    lasting: dict[Key, Array]


class Bound:
    """The calls of a plan in its memory, and on parameters and gradients.

    Parameters
    ----------
    parameters, gradient
        Mappings of which each name keeps its array; no gradient in evaluation.

    Attributes
    ----------
    before, after : list of Step
        Before and after the head's call.
    head : Arrays
        Of the head's call, whose own parameters are ``head_parameters`` and ``head_gradient``.
    """

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        room: Room,
        parameters: Views,
        gradient: Views | None,
    ) -> None:
        self._graph, self._room, self._rows = graph, room, plan.rows
        self._buffers, self._parameters, self._gradient = plan.buffers, parameters, gradient
        self._wanted = plan.wanted
        self._readers: list[Reader] = []
        self._made: dict[Ref, Array] = {}
        position = next(n for n, call in enumerate(plan.calls) if call.does == "head")
        self.before = [self._step(call) for call in plan.calls[:position]]
        head = plan.calls[position]
        self.head_node, self.head = cast(Head, head.node.layer), self._arrays(head)
        self.head_parameters, self.head_gradient = self._own(head.node), self._gradients(head)
        self._head_step = self._finish(head)
        self.head_completes, self.head_needs = head.completes, tuple(head.node.parameters.values())
        self.after = [self._step(call) for call in plan.calls[position + 1 :]]

    def take(self, inputs: tuple[Array, ...], places: NDArray[np.int64] | None) -> None:
        """Let the calls read these arrays of a batch; with ``places`` those are rows of tables, see ``Arrays.places``."""
        for at, numbers in self._readers:
            xs = list(at.xs)
            for position, number, shape in numbers:
                x = inputs[number]
                xs[position] = x if places is not None else x.reshape(self._rows, *shape)
            at.xs, at.x, at.places = tuple(xs), xs[0], places

    def value(self, number: int) -> Array:
        """Of those that the plan was asked for: its numbers, until the next batch. Not of an input, which is the batch's."""
        return self._array(self._wanted[number].value)

    def gradient_by(self, number: int) -> Array:
        """The gradient of the loss by such a value, inputs among them, until the next batch. In a plan for training."""
        gradient = self._wanted[number].gradient
        assert gradient is not None, "of a plan for training"
        return self._array(gradient)

    def loss_and_gradient(self, y: Array) -> tuple[float, float]:
        """The head's call, in training."""
        sums = self.head_node.loss_and_gradient(
            self.head_parameters, self.head, self.head_gradient, y
        )
        for add in self._head_step:
            add()
        return sums

    def _step(self, call: Call) -> Step:
        node, needs = call.node, tuple(call.node.parameters.values())
        if call.does == "add":
            a, b = (self._flat(ref) for ref in call.xs)
            out = self._flat(cast(Ref, call.out))
            return Step(lambda when: np.add(a, b, out=out), (), ())
        if call.does in ("pack", "unpack"):
            turn = packing_kernels.pack if call.does == "pack" else packing_kernels.unpack
            given, filled = self._flat(call.xs[0]), self._flat(cast(Ref, call.out))
            return Step(lambda when: turn(given, filled), (), ())
        at, layer = self._arrays(call), cast(Layer, node.layer)
        own, meeting = self._own(node), None
        if isinstance(layer, Synchronised) and self._gradient is not None:
            tell = layer.tell_forward if call.does == "forward" else layer.tell_backward
            meeting = Told(partial(tell, own, at), at.memory["whole"])
        if call.does == "forward":
            return Step(partial(layer.forward, own, at), needs, (), meeting)
        backward = partial(layer.backward, own, at, self._gradients(call))
        adds = self._finish(call)
        if not adds:
            return Step(backward, needs, call.completes, meeting)

        def run(when: When) -> None:
            backward(when)
            for add in adds:
                add()

        return Step(run, needs, call.completes, meeting)

    def _arrays(self, call: Call) -> Arrays:
        xs = tuple(self._array(ref) for ref in call.xs)
        node, out = call.node, self._array(call.out) if call.out else unread(())
        at = Arrays(xs, out, node.number)
        if call.grad_out:
            at.grad_out = self._array(call.grad_out)
        at.grad_xs = tuple(ref and self._array(ref) for ref in call.grad_xs)
        at.grad_x = at.grad_xs[0] if at.grad_xs else None
        at.memory = {name: self._array(ref) for name, ref in call.memory.items()}
        inputs = tuple(
            (position, ref.key[1], ref.shape[1:])
            for position, ref in enumerate(call.xs)
            if ref.key and ref.key[0] == "input"
        )
        if inputs:
            self._readers.append(Reader(at, inputs))
        return at

    def _array(self, ref: Ref) -> Array:
        """At its address; the batch's arrays come with each batch."""
        if not ref.key or ref.key[0] == "input":
            return unread(ref.shape)
        if ref.key in self._room.lasting:
            return self._room.lasting[ref.key]
        if ref not in self._made:
            self._made[ref] = _at(self._room.arena, self._buffers[ref.key]).reshape(ref.shape)
        return self._made[ref]

    def _flat(self, ref: Ref) -> Array:
        return self._array(ref).reshape(-1)

    def _own(self, node: Node) -> dict[str, Array]:
        return {own: self._parameters[name] for own, name in node.parameters.items()}

    def _gradients(self, call: Call) -> dict[str, Array]:
        if self._gradient is None:
            return {}
        return {
            own: self._array(call.shared[own]) if own in call.shared else self._gradient[name]
            for own, name in call.node.parameters.items()
        }

    def _finish(self, call: Call) -> list[Callable[[], Any]]:
        """Additions of gradients that another layer has filled before."""
        adds: list[Callable[[], Any]] = []
        for own, ref in call.shared.items():
            assert self._gradient is not None
            total = self._gradient[call.node.parameters[own]]
            adds.append(partial(np.add, total, self._array(ref), out=total))
        return adds


def _at(arena: NDArray[np.uint8], buffer: Buffer) -> Array:
    return arena[buffer.offset : buffer.offset + buffer.byte_count].view(buffer.dtype)


def make_lasting(plan: Plan) -> dict[Key, Array]:
    """Zeros."""
    return {key: np.zeros(buffer.shape, buffer.dtype) for key, buffer in plan.lasting.items()}


def make_arena(byte_count: int) -> NDArray[np.uint8]:
    """Memory whose first byte begins a cache line. Nothing is written to it."""
    memory = np.empty(byte_count + 63, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + byte_count]
