"""``resnet8``, ``resnet20``, ``resnet32`` in the form for CIFAR, and ``resnet18`` in that for ImageNet.

    block:  relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))        two convolutions of 3x3
    CIFAR:  3x3 stem of w channels, three stages of n blocks with w, 2w, 4w channels, 6n + 2 layers
    ImageNet: 7x7 stem of w channels with stride 2, 3x3 max pooling with stride 2, four stages of 2 blocks with w to 8w channels

Every stage but the first begins with stride 2. Where the shape changes, the shortcut is a 1x1 convolution with its
normalisation (the paper's option B), elsewhere it is x itself. The end is the mean of all places and a dense layer.
Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from lepton_mpi.layers.activation import Activation
from lepton_mpi.layers.compose import Part, Residual, Sequential
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.pooling import AveragePool, MaxPool
from lepton_mpi.layers.windows import square
from lepton_mpi.models.built_network import network_for
from lepton_mpi.models.convolutional import convolution, rows_of
from lepton_mpi.models.model import DataFacts
from lepton_mpi.models.network import Network


def _build(
    name: str,
    stem: Callable[[int, str], dict[str, Part]],
    blocks: Sequence[int],
    options: Mapping[str, Any],
    data: DataFacts,
) -> Network:
    """``blocks`` of each stage; from the options of ``image_options.py``, ``loss`` and ``huber_delta``."""
    width, norm = options["width"], options["norm"]
    parts, channels = stem(width, norm), width
    for stage, count in enumerate(blocks):
        for number in range(count):
            stride = 2 if stage and not number else 1
            outputs = width << stage
            block = _block(outputs, stride, norm, changes=stride > 1 or outputs != channels)
            parts[f"stage{stage}_block{number}"] = block
            channels = outputs
    parts["pool"] = AveragePool()
    parts["classes"] = Dense(data.output_count)
    x = rows_of(name, data, 3)
    return network_for(name, Sequential(parts), {"x": x}, options, data)


def _block(outputs: int, stride: int, norm: str, changes: bool) -> Part:
    first = convolution(outputs, square(3, stride, padding=1), norm)
    second = convolution(outputs, square(3, padding=1), norm, relu=False)
    shortcut = convolution(outputs, square(1, stride), norm, relu=False) if changes else None
    body = Sequential({"first": first, "second": second})
    parts: dict[str, Part] = {"residual": Residual(body, shortcut)}
    return Sequential(parts | {"relu": Activation("relu")})


def _small_stem(width: int, norm: str) -> dict[str, Part]:
    return {"stem": convolution(width, square(3, padding=1), norm)}


def _large_stem(width: int, norm: str) -> dict[str, Part]:
    stem = convolution(width, square(7, stride=2, padding=3), norm)
    return {"stem": stem, "stem_pool": MaxPool(square(3, stride=2, padding=1))}


resnet8 = partial(_build, "resnet8", _small_stem, (1, 1, 1))
resnet20 = partial(_build, "resnet20", _small_stem, (3, 3, 3))
resnet32 = partial(_build, "resnet32", _small_stem, (5, 5, 5))
resnet18 = partial(_build, "resnet18", _large_stem, (2, 2, 2, 2))
