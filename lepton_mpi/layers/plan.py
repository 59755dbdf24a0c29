"""What a network does to batches of one row count, call by call, and where each array lies: made once, before the first step.

The calls of a training step are written down in order, forward, loss, backward, each with the arrays that it reads and
fills. An array lives from the first call that has it to the last; arrays that never live at once may have the same
addresses in one arena. So the memory of a step is known before it is made, and recomputation is a change of the list, as
is ``packing.py``:

    call   forward        loss   backward
           a  b  c  d     L      d'  c'  b'  a'
    a/out  |-----------------------------|             kept, since b' needs it
    b/out     |--|                                     with --recompute, and filled a second time, before c' reads it

What works element by element works in place; the gradient by a value that several layers read is added up as they are done.
Where they lie: ``placement.py``.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.compose import Graph, Node
from lepton_mpi.layers.layer import Head, Join, Layer, Memory, Shape
from lepton_mpi.layers.placement import Buffer, place
from lepton_mpi.layers.storage import Storage
from lepton_mpi.wording import size_text

Key = tuple[Any, ...]


class Ref(NamedTuple):
    """An array of a call: the buffer that it lies in, ``("input", number)`` for one of the batch, and its shape."""

    key: Key
    shape: Shape


class Call(NamedTuple):
    """One entry of the list. An ``unread`` array has its shape and no buffer: its key is ``()``.

    Attributes
    ----------
    does : {"forward", "backward", "head", "add", "pack", "unpack"}
        add: ``out = xs[0] + xs[1]``. pack, unpack: ``out = xs[0]`` in bfloat16, and back.
    node : Node
        The layer; of an addition the one that read the value whose gradient it is; of packing the one that it is for.
    xs, out, grad_out, grad_xs, memory
        As in ``layer.Arrays``.
    shared : dict of str to Ref
        Gradients of parameters, by the layer's own names, that are added to what another layer has filled.
    completes : tuple of str
        The network's names of parameters whose gradient is filled after this call.
    """

    does: Literal["forward", "backward", "head", "add", "pack", "unpack"]
    node: Node
    xs: tuple[Ref, ...]
    out: Ref | None = None
    grad_out: Ref | None = None
    grad_xs: tuple[Ref | None, ...] = ()
    memory: dict[str, Ref] = {}  # noqa: RUF012  never changed
    shared: dict[str, Ref] = {}  # noqa: RUF012
    completes: tuple[str, ...] = ()

    def refs(self) -> Iterable[Ref]:
        """All arrays in buffers."""
        one = (self.out, self.grad_out)
        several = (*self.xs, *self.grad_xs, *self.memory.values(), *self.shared.values())
        return (ref for ref in (*several, *one) if ref and ref.key and ref.key[0] != "input")


class Wanted(NamedTuple):
    """A value and, of a plan for training, the gradient of the loss by it: in buffers that nothing writes over."""

    value: Ref
    gradient: Ref | None


@dataclass
class Plan:
    """See the module.

    Attributes
    ----------
    rows : int
    calls : list of Call
    buffers : dict of Key to Buffer
    lasting : dict of Key to Buffer
        Arrays beside the arena, which live as long as the plan.
    arena_bytes : int
    """

    rows: int
    calls: list[Call] = field(default_factory=list)
    buffers: dict[Key, Buffer] = field(default_factory=dict)
    lasting: dict[Key, Buffer] = field(default_factory=dict)
    arena_bytes: int = 0
    wanted: dict[int, Wanted] = field(default_factory=dict)

    @property
    def byte_count(self) -> int:
        """Of the arena and what lies beside it."""
        return self.arena_bytes + sum(buffer.byte_count for buffer in self.lasting.values())

    def lines(self) -> list[str]:
        """A line for each array, for people, and one for all of them."""
        found = sorted([*self.buffers.values(), *self.lasting.values()], key=lambda b: b.first)
        alone = sum(buffer.byte_count for buffer in found)
        lines = [
            f"{buffer.name}: {'x'.join(map(str, buffer.shape)) or 1} {buffer.holds or buffer.dtype}, "
            f"{size_text(buffer.byte_count)}, calls {buffer.first} to {buffer.last}"
            for buffer in found
        ]
        total = f"{self.rows} rows: {len(found)} arrays in {size_text(self.byte_count)}, {size_text(alone)} without reuse"
        return [*lines, f"{total}, {len(self.calls)} calls"]


def make_plan(
    graph: Graph,
    rows: int,
    dtype: np.dtype[Any],
    training: bool = True,
    recompute: int = 0,
    wanted: Collection[int] = (),
    frozen: Collection[str] = (),
) -> Plan:
    """Write down the calls and place the arrays.

    Parameters
    ----------
    training : bool
        False: no gradients; the head's call is there, for its evaluation.
    recompute : int
        Parts of the outermost ``Sequential`` that make a segment: of a segment only what others read is kept, and the rest is
        computed again before its backward pass. 0: everything is kept.
    wanted : collection of int
        Numbers of values, inputs of numbers among them, that the caller reads after the last call, with the gradient by each:
        for interpretation. With ``recompute`` there are none. Raises ConfigurationError for an input of codes, or that nobody reads.
    frozen : collection of str
        Parameters without a gradient: layers that nothing before or in them is trained of have no backward pass.
    """
    writer = _Writer(graph, rows, dtype, recompute if training else 0, wanted, frozen)
    for node in graph.nodes:
        writer.forward(node, again=False)
    writer.head(training)
    if training:
        for segment in reversed(range(writer.storage.segment_count)):
            own = [n for n in reversed(graph.nodes) if writer.storage.segment_of(n) == segment]
            if any(map(writer.has_backward, own)):
                writer.recompute(segment)
            for node in own:
                writer.backward(node)
    writer.keep(wanted, training)
    plan = writer.plan
    plan.arena_bytes = place(list(plan.buffers.values()))
    return plan


class _Writer:
    """Appends calls to a plan, and keeps the books of gradients."""

    def __init__(
        self,
        graph: Graph,
        rows: int,
        dtype: np.dtype[Any],
        recompute: int,
        wanted: Collection[int],
        frozen: Collection[str],
    ) -> None:
        assert not (recompute and wanted), (
            "a value of a part that is computed again has two buffers"
        )
        self.graph, self.rows, self.dtype, self._wanted = graph, rows, dtype, set(wanted)
        self._frozen = frozenset(frozen)
        self.storage = Storage(graph, recompute, wanted)
        self.plan = Plan(rows)
        # The gradient so far by a value, and whether nothing else needs its memory.
        self._gradients: dict[int, tuple[Ref, bool]] = {}
        self._has_gradient = self._values_with_gradient()
        # Who has no backward pass never fills a gradient.
        computed = [*filter(self.has_backward, graph.nodes), graph.head]
        users = [name for node in computed for name in node.parameters.values()]
        self._unfilled = tuple(name for name in graph.parameters if name not in users)
        self._missing = {name: users.count(name) for name in users}
        self._filled: set[str] = set()
        self._number = 0

    def forward(self, node: Node, again: bool) -> None:
        """The first time, or the second."""
        layer = node.layer
        if layer is None:
            return
        memory = {}
        if not isinstance(layer, Join):
            memory = self._memory(node, ("kept", "scratch", "plan"), "forward", again)
        xs = tuple(self._value(value, node, again) for value in node.inputs)
        self._append(
            Call("forward", node, xs, self._value(node.output, node, again), memory=memory)
        )

    def head(self, training: bool) -> None:
        """The loss; with ``training`` also the gradient by its input."""
        node = self.graph.head
        head, (value,) = cast(Head, node.layer), node.inputs
        x = self._value(value, node, False)
        lives = ("kept", "scratch", "plan", *(("backward",) if training else ()))
        call = Call("head", node, (x,), memory=self._memory(node, lives, "head", False))
        if not training:
            self._append(call)
            return
        is_free = head.in_place and self.storage.is_free_after_head
        grad_x = x if is_free else self._new(f"gradient by {node.name}/x", x.shape)
        call = self._with_parameters(call._replace(grad_xs=(grad_x,)))
        self._append(call._replace(completes=(*call.completes, *self._unfilled)))
        self._contribute(node, value, grad_x, True)

    def recompute(self, segment: int) -> None:
        """What of a segment is to be computed again before its backward pass."""
        for node in self.storage.again(segment):
            self.forward(node, again=True)

    def has_backward(self, node: Node) -> bool:
        """Whether anybody wants a gradient of it."""
        if node.layer is None:
            return False
        return self._is_trained(node) or any(self._has_gradient[value] for value in node.inputs)

    def backward(self, node: Node) -> None:
        """Unless nobody wants a gradient of it."""
        layer, wanted = node.layer, [self._has_gradient[value] for value in node.inputs]
        if layer is None or not self.has_backward(node):
            return
        grad_out, is_own = self._gradients[self.storage.view_root(node.output)]
        grad_out = Ref(grad_out.key, self._shape(node.output))
        # Whoever wants a gradient wants it as it is.
        is_own = is_own and not self.storage.is_wanted(node.output)
        if isinstance(layer, Join) and layer.passes_gradient:
            for value, is_wanted in zip(node.inputs, wanted, strict=True):
                if is_wanted:
                    self._contribute(node, value, grad_out, is_own and sum(wanted) == 1)
            return
        again = self.storage.is_recomputed(self.storage.segment_of(node))
        refs = [self._value(value, node, again) for value in node.inputs]
        needs_out, in_place, memory = False, False, {}
        if not isinstance(layer, Join):
            layer = cast(Layer, layer)
            needs_out, in_place = layer.needs_out, layer.in_place and is_own
            lives = ("kept", "scratch", "backward", "plan", *(("grad_x",) if any(wanted) else ()))
            memory = self._memory(node, lives, "backward", again)
        grad_xs = tuple(
            (grad_out if in_place else self._new(f"gradient by {node.name}/x", ref.shape))
            if is_wanted
            else None
            for ref, is_wanted in zip(refs, wanted, strict=True)
        )
        xs = tuple(ref if layer.needs_x else Ref((), ref.shape) for ref in refs)
        out = self._value(node.output, node, again) if needs_out else Ref((), grad_out.shape)
        call = Call("backward", node, xs, out, grad_out, grad_xs, memory)
        self._append(self._with_parameters(call))
        for value, grad_x in zip(node.inputs, grad_xs, strict=True):
            if grad_x:
                self._contribute(node, value, grad_x, True)

    def keep(self, wanted: Collection[int], training: bool) -> None:
        """Let these values, and the gradients by them, live to the end. After all calls."""
        for value in wanted:
            found = Ref(self.storage.key(value, self.graph.head, False), self._shape(value))
            gradient = None
            if training:
                root = self.storage.view_root(value)
                if root not in self._gradients:
                    raise ConfigurationError("gradient by an input: expected one that is read")
                whole, _ = self._gradients[root]
                gradient = Ref(whole.key, found.shape)
            for ref in (found, *([gradient] if gradient else [])):
                if ref.key in self.plan.buffers:  # an input is the caller's
                    self.plan.buffers[ref.key].last = len(self.plan.calls)
            self.plan.wanted[value] = Wanted(found, gradient)

    def _with_parameters(self, call: Call) -> Call:
        """Where the gradients of its parameters go, and which are complete then."""
        shared, completes = {}, []
        for own, name in call.node.parameters.items():
            if name in self._filled:
                shape = self.graph.parameters[name].shape
                shared[own] = self._new(f"gradient of {name}, by {call.node.name}", shape, False)
            self._filled.add(name)
            self._missing[name] -= 1
            if not self._missing[name]:
                completes.append(name)
        return call._replace(shared=shared, completes=tuple(completes))

    def _contribute(self, node: Node, value: int, ref: Ref, is_own: bool) -> None:
        """A part of the gradient by a value, which is added to what there is of it."""
        root = self.storage.view_root(value)
        if root in self._gradients:
            old, old_is_own = self._gradients[root]
            target = ref if is_own else old
            if not (is_own or old_is_own):
                target = self._new(f"gradient by {node.name}/x, summed", ref.shape)
            parts = tuple(Ref(part.key, ref.shape) for part in (old, ref))
            self._append(Call("add", node, parts, Ref(target.key, ref.shape)))
            ref, is_own = target, True
        self._gradients[root] = ref, is_own

    def _values_with_gradient(self) -> list[bool]:
        """Of each value, whether a layer before it has parameters that are trained, or somebody wants the gradient by it or by one before it."""
        found = [value in self._wanted for value in range(len(self.graph.inputs))]
        for name, value in self.graph.inputs.items():
            if found[value] and self.graph.values[value].kind != "numbers":
                raise ConfigurationError(
                    f"gradient by the input {name}: expected numbers, got {self.graph.values[value].kind}"
                )
        for node in self.graph.nodes:
            is_wanted = node.output in self._wanted or self._is_trained(node)
            found.append(is_wanted or any(found[value] for value in node.inputs))
        return found

    def _is_trained(self, node: Node) -> bool:
        return not self._frozen.issuperset(node.parameters.values())

    def _shape(self, value: int) -> Shape:
        return (self.rows, *self.graph.values[value].shape)

    def _value(self, value: int, reader: Node, again: bool) -> Ref:
        """The array of a value for a layer that reads or fills it."""
        key = self.storage.key(value, reader, again)
        if key[0] != "input" and key not in self.plan.buffers:
            filler = self.graph.nodes[key[1] - len(self.graph.inputs)]
            name = f"{filler.name}/out" + (", again" if key[2] else "")
            self._declare(key, name, self._shape(key[1]), self.dtype, rounds=True)
        return Ref(key, self._shape(value))

    def _memory(
        self, node: Node, lives: tuple[str, ...], phase: str, again: bool
    ) -> dict[str, Ref]:
        """What a layer works in during one call: arrays of these kinds."""
        layer = cast(Layer | Head, node.layer)
        refs = {}
        for name, memory in layer.memory(self.rows, self.graph.values[node.inputs[0]]).items():
            if memory.lives not in lives:
                continue
            ref = Ref(self._memory_key(node, name, memory, phase, again), memory.shape)
            dtype = np.dtype(memory.dtype) if memory.dtype else self.dtype
            label = f"{node.name}/{name}"
            if memory.lives == "plan":
                self.plan.lasting.setdefault(ref.key, Buffer(label, memory.shape, dtype, 0, 0))
            elif ref.key not in self.plan.buffers:
                self._declare(ref.key, label, memory.shape, dtype, memory.rounds)
            refs[name] = ref
        return refs

    def _memory_key(self, node: Node, name: str, memory: Memory, phase: str, again: bool) -> Key:
        key = ("memory", node.name, node.output, name)
        if memory.lives == "plan":
            return key
        return (*key, again) if memory.lives == "kept" else (*key, again, phase)

    def _new(self, name: str, shape: Shape, has_rows: bool = True) -> Ref:
        """A buffer of its own; ``shape`` is that of the whole array."""
        self._number += 1
        key = ("new", self._number)
        self._declare(key, name, shape, self.dtype)
        return Ref(key, shape)

    def _declare(
        self, key: Key, name: str, shape: Shape, dtype: np.dtype[Any], rounds: bool = False
    ) -> None:
        step = len(self.plan.calls)
        self.plan.buffers[key] = Buffer(name, shape, dtype, step, step, rounds=rounds)

    def _append(self, call: Call) -> None:
        step = len(self.plan.calls)
        for ref in call.refs():
            if ref.key in self.plan.buffers:
                self.plan.buffers[ref.key].last = step
        self.plan.calls.append(call)
