"""torch's layers on their own, on one thread: for ``benchmarks/layers.py``. Runs in an environment that has torch.

A layer is what torch offers for it, eager; of images and what is done to them, both layouts are timed, and the faster counts.
The backward pass is ``torch.autograd.grad`` over a graph that is kept.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.engines.layer_cases import (
    LayerCase,
    chosen,
    layer_row,
    microseconds,
    parser,
    sample,
)
from benchmarks.harness import write_rows


class Built(NamedTuple):
    """A layer of torch.

    Attributes
    ----------
    call : callable (x) -> out
    parameters : sequence of (tensor, order)
        In the engine's order; ``order`` are the axes of torch's array in that of the engine's.
    """

    call: Callable[..., torch.Tensor]
    parameters: Sequence[tuple[torch.Tensor, tuple[int, ...]]] = ()


_CONV, _CONV1D, _LINEAR, _SAME, _TABLE = (2, 3, 1, 0), (2, 1, 0), (1, 0), (0,), (0, 1)


def built(case: LayerCase) -> Built:
    """The layer of a case."""
    given, shape = case.options, case.shape
    channels = shape[-1]
    if case.kind == "conv2d":
        size, stride = given["size"], given["stride"]
        padding, groups = size // 2, given["groups"]
        conv = nn.Conv2d(
            channels, given["outputs"], size, stride, padding, groups=groups, bias=False
        )
        return Built(conv, [(conv.weight, _CONV)])
    if case.kind == "conv1d":
        one = nn.Conv1d(
            channels, given["outputs"], given["size"], padding=given["size"] // 2, bias=False
        )
        return Built(one, [(one.weight, _CONV1D)])
    if case.kind == "batch_norm":
        batch = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        return Built(batch, [(batch[0].weight, _SAME), (batch[0].bias, _SAME)])
    if case.kind == "group_norm":
        group = nn.GroupNorm(given["groups"], channels)
        return Built(group, [(group.weight, _SAME), (group.bias, _SAME)])
    if case.kind == "layer_norm":
        norm = nn.LayerNorm(channels)
        return Built(norm, [(norm.weight, _SAME), (norm.bias, _SAME)])
    if case.kind == "rms_norm":
        rms = nn.RMSNorm(channels, eps=1e-5)
        return Built(rms, [(rms.weight, _SAME)])
    if case.kind == "embedding":
        table = nn.Embedding(given["values"], given["width"])
        return Built(table, [(table.weight, _TABLE)])
    if case.kind == "gru":
        gru = nn.GRU(channels, given["width"], batch_first=True)
        weights = [(gru.weight_ih_l0, _LINEAR), (gru.weight_hh_l0, _LINEAR)]
        biases = [(gru.bias_ih_l0, _SAME), (gru.bias_hh_l0, _SAME)]
        return Built(lambda x: gru(x)[0], [*weights, *biases])
    if case.kind == "dense":
        linear = nn.Linear(channels, given["outputs"])
        return Built(linear, [(linear.weight, _LINEAR), (linear.bias, _SAME)])
    if case.kind == "token_loss":
        return _token_loss(case)
    return Built(_without_parameters(case))


def _token_loss(case: LayerCase) -> Built:
    values = case.options["values"]
    weight = nn.Parameter(torch.zeros(values, case.shape[-1]))
    y = torch.from_numpy(case.codes(1, case.shape[:-1], values).astype(np.int64)).flatten()

    def loss(x: torch.Tensor) -> torch.Tensor:
        logits = functional.linear(x, weight).flatten(0, 1)
        return functional.cross_entropy(logits, y, reduction="sum")

    return Built(loss, [(weight, _TABLE)])


def _without_parameters(case: LayerCase) -> Callable[..., torch.Tensor]:
    given = case.options
    if case.kind == "attention":

        def attention(x: torch.Tensor) -> torch.Tensor:
            rows, length, width = x.shape
            parts = x.split(width // 3, dim=2)
            q, k, v = (a.view(rows, length, given["heads"], -1).transpose(1, 2) for a in parts)
            out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return out.transpose(1, 2).reshape(rows, length, width // 3)

        return attention
    if case.kind == "swiglu":

        def swiglu(x: torch.Tensor) -> torch.Tensor:
            a, b = x.chunk(2, dim=-1)
            return functional.silu(a) * b

        return swiglu
    kinds: dict[str, Callable[[], nn.Module]] = {
        "max_pool": lambda: nn.MaxPool2d(given["size"], given["stride"], given["padding"]),
        "average_pool": lambda: nn.AvgPool2d(given["size"], given["stride"]),
        "global_pool": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "gelu": lambda: nn.GELU("tanh" if given["tanh"] else "none"),
        "dropout": lambda: nn.Dropout(given["rate"]),
    }
    return kinds[case.kind]()


class Passes:
    """The two passes of a layer on an input, in one layout of images."""

    def __init__(self, case: LayerCase, layout: str) -> None:
        self._call, parameters = built(case)
        self._parameters = list(parameters)
        with torch.no_grad():
            for number, (tensor, order) in enumerate(self._parameters):
                shape = [tensor.shape[axis] for axis in order]
                values = case.parameter(number, shape).transpose(np.argsort(order))
                tensor.copy_(torch.from_numpy(values.copy()))
        self._axes = _axes_of(case)
        if layout == "channels-last" and isinstance(self._call, nn.Module):
            self._call = self._call.to(memory_format=torch.channels_last)
        self._x = self._given(case, layout)
        out = self._call(self._x)
        slope = case.values(1, _turned_shape(out, self._axes))
        self._slope = torch.from_numpy(slope)
        if out.ndim == len(case.shape) and self._axes:
            self._slope = self._slope.permute(*self._axes)
            if layout != "channels-last":
                self._slope = self._slope.contiguous()
        self._slope = self._slope if out.ndim else torch.ones(())
        wanted = [tensor for tensor, _ in self._parameters]
        self._wanted = [self._x, *wanted] if self._x.is_floating_point() else wanted
        self._out = out

    def _given(self, case: LayerCase, layout: str) -> torch.Tensor:
        if case.kind == "embedding":
            codes = case.codes(0, case.shape, case.options["values"])
            return torch.from_numpy(codes.astype(np.int64))
        x = torch.from_numpy(case.values(0, case.shape))
        if self._axes:
            x = x.permute(*self._axes)
            if layout != "channels-last":
                x = x.contiguous()
        return x.requires_grad_()

    def forward(self) -> torch.Tensor:
        """With what the backward pass needs."""
        return self._call(self._x)

    def backward(self) -> tuple[torch.Tensor, ...]:
        """Of the pass that was made first."""
        return torch.autograd.grad(self._out, self._wanted, self._slope, retain_graph=True)

    def both(self) -> tuple[torch.Tensor, ...]:
        """One behind the other."""
        return torch.autograd.grad(self.forward(), self._wanted, self._slope)

    def results(self) -> list[np.ndarray]:
        """In the engine's layout."""
        found = [self._engine_s(self._out)]
        grads = list(self.backward())
        if self._x.is_floating_point():
            found.append(self._engine_s(grads.pop(0)))
        for grad, (_, order) in zip(grads, self._parameters, strict=True):
            found.append(grad.numpy().transpose(order))
        return found

    def _engine_s(self, tensor: torch.Tensor) -> np.ndarray:
        array = tensor.detach().numpy()
        if self._axes and array.ndim == len(self._axes):
            array = array.transpose(np.argsort(self._axes))
        return array.reshape(-1) if not array.ndim else array


