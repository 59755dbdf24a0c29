"""Networks of layers that every engine trains: parameters, rows and options, as functions of fixed numbers. Needs NumPy only.

``cases.py`` has the fully connected models. A network's rows lie in the engine's file by the names of ``arrays``; torch takes the
same arrays. Parameters have the engine's names, shapes, order and initial values, which a test compares.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod, sqrt
from typing import Any, NamedTuple

import numpy as np

from lepton_mpi.kernels import counter_random
from lepton_mpi.layers.initial import (
    Initial,
    glorot_uniform,
    he_uniform,
    normal,
    ones,
    zeros,
)

SEED = 0
# Streams of random numbers, apart from those of ``cases.py`` and of the engine.
_CLASSES, _CENTRES, _NOISE, _TOKENS, _CODES = 6_000, 6_001, 6_002, 6_003, 6_100

Arrays = Mapping[str, np.ndarray]


class Parameter(NamedTuple):
    """Shape, initial values, whether weight decay acts, and whether it is a running statistic, which no optimizer sees."""

    shape: tuple[int, ...]
    initial: Initial
    decays: bool = False
    is_running: bool = False


@dataclass(frozen=True, kw_only=True)
class Network:
    """What all networks have. A subclass has ``parameters``, ``arrays`` and ``attributes``.

    Attributes
    ----------
    name : str
    model : str
        The engine's ``--model``.
    optimizer : {"momentum", "adam", "adamw"}
        Of all engines; momentum is 0.9, and the other numbers are the usual ones.
    learning_rate, weight_decay : float
    mixes_rows : bool
        Whether a rank's rows have to be one micro-batch, since torch's normalisation is over them.
    """

    name: str
    model: str
    optimizer: str
    learning_rate: float
    weight_decay: float = 0.0
    mixes_rows: bool = False

    @property
    def parameters(self) -> dict[str, Parameter]:
        """By the engine's names, in its order."""
        raise NotImplementedError

    @property
    def own_options(self) -> dict[str, Any]:
        """Of the model alone, as the engine has them."""
        return {}

    @property
    def config(self) -> dict[str, Any]:
        """Options of the engine's run."""
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "own": {"model": self.own_options},
        }

    @property
    def attributes(self) -> dict[str, dict[str, Any]]:
        """Of the data sets in the engine's file, by name; that of the file itself is empty."""
        raise NotImplementedError

    @property
    def bare(self) -> "Network":
        """As many layers with next to no arithmetic, on one row."""
        raise NotImplementedError

    def arrays(self, count: int) -> Arrays:
        """So many rows, by the names that they have in the engine's file."""
        raise NotImplementedError

    def initial(self) -> Arrays:
        """Initial parameters, float32, those of the engine with seed ``SEED``."""
        found = {}
        for index, (name, parameter) in enumerate(self.parameters.items()):
            found[name] = np.zeros(parameter.shape, np.float32)
            parameter.initial(found[name], SEED, index)
        return found


# -- images ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ResNet(Network):
    """In the form for CIFAR: three stages of ``blocks`` blocks of two convolutions, with ``width``, 2 and 4 times as many channels."""

    blocks: int = 3
    width: int = 16
    image: tuple[int, int, int] = (32, 32, 3)
    classes: int = 10

    @property
    def block_shapes(self) -> list[tuple[str, int, int, int]]:
        """Path, inputs, outputs and stride of every block."""
        found, inputs = [], self.width
        for stage in range(3):
            for number in range(self.blocks):
                outputs = self.width << stage
                path = f"stage{stage}_block{number}/residual"
                found.append((path, inputs, outputs, 2 if stage and not number else 1))
                inputs = outputs
        return found

    @property
    def parameters(self) -> dict[str, Parameter]:
        found = _convolution("stem", 3, self.image[2], self.width)
        for path, inputs, outputs, stride in self.block_shapes:
            if stride > 1 or inputs != outputs:
                found |= _convolution(f"{path}/shortcut", 1, inputs, outputs)
            found |= _convolution(f"{path}/body/first", 3, inputs, outputs)
            found |= _convolution(f"{path}/body/second", 3, outputs, outputs)
        weight = Parameter((4 * self.width, self.classes), glorot_uniform, True)
        return found | {
            "classes/weight": weight,
            "classes/bias": Parameter((self.classes,), zeros),
        }

    @property
    def own_options(self) -> dict[str, Any]:
        return {"width": self.width}

    @property
    def attributes(self) -> dict[str, dict[str, Any]]:
        return {"": {"classes": [str(number) for number in range(self.classes)]}}

    @property
    def bare(self) -> Network:
        return replace(self, width=1, image=(4, 4, 1), classes=2)

    def arrays(self, count: int) -> Arrays:
        """Images, channels last, of a pattern for each class and noise."""
        y = _whole(_CLASSES, count, self.classes)
        centres = _uniform(_CENTRES, self.classes * prod(self.image)).reshape(self.classes, -1)
        x = _uniform(_NOISE, count * prod(self.image)).reshape(count, -1)
        x *= 2
        x += centres[y]
        return {"train/x": x.reshape(count, *self.image), "train/y": y}


