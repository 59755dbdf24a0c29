"""Networks as a torch user writes them, for ``benchmarks.torch_module``: an MLP, ResNet-18 for 64x64 pixels, a GPT of 6 blocks of 384."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Mlp(nn.Sequential):
    """784, 128, 10."""

    def __init__(self, feature_shape: tuple[int, ...], output_count: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, output_count))


class Block(nn.Module):
    """Two convolutions and a way past them (He et al., CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.past: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.past = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (rows, channels, height, width)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.past(x))


class ResNet18(nn.Sequential):
    """As in torchvision, for images of 3 channels."""

    def __init__(self, feature_shape: tuple[int, ...], output_count: int) -> None:
        widths = ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
        blocks = [
            block
            for inputs, outputs, stride in widths
            for block in (Block(inputs, outputs, stride), Block(outputs, outputs, 1))
        ]
        super().__init__(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            *(nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *blocks),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, output_count)),
        )


class Attention(nn.Module):
    """Causal, of 6 heads, and a feed-forward part; norms before (GPT-2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (rows, length, width)."""
        rows, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(rows, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(rows, length, width))
        return x + self.feed(self.norm2(x))


class Gpt(nn.Module):
    """6 blocks of 384."""

    def __init__(self, feature_shape: tuple[int, ...], output_count: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(output_count, 384)
        self.positions = nn.Embedding(feature_shape[0], 384)
        self.blocks = nn.Sequential(*[Attention(384, 6) for _ in range(6)])
        self.norm, self.head = nn.LayerNorm(384), nn.Linear(384, output_count, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Shape (rows, length)."""
        return self.head(self.norm(self.blocks(self.tokens(tokens) + self.positions.weight)))


class Case(NamedTuple):
    """A network with its rows, ``steps`` and rows of a step."""

    make: Callable[[tuple[int, ...], int], nn.Module]
    rows: int
    steps: int

    def arrays(self) -> dict[str, np.ndarray]:
        """Data sets of a file for so many steps, and one more of each split."""
        count, random = self.rows * (self.steps + 1), np.random.default_rng(0)
        if self.make is Gpt:
            stream = random.integers(0, 256, count * 64 + 1).astype(np.uint8)
            return {"train/tokens": stream, "test/tokens": stream[: 64 * self.rows + 1]}
        shape = (784,) if self.make is Mlp else (3, 64, 64)
        x = random.standard_normal((count, *shape)).astype(np.float32)
        y = np.resize(np.arange(10, dtype=np.int32), count)
        last = slice(-self.rows, None)
        return {"train/x": x, "train/y": y, "test/x": x[last], "test/y": y[last]}


CASES = {
    "mlp-784-128-10": Case(Mlp, 64, 1500),
    "resnet-18, 64x64": Case(ResNet18, 8, 14),
    "gpt-6x384": Case(Gpt, 8, 14),
}