def _axes_of(case: LayerCase) -> tuple[int, ...]:
    """From channels last to torch's order, of images and signals."""
    if case.kind == "conv1d":
        return (0, 2, 1)
    return (0, 3, 1, 2) if len(case.shape) == 4 else ()


def _turned_shape(out: torch.Tensor, axes: tuple[int, ...]) -> tuple[int, ...]:
    """Of the engine's array."""
    shape = tuple(out.shape)
    if axes and len(shape) == len(axes):
        return tuple(shape[axis] for axis in np.argsort(axes))
    return shape


def main() -> None:
    """Time every layer, and write rows and values."""
    options = parser().parse_args()
    torch.set_num_threads(1)
    rows: list[Any] = []
    values = dict[str, np.ndarray]()
    for case in chosen(options.layers):
        measured = []
        for layout in ("channels-first", "channels-last") if len(case.shape) == 4 else ("",):
            passes = Passes(case, layout)
            if case.kind == "token_loss":
                forward, backward = None, microseconds(passes.both, options.seconds)
            else:
                forward = microseconds(passes.forward, options.seconds)
                backward = microseconds(passes.backward, options.seconds)
            more = {"way": layout, "version": torch.__version__}
            measured.append((layer_row(case, "torch", forward, backward, **more), passes))
        row, passes = min(measured, key=lambda pair: pair[0]["time_us"])
        for number, array in enumerate(passes.results()):
            values[f"{case.name}|{number}"] = sample(array)
        rows.append(row)
        write_rows(options.json, rows)
    np.savez(options.values, **values)


if __name__ == "__main__":
    main()
