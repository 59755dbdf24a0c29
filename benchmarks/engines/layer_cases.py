"""The layers that ``benchmarks/layers.py`` times: shapes, values and the clock, the same for every engine. Needs NumPy only.

Values are functions of a case's name and the number of an array. Arrays have the engine's shapes: channels last, and of weights
the outputs; torch turns them. ``results`` of both are compared.
"""

import argparse
import statistics
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import Row
from lepton_mpi.kernels import counter_random

# What a sample of the clock takes at least, and how many there are at least.
_SAMPLE_SECONDS, _SAMPLES_MIN = 1e-3, 5
# Elements of an array that are compared, taken at even distances.
COMPARED_MAX = 200_000


class LayerCase(NamedTuple):
    """A layer on one batch.

    Attributes
    ----------
    name : str
    kind : str
        Which layer; both engines have a function of this name.
    shape : tuple of int
        Of the input, rows first.
    options : mapping
        Of that function.
    operations : int
        Of the products of the forward pass; the backward pass has twice as many. 0: there are none.
    is_random : bool
        Values are random numbers of each engine's own: only how many are 0 is compared.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    options: Mapping[str, Any]
    operations: int = 0
    is_random: bool = False

    @property
    def shape_text(self) -> str:
        """As in 32x16x16x32."""
        return "x".join(map(str, self.shape))

    def values(self, number: int, shape: Sequence[int], scale: float = 1.0) -> np.ndarray:
        """float32, uniform in ±``scale``; ``number`` is 0 of the input, 1 of the slope of the output, from 2 on of parameters."""
        uniform = counter_random.uniform(self._seed, number, prod(shape))
        return (scale * (2 * uniform - 1)).astype(np.float32).reshape(shape)

    def codes(self, number: int, shape: Sequence[int], below: int) -> np.ndarray:
        """int32, in [0, below)."""
        bits = counter_random.bits(self._seed, number, prod(shape))
        return (bits % np.uint64(below)).astype(np.int32).reshape(shape)

    def parameter(self, number: int, shape: Sequence[int]) -> np.ndarray:
        """Parameter ``number`` of the layer, counted from 0: so large that outputs keep the size of inputs."""
        size = prod(shape[:-1]) if len(shape) > 1 else 1
        return self.values(2 + number, shape, (3 / size) ** 0.5)

    @property
    def _seed(self) -> int:
        return zlib.crc32(self.name.encode())


def _conv(
    name: str, image: tuple[int, int, int, int], outputs: int, size: int = 3, **more: int
) -> LayerCase:
    rows, height, width, channels = image
    stride, groups = more.get("stride", 1), more.get("groups", 1)
    places = rows * -(-height // stride) * -(-width // stride)
    operations = 2 * places * size * size * channels // groups * outputs
    options = {"outputs": outputs, "size": size, "stride": stride, "groups": groups}
    return LayerCase(name, "conv2d", image, options, operations)


def _conv1d(name: str, shape: tuple[int, int, int], outputs: int, size: int) -> LayerCase:
    operations = 2 * shape[0] * shape[1] * size * shape[2] * outputs
    return LayerCase(name, "conv1d", shape, {"outputs": outputs, "size": size}, operations)


def _attention(rows: int, length: int, heads: int = 6, size: int = 64) -> LayerCase:
    # Two products of which a causal one needs the half on and below the diagonal.
    operations = 2 * 2 * rows * heads * length * (length + 1) // 2 * size
    shape = rows, length, 3 * heads * size
    return LayerCase(f"Attention T={length}", "attention", shape, {"heads": heads}, operations)


def _dense(rows: int, inputs: int, outputs: int) -> LayerCase:
    operations = 2 * rows * inputs * outputs
    name = f"Dense {inputs}-{outputs}"
    return LayerCase(name, "dense", (rows, inputs), {"outputs": outputs}, operations)


def _gru(rows: int, length: int, inputs: int, width: int) -> LayerCase:
    operations = 2 * rows * length * (inputs + width) * 3 * width
    shape = rows, length, inputs
    return LayerCase(f"GRU {inputs}-{width}", "gru", shape, {"width": width}, operations)


_IMAGES, _TEXT = (64, 32, 32, 16), (16, 256, 384)
CASES = (
    _conv("Conv2d 3x3 16", (64, 32, 32, 16), 16),
    _conv("Conv2d 3x3 32", (64, 16, 16, 32), 32),
    _conv("Conv2d 3x3 64", (64, 8, 8, 64), 64),
    _conv("Conv2d 3x3 16-32 /2", (64, 32, 32, 16), 32, stride=2),
    _conv("Conv2d 1x1 64-128", (64, 8, 8, 64), 128, 1),
    _conv("Conv2d 3x3 64 depthwise", (64, 16, 16, 64), 64, groups=64),
    _conv1d("Conv1d 5 64", (32, 128, 64), 64, 5),
    LayerCase("BatchNorm + ReLU", "batch_norm", _IMAGES, {}),
    LayerCase("GroupNorm 4", "group_norm", (64, 16, 16, 32), {"groups": 4}),
    LayerCase("LayerNorm", "layer_norm", _TEXT, {}),
    LayerCase("RMSNorm", "rms_norm", _TEXT, {}),
    LayerCase("MaxPool 3x3 /2", "max_pool", _IMAGES, {"size": 3, "stride": 2, "padding": 1}),
    LayerCase("AveragePool 2x2 /2", "average_pool", _IMAGES, {"size": 2, "stride": 2}),
    LayerCase("AveragePool of all", "global_pool", (64, 8, 8, 64), {}),
    LayerCase("Embedding 4096x384", "embedding", (16, 256), {"values": 4096, "width": 384}),
    _attention(16, 64),
    _attention(16, 256),
    _attention(4, 1024),
    LayerCase("GELU", "gelu", (16, 256, 1536), {"tanh": False}),
    LayerCase("GELU tanh", "gelu", (16, 256, 1536), {"tanh": True}),
    LayerCase("SwiGLU", "swiglu", (16, 256, 2048), {}),
    LayerCase("Dropout 0.1", "dropout", _TEXT, {"rate": 0.1}, is_random=True),
    _gru(64, 49, 20, 64),
    _dense(64, 784, 128),
    _dense(1024, 128, 512),
    _dense(4096, 384, 1536),
    LayerCase(
        "TokenLoss 4096, both", "token_loss", (4, 256, 384), {"values": 4096}, 2 * 1024 * 384 * 4096
    ),
)


def parser() -> argparse.ArgumentParser:
    """Options that every engine's program has."""
    made = argparse.ArgumentParser()
    made.add_argument("--layers", nargs="*", default=[case.name for case in CASES])
    made.add_argument("--seconds", type=float, default=0.2, help="of each pass")
    made.add_argument("--values", required=True, help="file for what came out")
    made.add_argument("--json", required=True)
    return made


