"""What torch's layers give, with which ``test_torch_image_layers.py`` compares this engine's.

    .venv-peers/bin/python -m tests.serial.torch_image_layers

writes ``torch_image_layers.npz`` beside this file; ``./run_local.sh bench training --peers torch`` makes that environment. Inputs are
functions of a case's name and are not stored. Arrays have this engine's order: channels last, outputs of a weight last.
"""

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILE = Path(__file__).with_suffix(".npz")


class Case(NamedTuple):
    """A layer of torch: its class and arguments, the shape of x, and of each parameter."""

    kind: str
    arguments: dict[str, Any]
    x: tuple[int, ...]
    parameters: dict[str, tuple[int, ...]]


CASES = {
    "conv2d": Case(
        "Conv2d",
        {"in_channels": 3, "out_channels": 5, "kernel_size": 3, "padding": 1},
        (2, 6, 7, 3),
        {"weight": (3, 3, 3, 5), "bias": (5,)},
    ),
    "conv2d stride dilation": Case(
        "Conv2d",
        {
            "in_channels": 4,
            "out_channels": 3,
            "kernel_size": (3, 2),
            "stride": (2, 1),
            "padding": (2, 0),
            "dilation": (1, 2),
        },
        (2, 7, 6, 4),
        {"weight": (3, 2, 4, 3), "bias": (3,)},
    ),
    "conv2d groups": Case(
        "Conv2d",
        {
            "in_channels": 4,
            "out_channels": 6,
            "kernel_size": 3,
            "stride": 2,
            "padding": 1,
            "groups": 2,
        },
        (2, 5, 6, 4),
        {"weight": (3, 3, 2, 6), "bias": (6,)},
    ),
    "conv2d depthwise": Case(
        "Conv2d",
        {
            "in_channels": 5,
            "out_channels": 5,
            "kernel_size": 3,
            "stride": 2,
            "padding": 1,
            "groups": 5,
        },
        (2, 6, 5, 5),
        {"weight": (3, 3, 1, 5), "bias": (5,)},
    ),
    "conv2d 1x1": Case(
        "Conv2d",
        {"in_channels": 3, "out_channels": 4, "kernel_size": 1, "stride": 2},
        (2, 5, 4, 3),
        {"weight": (1, 1, 3, 4), "bias": (4,)},
    ),
    "conv1d": Case(
        "Conv1d",
        {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "padding": 2, "dilation": 2},
        (2, 9, 3),
        {"weight": (3, 3, 4), "bias": (4,)},
    ),
    "batch norm": Case(
        "BatchNorm2d", {"num_features": 5}, (3, 4, 3, 5), {"weight": (5,), "bias": (5,)}
    ),
    "group norm": Case(
        "GroupNorm",
        {"num_groups": 2, "num_channels": 6},
        (3, 4, 3, 6),
        {"weight": (6,), "bias": (6,)},
    ),
    "max pool": Case("MaxPool2d", {"kernel_size": 3, "stride": 2, "padding": 1}, (2, 7, 6, 3), {}),
    "average pool": Case(
        "AvgPool2d",
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
        (2, 7, 6, 3),
        {},
    ),
    "average pool of a sequence": Case("AvgPool1d", {"kernel_size": 2, "stride": 2}, (2, 7, 3), {}),
}


def inputs(name: str) -> dict[str, np.ndarray]:
    """x, the parameters, and with it the generator's next array: the gradient by out is made when its shape is known."""
    case, generator = CASES[name], np.random.default_rng(zlib.crc32(name.encode()))
    shapes = {"x": case.x, **case.parameters}
    return {key: generator.standard_normal(shape).astype("f4") for key, shape in shapes.items()}


def grad_out(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The gradient by out."""
    generator = np.random.default_rng(zlib.crc32(name.encode()) + 1)
    return generator.standard_normal(shape).astype("f4")


def main() -> None:
    """Run all of them in torch and write the file."""
    found = {}
    for name in CASES:
        found.update({f"{name}/{key}": array for key, array in _results(name).items()})
    np.savez_compressed(FILE, **found)


def _results(name: str) -> dict[str, np.ndarray]:
    import torch

    case, given = CASES[name], inputs(name)
    layer = getattr(torch.nn, case.kind)(**case.arguments)
    for key in case.parameters:
        values = torch.from_numpy(_to_torch(given[key], weight=True))
        getattr(layer, key).data.copy_(values)
    x = torch.from_numpy(_to_torch(given["x"])).requires_grad_()
    out = layer(x)
    slope = grad_out(name, _to_own(out.detach().numpy()).shape)
    out.backward(torch.from_numpy(_to_torch(slope)))
    results = {"out": out.detach().numpy(), "grad x": x.grad.numpy()}
    results = {key: _to_own(array) for key, array in results.items()}
    for key in case.parameters:
        array = getattr(layer, key)
        values = (array if array.grad is None else array.grad).detach().numpy()
        results[f"grad {key}"] = _to_own(values, weight=True)
    if case.kind == "BatchNorm2d":
        results["running_mean"] = layer.running_mean.numpy()
        results["running_variance"] = layer.running_var.numpy()
        results["evaluated"] = _to_own(layer.eval()(x).detach().numpy())
    return results


def _to_torch(array: np.ndarray, weight: bool = False) -> np.ndarray:
    """Channels second; a weight's outputs first, then its channels."""
    if array.ndim < 3:
        return array
    order = (-1, -2, *range(array.ndim - 2)) if weight else (0, -1, *range(1, array.ndim - 1))
    return np.ascontiguousarray(array.transpose(*order))


def _to_own(array: np.ndarray, weight: bool = False) -> np.ndarray:
    if array.ndim < 3:
        return array
    order = (*range(2, array.ndim), 1, 0) if weight else (0, *range(2, array.ndim), 1)
    return np.ascontiguousarray(array.transpose(*order))


if __name__ == "__main__":
    main()
