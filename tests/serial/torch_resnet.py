"""The losses of torch's first steps with a resnet8, with which ``test_torch_resnet.py`` compares this engine's.

    .venv-peers/bin/python -m tests.serial.torch_resnet

writes them anew to ``torch_resnet.json`` beside this file; ``./run_local.sh bench training --peers torch`` makes that environment.
Images, classes and initial weights are functions of fixed numbers and need NumPy only.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_suffix(".json")
STEPS, BATCH, SHAPE, CLASSES, LEARNING_RATE, WIDTH = 50, 16, (9, 10, 3), 4, 0.05, 8


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images with a pattern for each class, and their classes."""
    generator = np.random.default_rng(5)
    patterns = generator.standard_normal((CLASSES, *SHAPE))
    for _ in range(STEPS):
        y = generator.integers(0, CLASSES, BATCH)
        x = patterns[y] + generator.standard_normal((BATCH, *SHAPE))
        yield x.astype("f4"), y.astype("i4")


def weight(number: int, shape: tuple[int, ...]) -> np.ndarray:
    """The initial values of the model's weight ``number``, in forward order, outputs last; what has one dimension begins as usual."""
    deviation = np.sqrt(2 / np.prod(shape[:-1]))
    return deviation * np.random.default_rng(number).standard_normal(shape)


def main() -> None:
    """Train and write the file."""
    import torch

    losses = {kind: _losses(getattr(torch, kind)) for kind in ("float32", "float64")}
    FILE.write_text(json.dumps({"torch": torch.__version__, "losses": losses}, indent=1) + "\n")


def _losses(dtype: Any) -> list[float]:
    import torch

    model = _model().to(dtype)
    weights = [p for p in model.parameters() if p.ndim > 1]
    for number, parameter in enumerate(weights):
        order = (2, 3, 1, 0) if parameter.ndim == 4 else (1, 0)
        own = weight(number, tuple(parameter.shape[axis] for axis in order))
        parameter.data.copy_(torch.from_numpy(own.transpose(np.argsort(order)).copy()))
    losses = []
    for x, y in batches():
        images = torch.from_numpy(x).permute(0, 3, 1, 2).to(dtype)
        loss = torch.nn.functional.cross_entropy(model(images), torch.from_numpy(y).long())
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= LEARNING_RATE * parameter.grad
        losses.append(float(loss.detach()))
    return losses


def _model() -> Any:
    """He et al.'s with one block a stage, shortcuts by 1x1 convolutions, in this engine's order of parameters."""
    from torch import nn, relu

    def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> Any:
        conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs))

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            changes = inputs != outputs
            self.shortcut = convolution(inputs, outputs, 1, 2) if changes else nn.Identity()
            self.first = convolution(inputs, outputs, 3, 2 if changes else 1)
            self.second = convolution(outputs, outputs, 3)

        def forward(self, x: Any) -> Any:
            return relu(self.second(relu(self.first(x))) + self.shortcut(x))

    stages = [Block(a * WIDTH, b * WIDTH) for a, b in ((1, 1), (1, 2), (2, 4))]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * WIDTH, CLASSES)]
    nn.init.zeros_(end[-1].bias)
    return nn.Sequential(convolution(SHAPE[-1], WIDTH, 3), nn.ReLU(), *stages, *end)


if __name__ == "__main__":
    main()
