"""Weights of a trained model in fewer bytes: pruned by magnitude, and as int8 with a scale for each output channel.

    pruned    the smallest |w| become 0: a share of each layer's weights, or of all layers' together
    int8      q = round(w / s), from -127 to 127, with s = max |w| of the channel / 127; read as s * q, off by s / 2 at most

Biases, scales of norms and running statistics stay as they are. Zeros and repeated codes are short behind gzip, with which the file is
written (``checkpoint.py``). Sources: Han, Pool, Tran, Dally, "Learning both weights and connections for efficient neural networks", NIPS
2015; Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, arXiv:1806.08342, section 3.1.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lepton_mpi.errors import DataError
from lepton_mpi.models.model import Model

Scope = Literal["layer", "all"]
LARGEST = 127


@dataclass(frozen=True)
class Compressed:
    """How parameters are stored.

    Attributes
    ----------
    axes : mapping of str to int
        Of each parameter that is stored as int8 the axis of its output channels.
    scales : mapping of str to array
        Of the same, of the type of the parameters, shape (channels,).
    prune : float
        The share that was pruned, and ``scope``; for people.
    """

    axes: Mapping[str, int] = field(default_factory=dict)
    scales: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    prune: float = 0.0
    scope: Scope = "layer"

    def as_json(self) -> str:
        """What ``unpack`` takes."""
        return json.dumps({"int8": dict(self.axes), "prune": self.prune, "scope": self.scope})

    def codes(self, name: str, array: NDArray[Any]) -> NDArray[np.int8]:
        """A parameter as it is stored."""
        scale = _along(self.scales[name], self.axes[name], array.ndim)
        quotient = array.astype(np.float64) / np.where(scale == 0, 1, scale)
        return np.clip(np.rint(quotient), -LARGEST, LARGEST).astype(np.int8)

    def numbers(self, name: str, codes: NDArray[np.int8]) -> NDArray[Any]:
        """A parameter as it is used, in the type of the scales."""
        scale = self.scales[name]
        return codes.astype(scale.dtype) * _along(scale, self.axes[name], codes.ndim)


def weights_of(model: Model) -> list[str]:
    """Parameters that are compressed: those that weight decay acts on, neither biases nor what belongs to norms."""
    if model.decayed is not None:
        return [name for name in model.shapes if name in model.decayed]
    shapes = model.shapes.items()
    return [name for name, shape in shapes if len(shape) >= 2 and name not in model.averaged]


def prune(weights: Sequence[NDArray[Any]], share: float, scope: Scope) -> None:
    """Make the smallest of them 0, in place: ``share`` of each, or of all of them; of equal ones the first."""
    for group in [[each] for each in weights] if scope == "layer" else [[*weights]]:
        sizes = np.concatenate([np.abs(each).reshape(-1) for each in group] or [np.zeros(0)])
        count = int(share * sizes.size)
        if not count:
            continue
        limit = np.partition(sizes, count - 1)[count - 1]
        is_zero = sizes < limit
        equal = np.flatnonzero(sizes == limit)
        is_zero[equal[: count - int(is_zero.sum())]] = True
        start = 0
        for each in group:
            each[is_zero[start : start + each.size].reshape(each.shape)] = 0
            start += each.size


def quantise(
    model: Model, weights: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, int], dict[str, NDArray[Any]]]:
    """Round weights, in place, to what int8 can say of them; returns axes and scales as ``Compressed`` has them.

    Raises DataError for weights that are not finite.
    """
    axes, scales = {}, {}
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise DataError(f"parameters/{name}: expected finite weights, got others")
        axis = 0 if name in model.outputs_first else max(0, array.ndim - 1)
        # A vector is the weight of one output.
        others = tuple(a for a in range(array.ndim) if a != axis or array.ndim < 2)
        largest = np.abs(array).max(axis=others, initial=0)
        scale = (largest / LARGEST).astype(array.dtype).reshape(-1)
        axes[name], scales[name] = axis, scale
        stored = Compressed({name: axis}, {name: scale})
        array[...] = stored.numbers(name, stored.codes(name, array))
    return axes, scales


def unpack(text: str, scales: Mapping[str, Any], arrays: dict[str, NDArray[Any]]) -> Compressed:
    """Put numbers in place of the ``arrays`` that are int8. Raises DataError, ValueError, LookupError, TypeError or AttributeError.

    ``scales`` are data sets by name, ``text`` is what ``as_json`` has made.
    """
    try:
        facts: dict[str, Any] = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"attribute compression: {error}") from None
    axes = dict(facts["int8"])
    found = {name: scales[name][()] for name in axes}
    how = Compressed(axes, found, float(facts["prune"]), facts["scope"])
    for name, axis in axes.items():
        _check(name, arrays[name], axis, found[name])
        arrays[name] = how.numbers(name, arrays[name])
    return how


def _check(name: str, codes: NDArray[Any], axis: object, scale: NDArray[Any]) -> None:
    """Whether a file's numbers are those of a parameter in int8. Raises DataError."""
    if type(axis) is not int or not 0 <= axis < codes.ndim:
        raise DataError(f"parameters/{name}: expected an axis of {codes.ndim}, got another")
    channels = codes.shape[axis] if codes.ndim > 1 else 1
    is_good = scale.dtype in (np.float32, np.float64) and scale.shape == (channels,)
    if not is_good or not np.isfinite(scale).all() or (scale < 0).any():
        raise DataError(
            f"scales/{name}: expected {channels} finite floats of at least 0, got {scale.dtype} of shape {scale.shape}"
        )
    if codes.dtype != np.int8 or codes.min(initial=0) < -LARGEST:
        raise DataError(
            f"parameters/{name}: expected int8 of at least -{LARGEST}, got {codes.dtype}"
        )


def _along(scale: NDArray[Any], axis: int, dimensions: int) -> NDArray[Any]:
    """In a shape that goes with an array of so many dimensions."""
    shape = [1] * dimensions
    if scale.size > 1:
        shape[axis] = scale.size
    return scale.reshape(shape)
