"""How layers are put together, and the graph that comes of it.

    Sequential([Dense(128, "relu"), Dense(10)])                     one after the other
    Residual(Sequential([…]))                                       x + body(x)
    Parallel([From("numbers", Dense(8)), From("codes", …)])         branches, side by side in the last dimension
    Parallel([a, b], Sum())                                         branches, added up; {"wide": a, "deep": b} names them
    Tied(Dense(vocabulary), {"weight": "embedding/weight"})         a parameter of another layer
    the same layer twice                                            the same parameters twice

A parameter is called after the way to its layer: ``layer0/weight``, or with names, ``{"stem": …}``, ``stem/weight``.
"""

from collections.abc import Iterable, Mapping
from copy import copy
from math import prod
from typing import NamedTuple

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.activation import Activation
from lepton_mpi.layers.layer import Array, Arrays, Head, Join, Layer, Parameter, Shape, When


class Composite:
    """Layers put together: inherit from it."""

    def lay(self, graph: "Graph", value: int, path: str) -> int:
        """Append layers that begin with ``value``, by names that begin with ``path``; returns the value that they give."""
        raise NotImplementedError


Part = Layer | Composite


class Node(NamedTuple):
    """One layer of a graph.

    Attributes
    ----------
    name : str
    layer : Layer, Join, Head, or None
        None only looks at its input in another shape.
    inputs, output
        Numbers of values; a head has no output, -1.
    parameters : dict of str to str
        The layer's own name of each to the network's.
    block : int
        Number of the part of the outermost ``Sequential`` that it belongs to.
    number : int
        What the layer's random numbers go by: its place in the graph, whether layers before it are apart from their ReLU or not.
    """

    name: str
    layer: Layer | Join | Head | None
    inputs: tuple[int, ...]
    output: int
    parameters: dict[str, str]
    block: int
    number: int


class Graph:
    """Layers in the order of the forward pass, with numbered values between them.

    Parameters
    ----------
    rounds : bool
        Whether values are rounded between the passes: layers are then apart from their ReLU (``Layer.before_relu``).

    Attributes
    ----------
    values : list of Input
        The inputs come first.
    inputs : dict of str to int
        Name to value.
    nodes : list of Node
        Without the head.
    head : Node
    parameters : dict of str to Parameter
        In forward order.
    """

    def __init__(
        self, body: Part, inputs: Mapping[str, Input], head: Head, rounds: bool = False
    ) -> None:
        self.values = list(inputs.values())
        self.inputs = {name: number for number, name in enumerate(inputs)}
        self.nodes: list[Node] = []
        self.parameters: dict[str, Parameter] = {}
        self._paths: dict[int, str] = {}  # of layers, by identity: nodes keep them alive
        self.block, self._rounds, self._number = 0, rounds, 0
        output = self.lay(body, 0, "")
        own = self._name_parameters(head.parameters(self.values[output]), "head", head.tied)
        self.head = Node("head", head, (output,), -1, own, self.block, -1)
        read = {value for node in [*self.nodes, self.head] for value in node.inputs}
        for node in self.nodes:
            if node.output not in read:
                raise ConfigurationError(f"{node.name}: expected a layer that reads it, got none")

    def with_head(self, head: Head) -> "Graph":
        """The same layers, with another end that has the same parameters, or none."""
        other = copy(self)
        own = {name: self.head.parameters[name] for name in head.parameters(self.output)}
        other.head = self.head._replace(layer=head, parameters=own)
        return other

    @property
    def output(self) -> Input:
        """What the head reads."""
        return self.values[self.head.inputs[0]]

    def lay(self, part: Part, value: int, path: str) -> int:
        """Append a layer, or several."""
        if isinstance(part, Composite):
            return part.lay(self, value, path)
        return self.lay_layer(part, value, path, {})

    def lay_layer(self, layer: Layer, value: int, path: str, tied: Mapping[str, str]) -> int:
        """Append one layer; ``tied`` names parameters that it does not have itself."""
        x = self.values[value]
        first_path = self._paths.setdefault(id(layer), path or "layer0")
        own = self._name_parameters(layer.parameters(x), first_path, tied)
        before_relu = layer.before_relu() if self._rounds else None
        if before_relu is None:
            return self._append(path, layer, (value,), layer.out_shape(x), own)
        value = self._append(path, before_relu, (value,), layer.out_shape(x), own)
        self._number -= 1
        relu, shape = Activation("relu"), self.values[value].shape
        return self._append(_below(path or "layer0", "relu"), relu, (value,), shape, {})

    def lay_join(self, join: Join, values: tuple[int, ...], path: str) -> int:
        """Append a place where branches meet."""
        shape = join.out_shape(tuple(self.values[value] for value in values))
        return self._append(path, join, values, shape, {})

    def lay_view(self, value: int, shape: Shape, path: str) -> int:
        """The same numbers in another shape."""
        if prod(shape) != prod(self.values[value].shape):
            raise ConfigurationError(
                f"{path}: expected as many numbers as shape {self.values[value].shape} has, got {shape}"
            )
        return self._append(path, None, (value,), shape, {})

    def _append(
        self,
        path: str,
        layer: Layer | Join | None,
        values: tuple[int, ...],
        shape: Shape,
        own: dict[str, str],
    ) -> int:
        output = len(self.values)
        self.values.append(Input("numbers", tuple(shape)))
        node = Node(path or "layer0", layer, values, output, own, self.block, self._number)
        self.nodes.append(node)
        self._number += 1
        return output

    def _name_parameters(
        self, found: Mapping[str, Parameter], path: str, tied: Mapping[str, str]
    ) -> dict[str, str]:
        """The layer's own names to the network's, which are added if they are new."""
        own = {name: tied.get(name, f"{path}/{name}") for name in found}
        for name, parameter in found.items():
            known = self.parameters.setdefault(own[name], parameter)
            if known.shape != parameter.shape:
                raise ConfigurationError(
                    f"{path}/{name}: expected the shape of {own[name]}, {known.shape}, got {parameter.shape}"
                )
        return own


