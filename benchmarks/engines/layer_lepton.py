"""This engine's layers on their own, on one core: ``python -m benchmarks.engines.layer_lepton --values FILE --json FILE``."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.engines.layer_calls import LayerCalls
from benchmarks.engines.layer_cases import (
    LayerCase,
    chosen,
    layer_row,
    microseconds,
    parser,
    sample,
)
from benchmarks.harness import write_rows
from lepton_mpi.batch import Input
from lepton_mpi.layers.activation import Activation
from lepton_mpi.layers.attention import Attention
from lepton_mpi.layers.batch_norm import BatchNorm
from lepton_mpi.layers.convolution import Conv1d, Conv2d
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.dropout import Dropout
from lepton_mpi.layers.embedding import Embedding
from lepton_mpi.layers.gated import SwiGlu
from lepton_mpi.layers.group_norm import GroupNorm
from lepton_mpi.layers.gru import Gru
from lepton_mpi.layers.layer import Arrays, Layer
from lepton_mpi.layers.norm import LayerNorm, RmsNorm
from lepton_mpi.layers.pooling import AveragePool, MaxPool
from lepton_mpi.layers.token_loss import TokenLoss
from lepton_mpi.layers.windows import along, square


def layer_of(case: LayerCase) -> Layer:
    """The layer of a case; ``token_loss`` is no layer but a head."""
    given = case.options
    make: Mapping[str, Callable[[], Layer]] = {
        "conv2d": lambda: Conv2d(
            given["outputs"],
            square(given["size"], given["stride"], given["size"] // 2),
            given["groups"],
            bias=False,
        ),
        "conv1d": lambda: Conv1d(
            given["outputs"], along(given["size"], padding=(given["size"] // 2,) * 2), bias=False
        ),
        "batch_norm": lambda: BatchNorm(relu=True),
        "group_norm": lambda: GroupNorm(given["groups"]),
        "layer_norm": LayerNorm,
        "rms_norm": RmsNorm,
        "max_pool": lambda: MaxPool(square(given["size"], given["stride"], given["padding"])),
        "average_pool": lambda: AveragePool(square(given["size"], given["stride"])),
        "global_pool": AveragePool,
        "embedding": lambda: Embedding(given["values"], given["width"]),
        "attention": lambda: Attention(given["heads"]),
        "gelu": lambda: Activation("gelu_tanh" if given["tanh"] else "gelu"),
        "swiglu": SwiGlu,
        "dropout": lambda: Dropout(given["rate"]),
        "gru": lambda: Gru(given["width"], "all"),
        "dense": lambda: Dense(given["outputs"]),
    }
    return make[case.kind]()


class Layers:
    """The two passes of a layer, and what they fill."""

    def __init__(self, case: LayerCase) -> None:
        rows, *shape = case.shape
        is_codes = case.kind == "embedding"
        values = case.options.get("values", 0) if is_codes else 0
        x = Input("tokens" if is_codes else "numbers", tuple(shape), values)
        self._calls = calls = LayerCalls(layer_of(case), x, rows)
        at = calls.at
        at.x[...] = case.codes(0, case.shape, values) if is_codes else case.values(0, case.shape)
        at.grad_out[...] = case.values(1, at.out.shape)
        # What has no gradient, such as running statistics, comes last.
        for number, array in enumerate(calls.parameters.values()):
            array[...] = case.parameter(number, array.shape)
        self._is_learned = [name for name in calls.parameters if not name.startswith("running")]
        self.forward: Callable[[], None] | None = calls.forward
        self.backward = calls.backward

    def results(self) -> list[np.ndarray]:
        """What comes out, the gradient by the input if there is one, and those of the parameters."""
        self._calls.forward()
        self._calls.backward()
        at, gradients = self._calls.at, self._calls.gradients
        of_x = [] if at.grad_x is None else [at.grad_x]
        return [at.out, *of_x, *(gradients[name] for name in self._is_learned)]


class TokenLosses:
    """The head of a text model, whose two passes are one call."""

    forward: Callable[[], None] | None = None

    def __init__(self, case: LayerCase) -> None:
        rows, *shape = case.shape
        values, spec = case.options["values"], Input("numbers", tuple(shape))
        self._head = TokenLoss(values)
        x = case.values(0, case.shape)
        self._at = Arrays((x,), x[:0], -1)
        self._at.grad_x = np.zeros_like(x)
        self._at.memory = {
            name: np.zeros(memory.shape, memory.dtype or np.float32)
            for name, memory in self._head.memory(rows, spec).items()
        }
        weight = case.parameter(0, (values, shape[-1]))
        self._p, self._grad = {"weight": weight}, {"weight": np.zeros_like(weight)}
        self._y = case.codes(1, case.shape[:-1], values)
        self._loss = 0.0

    def backward(self) -> None:
        """Loss and gradients."""
        self._loss, _ = self._head.loss_and_gradient(self._p, self._at, self._grad, self._y)

    def results(self) -> list[np.ndarray]:
        """As of ``Layers``."""
        self.backward()
        assert self._at.grad_x is not None
        return [np.array([self._loss], np.float32), self._at.grad_x, self._grad["weight"]]


def main() -> None:
    """Time every layer, and write rows and values."""
    options = parser().parse_args()
    rows, values = [], dict[str, np.ndarray]()
    for case in chosen(options.layers):
        made: Any = TokenLosses(case) if case.kind == "token_loss" else Layers(case)
        for number, array in enumerate(made.results()):
            values[f"{case.name}|{number}"] = sample(array)
        forward = made.forward and microseconds(made.forward, options.seconds)
        backward = microseconds(made.backward, options.seconds)
        rows.append(layer_row(case, "lepton_mpi", forward, backward))
        write_rows(options.json, rows)
    np.savez(options.values, **values)


if __name__ == "__main__":
    main()
