"""The networks of ``networks.py`` in torch, with the same parameters: modules that give the loss of a batch.

They are what torch offers for such models: its own layers, its attention (``scaled_dot_product_attention``), and for the
optimizer its fused kernels.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.engines.networks import Gpt, Network, ResNet, WideAndDeep

Tensors = tuple[torch.Tensor, ...]


def module_of(network: Network) -> nn.Module:
    """With the initial parameters."""
    kinds = {ResNet: ResNetLoss, Gpt: GptLoss, WideAndDeep: WideAndDeepLoss}
    module: nn.Module = kinds[type(network)](network)
    with torch.no_grad():
        for name, array in network.initial().items():
            target = module.tensor_of(name)  # type: ignore[operator]
            # Convolutions have their outputs first, dense layers, too; embeddings are as they are.
            order = (3, 2, 0, 1) if array.ndim == 4 else (1, 0)
            is_turned = array.ndim == 4 or (array.ndim == 2 and module.is_turned(name))  # type: ignore[operator]
            target.copy_(torch.from_numpy(array.transpose(order) if is_turned else array))
    return module


def optimizer_of(network: Network, module: nn.Module) -> torch.optim.Optimizer:
    """Its fused implementation; weight decay acts on what the engine's acts on."""
    specs = network.parameters
    of_decay: dict[bool, dict[int, torch.Tensor]] = {True: {}, False: {}}
    for name, spec in specs.items():
        if not spec.is_running:
            tensor = module.tensor_of(name)  # type: ignore[operator]
            of_decay[spec.decays][id(tensor)] = tensor
    groups = [
        {"params": list(found.values()), "weight_decay": network.weight_decay * decays}
        for decays, found in of_decay.items()
    ]
    rate = network.learning_rate
    if network.optimizer == "momentum":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, fused=True)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[network.optimizer]
    return kind(groups, lr=rate, fused=True)


class Batches:
    """Rows of a network in memory, as its module takes them.

    Parameters
    ----------
    layout : {"", "channels-last"}
        Of images.
    """

    def __init__(self, network: Network, count: int, layout: str) -> None:
        arrays, self._is_text = network.arrays(count), isinstance(network, Gpt)
        self._layout, self._length = layout, getattr(network, "context", 0)
        if self._is_text:
            tokens = torch.from_numpy(arrays["train/tokens"].astype(np.int64))
            shape = count, self._length
            self._arrays: Tensors = (tokens[:-1].reshape(shape), tokens[1:].reshape(shape))
            return
        x, y = torch.from_numpy(arrays["train/x"]), torch.from_numpy(arrays["train/y"])
        if isinstance(network, WideAndDeep):
            codes = arrays["train/inputs/categories"]
            wide = torch.from_numpy(network.wide_rows(codes))
            self._arrays = (x, torch.from_numpy(codes.astype(np.int64)), wide, y)
        else:
            if layout != "channels-last":
                x = x.permute(0, 3, 1, 2).contiguous()
            self._arrays = (x, y)

    def take(self, rows: torch.Tensor) -> Tensors:
        """Those rows."""
        first, *others = (array[rows] for array in self._arrays)
        if self._layout == "channels-last":
            first = first.permute(0, 3, 1, 2)
        return (first, *others)


class _Loss(nn.Module):
    """Finds its tensors by the engine's names: a path of children, with the last word for the kind of tensor."""

    def tensor_of(self, name: str) -> torch.Tensor:
        """Parameter or running statistic."""
        *path, last = name.split("/")
        found: Any = self
        for word in path:
            found = getattr(found, word)
        tensor: torch.Tensor = getattr(found, "running_var" if last == "running_variance" else last)
        return tensor

    def is_turned(self, name: str) -> bool:
        """Whether a matrix has its outputs first here."""
        return True


def _children(**modules: nn.Module) -> nn.Module:
    holder = nn.Module()
    for name, module in modules.items():
        holder.add_module(name, module)
    return holder


# -- images ------------------------------------------------------------------------------------------------


class _ConvNorm(nn.Module):
    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first = _ConvNorm(inputs, outputs, 3, stride)
        self.body = _children(first=first, second=_ConvNorm(outputs, outputs, 3))
        changes = stride > 1 or inputs != outputs
        self.shortcut = _ConvNorm(inputs, outputs, 1, stride) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        beside = x if self.shortcut is None else self.shortcut(x)
        inner = functional.relu(self.body.first(x), inplace=True)
        return functional.relu(self.body.second(inner) + beside, inplace=True)


