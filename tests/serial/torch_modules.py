"""Models in torch whose modules are called as ``models/torch_names.py`` says, for ``torch_pretrained.py``; needs torch.

``resnet8`` has the names of the usual networks for CIFAR, with ``shortcut`` and ``linear``; the others those of this engine with dots.
"""

import torch
from torch import nn
from torch.nn import functional

from tests.serial.torch_pretrained import CLASSES, ROW_SHAPES, VALUES

# By the rule of layers/column_embedding.py.
_WIDTHS = [4, 2, 5]


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + self.shortcut(x))


class resnet8(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(_Block(16, 16, 1))
        self.layer2 = nn.Sequential(_Block(16, 32, 2))
        self.layer3 = nn.Sequential(_Block(32, 64, 2))
        self.linear = nn.Linear(64, CLASSES)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def _normed(conv: nn.Module, norm: nn.Module) -> nn.Module:
    made = nn.Module()
    made.conv, made.norm = conv, norm
    made.forward = lambda x: norm(conv(x))
    return made


class cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block0 = _normed(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
        self.block1 = _normed(nn.Conv2d(16, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32))
        height, width, _ = ROW_SHAPES["cnn"]
        self.units = nn.Linear(32 * (height // 4) * (width // 4), 64)
        self.classes = nn.Linear(64, CLASSES)

    def forward(self, x):
        for block in (self.block0, self.block1):
            x = functional.max_pool2d(functional.relu(block.forward(x)), 2)
        return self.classes(functional.relu(self.units(x.flatten(1))))


class tcn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for level, inputs in enumerate((3, 32)):
            residual, body = nn.Module(), nn.Module()
            made = nn.Module()
            setattr(self, f"level{level}", made)
            made.residual, residual.body = residual, body
            for name, channels in (("first", inputs), ("second", 32)):
                conv = nn.Conv1d(channels, 32, 3, dilation=2**level, bias=False)
                setattr(body, name, _normed(conv, nn.BatchNorm1d(32)))
            if inputs != 32:
                conv = nn.Conv1d(inputs, 32, 1, bias=False)
                residual.shortcut = _normed(conv, nn.BatchNorm1d(32))
        self.classes = nn.Linear(32, CLASSES)

    def forward(self, x):
        for level in range(2):
            residual = getattr(self, f"level{level}").residual
            before = (2 * 2**level, 0)
            y = functional.relu(residual.body.first.forward(functional.pad(x, before)))
            y = residual.body.second.forward(functional.pad(y, before))
            x = functional.relu(y + (x if level else residual.shortcut.forward(x)))
        return self.classes(x.mean(2))


class speech_cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(1, 64, (10, 4), 2, bias=False)
        self.stem = _normed(conv, nn.BatchNorm2d(64))
        self.block0 = nn.Module()
        depthwise = nn.Conv2d(64, 64, 3, 1, 1, groups=64, bias=False)
        self.block0.depthwise = _normed(depthwise, nn.BatchNorm2d(64))
        pointwise = nn.Conv2d(64, 64, 1, bias=False)
        self.block0.pointwise = _normed(pointwise, nn.BatchNorm2d(64))
        self.classes = nn.Linear(64, CLASSES)

    def forward(self, x):
        x = functional.relu(self.stem.forward(functional.pad(x, (1, 2, 4, 5))))
        for part in (self.block0.depthwise, self.block0.pointwise):
            x = functional.relu(part.forward(x))
        return self.classes(x.mean((2, 3)))


class speech_gru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru0 = nn.GRU(6, 64, batch_first=True, bidirectional=True)
        self.classes = nn.Linear(128, CLASSES)

    def forward(self, x):
        return self.classes(self.gru0(x)[0].mean(1))


class mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer0, self.layer1 = nn.Linear(12, 8), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.layer1(functional.relu(self.layer0(x)))


class wide_and_deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.deep, features = nn.Module(), nn.Module(), nn.Module()
        self.wide.numbers = nn.Module()
        self.wide.numbers.linear = nn.Linear(2, CLASSES, bias=False)
        self.wide.categories = nn.EmbeddingBag(sum(VALUES), CLASSES, mode="sum")
        self.deep.features = features
        features.categories = nn.Module()
        for column, (values, width) in enumerate(zip(VALUES, _WIDTHS, strict=True)):
            setattr(features.categories, f"column{column}", nn.Embedding(values, width))
        self.deep.hidden0 = nn.Linear(2 + sum(_WIDTHS), 8)
        self.deep.out = nn.Linear(8, CLASSES)

    def forward(self, x, codes):
        starts = torch.tensor([sum(VALUES[:column]) for column in range(len(VALUES))])
        wide = self.wide.numbers.linear(x) + self.wide.categories(codes + starts)
        tables = self.deep.features.categories
        embedded = [getattr(tables, f"column{j}")(codes[:, j]) for j in range(len(VALUES))]
        hidden = functional.relu(self.deep.hidden0(torch.cat([x, *embedded], 1)))
        return wide + self.deep.out(hidden)