def _convolution(path: str, size: int, inputs: int, outputs: int) -> dict[str, Parameter]:
    """And the batch normalisation behind it."""
    return {
        f"{path}/conv/weight": Parameter((size, size, inputs, outputs), he_uniform, True),
        f"{path}/norm/weight": Parameter((outputs,), ones),
        f"{path}/norm/bias": Parameter((outputs,), zeros),
        f"{path}/norm/running_mean": Parameter((outputs,), zeros, is_running=True),
        f"{path}/norm/running_variance": Parameter((outputs,), ones, is_running=True),
    }


# -- texts -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Gpt(Network):
    """A decoder in the layout of GPT-2; the last layer's weight is the embedding's."""

    layers: int
    width: int
    heads: int
    context: int
    vocabulary: int = 65

    @property
    def parameters(self) -> dict[str, Parameter]:
        width, usual = self.width, normal(0.02)
        ending = normal(0.02 / sqrt(2 * self.layers))
        found = {
            "embedding/weight": Parameter((self.vocabulary, width), usual, True),
            "positions/weight": Parameter((self.context, width), usual, True),
        }
        for number in range(self.layers):
            for part, first, inner in (("attention", "qkv", 3), ("feed_forward", "up", 4)):
                path = f"block{number}/{part}/body"
                found |= _norm(f"{path}/norm", width)
                found |= _dense(f"{path}/{first}", width, inner * width, usual)
                inputs = width if part == "attention" else inner * width
                found |= _dense(f"{path}/out", inputs, width, ending)
        return found | _norm("norm", width)

    @property
    def own_options(self) -> dict[str, Any]:
        return {"layers": self.layers, "width": self.width, "heads": self.heads}

    @property
    def attributes(self) -> dict[str, dict[str, Any]]:
        return {"train/tokens": {"values": self.vocabulary, "context": self.context}}

    @property
    def bare(self) -> Network:
        return replace(self, width=self.heads, context=2, vocabulary=2)

    def arrays(self, count: int) -> Arrays:
        """A stream in which a token says much of the next; row i is tokens i * context and on, and one behind them is the last target."""
        steps = 1 + _whole(_TOKENS, count * self.context + 1, 3)
        return {"train/tokens": (np.cumsum(steps) % self.vocabulary).astype(np.uint8)}


def _norm(path: str, width: int) -> dict[str, Parameter]:
    return {
        f"{path}/weight": Parameter((width,), ones),
        f"{path}/bias": Parameter((width,), zeros),
    }


def _dense(path: str, inputs: int, outputs: int, initial: Initial) -> dict[str, Parameter]:
    return {
        f"{path}/weight": Parameter((inputs, outputs), initial, True),
        f"{path}/bias": Parameter((outputs,), zeros),
    }


