"""The losses of torch's first steps with the speech models, with which ``test_torch_speech.py`` compares this engine's.

    .venv-peers/bin/python -m tests.serial.torch_speech

writes them anew to ``torch_speech.json`` beside this file; ``./run_local.sh bench training --peers torch`` makes that environment.
Spectrograms, classes and initial weights are functions of fixed numbers and need NumPy only.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_suffix(".json")
# Odd and even lengths, so that the stem's windows end in the padding and before it.
STEPS, BATCH, SHAPE, CLASSES = 50, 16, (13, 10), 4
OPTIONS: dict[str, dict[str, Any]] = {
    "speech_cnn": {"width": 16, "blocks": 2},
    "speech_gru": {"width": 12, "layers": 2, "bidirectional": True, "pooling": "mean"},
}
LEARNING_RATES = {"speech_cnn": 0.2, "speech_gru": 0.3}


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Spectrograms with a pattern for each class at a place of its own, and their classes."""
    generator = np.random.default_rng(5)
    patterns = generator.standard_normal((CLASSES, 5, SHAPE[1]))
    for _ in range(STEPS):
        y = generator.integers(0, CLASSES, BATCH)
        x = generator.standard_normal((BATCH, *SHAPE)) / 4
        for row, label in zip(x, y, strict=True):
            first = generator.integers(0, SHAPE[0] - 4)
            row[first : first + 5] += patterns[label]
        yield x.astype("f4"), y.astype("i4")


def initial(number: int, shape: tuple[int, ...]) -> np.ndarray:
    """The initial values of parameter ``number``, in forward order without those of normalisation, outputs last."""
    deviation = np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.1
    return deviation * np.random.default_rng(number).standard_normal(shape)


def main() -> None:
    """Train and write the file."""
    import torch

    losses = {
        name: {kind: _losses(name, getattr(torch, kind)) for kind in ("float32", "float64")}
        for name in OPTIONS
    }
    FILE.write_text(json.dumps({"torch": torch.__version__, "losses": losses}, indent=1) + "\n")


def _losses(name: str, dtype: Any) -> list[float]:
    import torch

    model = (_cnn() if name == "speech_cnn" else _gru()).to(dtype)
    number = 0
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            continue
        for parameter in module.parameters(recurse=False):
            order = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[parameter.ndim]
            own = initial(number, tuple(parameter.shape[axis] for axis in order))
            parameter.data.copy_(torch.from_numpy(own.transpose(np.argsort(order)).copy()))
            number += 1
    losses = []
    for x, y in batches():
        sounds = torch.from_numpy(x).to(dtype)
        loss = torch.nn.functional.cross_entropy(model(sounds), torch.from_numpy(y).long())
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= LEARNING_RATES[name] * parameter.grad
        losses.append(float(loss.detach()))
    return losses


def _cnn() -> Any:
    """Zhang et al.'s DS-CNN, in this engine's order of parameters."""
    from torch import nn

    width, parts = OPTIONS["speech_cnn"]["width"], []

    def convolution(inputs: int, size: Any, padding: int, groups: int = 1) -> list[Any]:
        stride = 2 if inputs == 1 else 1
        conv = nn.Conv2d(inputs, width, size, stride, padding, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(width), nn.ReLU()]

    # Left, right, top, bottom: as TensorFlow pads ("same"), which torch does for stride 1 alone.
    parts += [nn.Unflatten(1, (1, SHAPE[0])), nn.ZeroPad2d((1, 2, 4, 5))]
    parts += convolution(1, (10, 4), 0)
    for _ in range(OPTIONS["speech_cnn"]["blocks"]):
        parts += [*convolution(width, 3, 1, width), *convolution(width, 1, 0)]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


def _gru() -> Any:
    """The mean of the states of two layers of two directions."""
    from torch import nn

    options = OPTIONS["speech_gru"]

    class Speech(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width, layers = options["width"], options["layers"]
            self.gru = nn.GRU(SHAPE[1], width, layers, batch_first=True, bidirectional=True)
            self.classes = nn.Linear(2 * width, CLASSES)

        def forward(self, x: Any) -> Any:
            return self.classes(self.gru(x)[0].mean(dim=1))

    return Speech()


if __name__ == "__main__":
    main()