class Sequential(Composite):
    """Parts one after the other, named ``layer0``, ``layer1``, … or by the keys of a mapping."""

    def __init__(self, parts: Iterable[Part] | Mapping[str, Part]) -> None:
        if isinstance(parts, Mapping):
            self.parts: dict[str, Part] = dict(parts)
        else:
            self.parts = {f"layer{number}": part for number, part in enumerate(parts)}

    def lay(self, graph: Graph, value: int, path: str) -> int:
        for block, (name, part) in enumerate(self.parts.items()):
            if not path:
                graph.block = block
            value = graph.lay(part, value, _below(path, name))
        return value


class Residual(Composite):
    """``body(x) + x``, or ``+ shortcut(x)``. Source: He et al., "Deep residual learning", CVPR 2016."""

    def __init__(self, body: Part, shortcut: Part | None = None) -> None:
        self.body, self.shortcut = body, shortcut

    def lay(self, graph: Graph, value: int, path: str) -> int:
        beside = value
        if self.shortcut is not None:
            beside = graph.lay(self.shortcut, value, _below(path, "shortcut"))
        result = graph.lay(self.body, value, _below(path, "body"))
        return graph.lay_join(Sum(), (result, beside), _below(path, "sum"))


class Parallel(Composite):
    """Branches that begin with the same value, or with an input (``From``), and meet in ``join``.

    They are named ``branch0``, ``branch1``, … or by the keys of a mapping.
    """

    def __init__(
        self, branches: Iterable[Part] | Mapping[str, Part], join: Join | None = None
    ) -> None:
        if isinstance(branches, Mapping):
            self.branches: dict[str, Part] = dict(branches)
        else:
            self.branches = {f"branch{number}": branch for number, branch in enumerate(branches)}
        self.join = join or Concatenate()

    def lay(self, graph: Graph, value: int, path: str) -> int:
        ends = tuple(
            graph.lay(branch, value, _below(path, name)) for name, branch in self.branches.items()
        )
        return graph.lay_join(self.join, ends, _below(path, "join"))


class From(Composite):
    """A part that begins with the network's input ``name``."""

    def __init__(self, name: str, part: Part) -> None:
        self.name, self.part = name, part

    def lay(self, graph: Graph, value: int, path: str) -> int:
        if self.name not in graph.inputs:
            raise ConfigurationError(
                f"{path}: expected one of the inputs {', '.join(graph.inputs)}, got {self.name!r}"
            )
        return graph.lay(self.part, graph.inputs[self.name], path)


class Tied(Composite):
    """A layer of which some parameters, by its own names, are those of other layers, by the network's names."""

    def __init__(self, layer: Layer, names: Mapping[str, str]) -> None:
        self.layer, self.names = layer, names

    def lay(self, graph: Graph, value: int, path: str) -> int:
        return graph.lay_layer(self.layer, value, path, self.names)


class Reshape(Composite):
    """The same numbers of a row in another shape; no argument: flat."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def lay(self, graph: Graph, value: int, path: str) -> int:
        return graph.lay_view(value, self.shape or (prod(graph.values[value].shape),), path)


class Identity(Composite):
    """What comes in; a branch without a layer."""

    def lay(self, graph: Graph, value: int, path: str) -> int:
        return value


class Sum(Join):
    """Branches of one shape, added up in order."""

    passes_gradient = True

    def out_shape(self, xs: tuple[Input, ...]) -> Shape:
        shapes = {x.shape for x in xs}
        if len(shapes) != 1 or any(x.kind != "numbers" for x in xs):
            raise ConfigurationError(
                f"a sum of branches: expected numbers of one shape, got {[x.shape for x in xs]}"
            )
        return xs[0].shape

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        if len(at.xs) == 1:
            np.copyto(at.out, at.x)
            return
        np.add(at.xs[0], at.xs[1], out=at.out)
        for x in at.xs[2:]:
            np.add(at.out, x, out=at.out)


class Concatenate(Join):
    """Branches side by side in the last dimension."""

    def out_shape(self, xs: tuple[Input, ...]) -> Shape:
        if len({x.shape[:-1] for x in xs}) != 1 or any(x.kind != "numbers" for x in xs):
            raise ConfigurationError(
                "branches side by side: expected numbers of shapes that are equal but for the last dimension, got "
                f"{[x.shape for x in xs]}"
            )
        return (*xs[0].shape[:-1], sum(x.shape[-1] for x in xs))

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        start = 0
        for x in at.xs:
            at.out[..., start : start + x.shape[-1]] = x
            start += x.shape[-1]

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        start = 0
        for x, grad_x in zip(at.xs, at.grad_xs, strict=True):
            stop = start + x.shape[-1]
            if grad_x is not None:
                grad_x[...] = at.grad_out[..., start:stop]
            start = stop


def _below(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