# -- tables ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class WideAndDeep(Network):
    """A linear model of numbers, categories and crosses, and an MLP over numbers and embeddings, added up."""

    numbers: int = 13
    values: tuple[int, ...] = (1000, 500, 200, 100, 50, 24, 12, 7)
    # None has more values than buckets: then torch needs no hash to have the same.
    crosses: tuple[tuple[int, int], ...] = ((5, 6), (4, 7), (6, 7))
    hidden: tuple[int, ...] = (256, 128)
    width: int = 0
    classes: int = 2

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the embeddings."""
        return tuple(self.width or min(50, int(np.ceil(1.6 * v**0.56))) for v in self.values)

    @property
    def feature_counts(self) -> tuple[int, ...]:
        """Values of every column, then of every cross."""
        return (*self.values, *(self.values[a] * self.values[b] for a, b in self.crosses))

    @property
    def parameters(self) -> dict[str, Parameter]:
        wide = (sum(self.feature_counts), self.classes)
        found = {
            "wide/numbers/linear/weight": Parameter((self.numbers, self.classes), zeros, True),
            "wide/categories/weight": Parameter(wide, zeros, True),
        }
        for column, shape in enumerate(zip(self.values, self.widths, strict=True)):
            path = f"deep/features/categories/column{column}"
            found[path] = Parameter(shape, normal(0.1), True)
        inputs = self.numbers + sum(self.widths)
        for number, outputs in enumerate(self.hidden):
            found |= _dense(f"deep/hidden{number}", inputs, outputs, he_uniform)
            inputs = outputs
        return found | _dense("deep/out", inputs, self.classes, glorot_uniform)

    @property
    def own_options(self) -> dict[str, Any]:
        crosses = tuple(f"{a}*{b}" for a, b in self.crosses)
        return {"crosses": crosses, "embedding_width": self.width}

    @property
    def config(self) -> dict[str, Any]:
        return {**super().config, "hidden": self.hidden}

    @property
    def attributes(self) -> dict[str, dict[str, Any]]:
        return {
            "": {"classes": [str(number) for number in range(self.classes)]},
            "train/inputs/categories": {
                "kind": "categories",
                "values": np.array(self.values, np.int64),
            },
        }

    @property
    def bare(self) -> Network:
        count = len(self.values)
        return replace(
            self, numbers=1, values=(2,) * count, hidden=(1,) * len(self.hidden), width=1
        )

    def arrays(self, count: int) -> Arrays:
        """Numbers, codes, and classes that follow from a number and two codes."""
        x = 2 * _uniform(_NOISE, count * self.numbers).reshape(count, self.numbers)
        codes = [_whole(_CODES + j, count, v) for j, v in enumerate(self.values)]
        y = (x[:, 0] + (codes[-1] + codes[-2]) % 3 - 1 > 0).astype(np.int64)
        categories = np.stack(codes, axis=1).astype(np.int32)
        return {"train/x": x, "train/inputs/categories": categories, "train/y": y}

    def wide_rows(self, categories: np.ndarray) -> np.ndarray:
        """Rows of the wide part's weight that each row of ``categories`` adds up, int64 (rows, columns and crosses)."""
        crosses = [categories[:, a] * self.values[b] + categories[:, b] for a, b in self.crosses]
        features = np.concatenate([categories, np.stack(crosses, axis=1)], axis=1)
        starts = np.cumsum((0, *self.feature_counts[:-1]))
        return (features + starts).astype(np.int64)


def _whole(stream: int, count: int, below: int) -> np.ndarray:
    """int64, at random."""
    return (counter_random.bits(SEED, stream, count) % np.uint64(below)).astype(np.int64)


def _uniform(stream: int, count: int) -> np.ndarray:
    """float32 in [-0.5, 0.5)."""
    return (counter_random.uniform(SEED, stream, count) - 0.5).astype(np.float32)


_gpt = partial(Gpt, model="gpt", optimizer="adamw", learning_rate=1e-3, weight_decay=0.1)
NETWORKS = {
    network.name: network
    for network in (
        ResNet(
            name="resnet-20",
            model="resnet20",
            optimizer="momentum",
            learning_rate=0.005,
            mixes_rows=True,
        ),
        _gpt(name="gpt-4x128", layers=4, width=128, heads=4, context=64),
        _gpt(name="gpt-6x384", layers=6, width=384, heads=6, context=256),
        WideAndDeep(
            name="wide-and-deep", model="wide_and_deep", optimizer="adam", learning_rate=1e-3
        ),
    )
}
