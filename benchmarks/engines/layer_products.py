"""The matrix products of a network's step alone: how long they take, for the column "of limit".

They are read off the plan of a step (``layers/plan.py``), call by call. Of each the fastest way counts:

    dense, end of a text model   BLAS, or the engine's own products
    convolution                  BLAS on rows that somebody else has laid out (im2col, not counted), or the engine's layer
    attention                    BLAS head by head, of a causal one the share that is needed, without softmax; or the engine's layer

The engine's layers do more than products, so that they are rarely the fastest; where BLAS gets narrow matrices, they are.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np

from benchmarks.engines import product_kernels as blas
from benchmarks.engines.layer_calls import LayerCalls
from lepton_mpi.batch import Input
from lepton_mpi.kernels import product_kernels
from lepton_mpi.layers.attention import Attention
from lepton_mpi.layers.convolution import Conv2d
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.layer import Layer
from lepton_mpi.layers.plan import Call, Plan
from lepton_mpi.layers.token_loss import TokenLoss

_ROUNDS, _ROUND_SECONDS = 5, 0.02

Way = tuple[float, list[tuple[Callable[..., Any], tuple[Any, ...]]]]


class Work(NamedTuple):
    """Products of one call. Equal works take equal time.

    Attributes
    ----------
    what : {"product", "left", "right", "convolution", "convolution back", "attention", "attention back"}
        The first three are ``x @ w``, ``x.T @ g`` and ``g @ w.T``.
    shape : tuple of int
        Rows, inputs, outputs of the product; of attention positions, size of a head, and how many heads all rows have.
    layer : Layer or None
    x : shape of a row, of the layer's input
    rows : int
    wants_grad_x : bool
    """

    what: str
    shape: tuple[int, int, int]
    layer: Layer | None = None
    x: tuple[int, ...] = ()
    rows: int = 0
    wants_grad_x: bool = True

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal of works that take equal time."""
        kind = (type(self.layer), vars(self.layer).get("window")) if self.layer else ()
        return self.what, self.shape, kind, self.x, self.rows, self.wants_grad_x

    @property
    def operations(self) -> float:
        """Floating point operations of the products; of a causal attention those that are needed."""
        a, b, c = self.shape
        if not self.what.startswith("attention"):
            backward = (1 + self.wants_grad_x) if self.what.endswith("back") else 1
            return 2.0 * a * b * c * backward
        count = 4 if self.what.endswith("back") else 2
        return count * 2.0 * a * a * b * c * _share(self.layer, a)


def seconds_of_products(world: Any, plan: Plan) -> float:
    """Seconds that the products of one call of the plan take on all ranks at once. Collective."""
    counts, works = Counter[Any](), {}
    for work in works_of(plan):
        counts[work.key] += 1
        works[work.key] = work
    return sum(count * _seconds(world, works[key]) for key, count in counts.items())


def works_of(plan: Plan) -> Iterator[Work]:
    """Products of all calls, in their order."""
    for call in plan.calls:
        layer = call.node.layer
        if isinstance(layer, TokenLoss):
            positions, width = prod(call.xs[0].shape[:-1]), call.xs[0].shape[-1]
            yield Work("right", (positions, layer.values, width))
            yield Work("product", (positions, layer.values, width))
            yield Work("left", (positions, layer.values, width))
        elif call.does in ("forward", "backward"):
            yield from _of_layer(call)


def _of_layer(call: Call) -> Iterator[Work]:
    layer, (rows, *of_row) = call.node.layer, call.xs[0].shape
    back = " back" if call.does == "backward" else ""
    wants = any(call.grad_xs)
    if isinstance(layer, Dense):
        shape = rows * prod(of_row[:-1]), of_row[-1], layer.outputs
        if not back:
            yield Work("product", shape)
            return
        yield Work("left", shape)
        if wants:
            yield Work("right", shape)
    elif isinstance(layer, Conv2d):
        x = Input("numbers", tuple(of_row))
        inputs = prod(layer.parameters(x)["weight"].shape[:-1])
        shape = rows * prod(layer.out_shape(x)[:-1]), inputs, layer.outputs
        yield Work(f"convolution{back}", shape, layer, tuple(of_row), rows, wants or not back)
    elif isinstance(layer, Attention):
        size = of_row[-1] // (layer.heads + 2 * layer.shared)
        shape = of_row[0], size, rows * layer.heads
        yield Work(f"attention{back}", shape, layer, tuple(of_row), rows)


def _seconds(world: Any, work: Work) -> float:
    """Of the fastest way, on the slowest rank."""
    medians = []
    for times, calls in _ways(work):
        rounds = []
        for _ in range(_ROUNDS):
            world.comm.Barrier()
            began, repeats = time.perf_counter(), 0
            while not repeats or time.perf_counter() - began < _ROUND_SECONDS:
                for kernel, arguments in calls:
                    kernel(*arguments)
                repeats += 1
            rounds.append((time.perf_counter() - began) / repeats * times)
        medians.append(float(np.median(rounds)))
    # With more ranks than cores a rank has only a part of one, and so does the training.
    return min(max(each) for each in zip(*world.comm.allgather(medians), strict=True))


def _ways(work: Work) -> Iterator[Way]:
    a, b, c = work.shape
    if work.layer is None:
        yield 1, [_blas(work.what, a, b, c)]
        yield 1, [_own(work.what, a, b, c)]
        return
    calls = LayerCalls(work.layer, Input("numbers", work.x), work.rows, work.wants_grad_x)
    calls.forward()
    is_back = work.what.endswith("back")
    yield 1, [((calls.backward if is_back else calls.forward), ())]
    if isinstance(work.layer, Attention):
        share = c * _share(work.layer, a)
        score, back = _blas("right", a, a, b), _blas("product", a, a, b)
        yield share, [score, back] * (2 if is_back else 1)
    elif work.layer.groups == 1:
        names = ["left", *(["right"] if work.wants_grad_x else [])] if is_back else ["product"]
        yield 1, [_blas(name, a, b, c) for name in names]


def _share(layer: Layer | None, positions: int) -> float:
    """Of all pairs of positions, those that attention is about."""
    is_causal = isinstance(layer, Attention) and layer.is_causal
    return (positions + 1) / (2 * positions) if is_causal else 1.0


def _blas(what: str, rows: int, inputs: int, outputs: int) -> tuple[Any, tuple[Any, ...]]:
    x, w, y = _matrix(rows, inputs), _matrix(inputs, outputs), _matrix(rows, outputs)
    if what == "product":
        return blas.product, (x, w, y)
    return (blas.product_left, (x, y, w)) if what == "left" else (blas.product_right, (y, w, x))


def _own(what: str, rows: int, inputs: int, outputs: int) -> tuple[Any, tuple[Any, ...]]:
    x, w, y = _matrix(rows, inputs), _matrix(inputs, outputs), _matrix(rows, outputs)
    numbers = np.arange(max(rows, inputs))
    if what == "product":
        return product_kernels.product, (x, numbers[:rows], w, y)
    if what == "left":
        return product_kernels.product_left, (x, numbers[:rows], y, w, 0, inputs)
    scratch = np.empty(product_kernels.right_scratch_size(rows, outputs, inputs), np.float32)
    return product_kernels.product_right, (y, numbers, w, scratch, x)


def _matrix(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)