def chosen(names: Sequence[str]) -> list[LayerCase]:
    """In their order."""
    return [case for case in CASES if case.name in names]


def microseconds(call: Callable[[], Any], seconds: float) -> float:
    """Median of a call, in samples of as many calls as take a millisecond."""
    call()
    began = time.perf_counter()
    call()
    repeats = max(1, int(_SAMPLE_SECONDS / max(1e-7, time.perf_counter() - began)))
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples) < _SAMPLES_MIN:
        began = time.perf_counter()
        for _ in range(repeats):
            call()
        samples.append((time.perf_counter() - began) / repeats)
    return statistics.median(samples) * 1e6


def layer_row(
    case: LayerCase, engine: str, forward: float | None, backward: float, **more: Any
) -> Row:
    """The row of a case; forward is None where both passes are one call."""
    total = (forward or 0) + backward
    return {
        "layer": case.name,
        "shape": case.shape_text,
        "engine": engine,
        "forward_us": forward,
        "backward_us": backward,
        "time_us": total,
        "min_us": total,
        "gflops": 3e-3 * case.operations / total if case.operations else None,
        "wrong": 0,
        **more,
    }


def sample(array: np.ndarray) -> np.ndarray:
    """What is compared of an array."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat[:: max(1, flat.size // COMPARED_MAX)].copy()