class ResNetLoss(_Loss):
    """Mean cross-entropy of images (rows, channels, height, width) and classes."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.stem = _ConvNorm(network.image[2], network.width, 3)
        self._blocks = []
        for path, inputs, outputs, stride in network.block_shapes:
            name = path.split("/")[0]
            self.add_module(name, _children(residual=_Block(inputs, outputs, stride)))
            self._blocks.append(name)
        self.classes = nn.Linear(4 * network.width, network.classes)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x), inplace=True)
        for name in self._blocks:
            x = getattr(self, name).residual(x)
        return functional.cross_entropy(self.classes(x.mean((2, 3))), y)


# -- texts -------------------------------------------------------------------------------------------------


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        attention = {"norm": nn.LayerNorm(width), "qkv": nn.Linear(width, 3 * width)}
        feed_forward = {"norm": nn.LayerNorm(width), "up": nn.Linear(width, 4 * width)}
        self.attention = _children(body=_children(**attention, out=nn.Linear(width, width)))
        self.feed_forward = _children(
            body=_children(**feed_forward, out=nn.Linear(4 * width, width))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        body, (rows, length, width) = self.attention.body, x.shape
        parts = body.qkv(body.norm(x)).split(width, dim=2)
        q, k, v = (part.view(rows, length, self.heads, -1).transpose(1, 2) for part in parts)
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + body.out(out.transpose(1, 2).reshape(rows, length, width))
        body = self.feed_forward.body
        return x + body.out(functional.gelu(body.up(body.norm(x)), approximate="tanh"))


class GptLoss(_Loss):
    """Mean cross-entropy of the next tokens, both (rows, context)."""

    def __init__(self, network: Gpt) -> None:
        super().__init__()
        self.embedding = nn.Embedding(network.vocabulary, network.width)
        self.positions = nn.Embedding(network.context, network.width)
        self._count = network.layers
        for number in range(network.layers):
            self.add_module(f"block{number}", _Layer(network.width, network.heads))
        self.norm = nn.LayerNorm(network.width)

    def is_turned(self, name: str) -> bool:
        return name.startswith("block")

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens) + self.positions.weight
        for number in range(self._count):
            x = getattr(self, f"block{number}")(x)
        logits = functional.linear(self.norm(x), self.embedding.weight)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


# -- tables ------------------------------------------------------------------------------------------------


class WideAndDeepLoss(_Loss):
    """Mean cross-entropy of numbers, codes, rows of the wide part's weight, and classes."""

    def __init__(self, network: WideAndDeep) -> None:
        super().__init__()
        width = sum(network.feature_counts)
        numbers = _children(linear=nn.Linear(network.numbers, network.classes, bias=False))
        self.wide = _children(
            numbers=numbers, categories=nn.EmbeddingBag(width, network.classes, mode="sum")
        )
        tables = {
            f"column{number}": nn.Embedding(*shape)
            for number, shape in enumerate(zip(network.values, network.widths, strict=True))
        }
        layers, inputs = {}, network.numbers + sum(network.widths)
        for number, outputs in enumerate(network.hidden):
            layers[f"hidden{number}"], inputs = nn.Linear(inputs, outputs), outputs
        self.deep = _children(
            features=_children(categories=_children(**tables)),
            **layers,
            out=nn.Linear(inputs, network.classes),
        )
        self._tables, self._hidden = list(tables), list(layers)

    def tensor_of(self, name: str) -> torch.Tensor:
        is_table = name.startswith("deep/features")
        return super().tensor_of(name + "/weight" * is_table)

    def is_turned(self, name: str) -> bool:
        return "categories" not in name

    def forward(
        self, x: torch.Tensor, codes: torch.Tensor, wide_rows: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        tables = self.deep.features.categories
        embedded = [getattr(tables, name)(codes[:, j]) for j, name in enumerate(self._tables)]
        deep = torch.cat([x, *embedded], dim=1)
        for name in self._hidden:
            deep = functional.relu(getattr(self.deep, name)(deep))
        shallow = self.wide.numbers.linear(x) + self.wide.categories(wide_rows)
        return functional.cross_entropy(self.deep.out(deep) + shallow, y)
