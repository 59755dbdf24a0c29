"""What a torch module is made of, as the engine sees it, each part under its name in ``state_dict``.

    trained     its parameters; one that several layers share (tied weights) once, under its first name
    statistics  running mean and variance of normalisations: averaged over the rows of a step, no gradient (``Model.averaged``)
    constants   all other buffers, which nothing may change: tables of positions, masks

Statistics stand behind the parameters of their layer, as in ``state_dict``; what counts batches is left alone.
"""

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lepton_mpi.errors import ConfigurationError

_STATISTICS = ("running_mean", "running_var")


class Buffer(NamedTuple):
    """A buffer of a layer, and what it was when the module was given."""

    layer: nn.Module
    key: str
    given: Tensor

    def put(self, tensor: Tensor) -> None:
        """Another tensor in its place; the layer computes with it from then on."""
        self.layer._buffers[self.key] = tensor


class Parts(NamedTuple):
    """See the module.

    Attributes
    ----------
    order : list of str
        Names of ``trained`` and ``statistics`` as they lie in the flat vector.
    shares : dict of str to float
        Of each of the statistics, by which share a step moves it to the mean of the step: torch's ``momentum``.
    """

    name: str
    order: list[str]
    trained: dict[str, nn.Parameter]
    statistics: dict[str, Buffer]
    constants: dict[str, Buffer]
    shares: dict[str, float]

    def given(self) -> dict[str, Tensor]:
        """Values that a run begins with, by name."""
        values = {name: buffer.given for name, buffer in self.statistics.items()}
        return values | {name: parameter.detach() for name, parameter in self.trained.items()}

    def fingerprint(self) -> str:
        """BLAKE2b of all values, constants included."""
        blake = hashlib.blake2b(digest_size=16)
        constants = {name: buffer.given for name, buffer in self.constants.items()}
        for name, tensor in (self.given() | constants).items():
            blake.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            blake.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
        return blake.hexdigest()


def parts_of(module: nn.Module) -> Parts:
    """Raises ConfigurationError for what the engine cannot train: other devices and types, memory that parameters share."""
    parts = Parts(type(module).__name__, [], {}, {}, {}, {})
    seen: set[int] = set()
    for prefix, layer in module.named_modules():
        _check_layer(parts.name, prefix, layer)
        for key, parameter in layer._parameters.items():
            name = _joined(prefix, key)
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                _check_parameter(parts.name, name, parameter)
                parts.trained[name] = parameter
                parts.order.append(name)
        _take_buffers(parts, prefix, layer)
    if not any(parameter.requires_grad for parameter in parts.trained.values()):
        raise ConfigurationError(
            f"model {parts.name}: expected a torch module with parameters to train, got "
            + ("all of them with requires_grad = False" if parts.trained else "one without")
        )
    _check_memory(parts)
    return parts


def normalisations(module: nn.Module) -> Iterator[tuple[str, _NormBase]]:
    """Layers with running statistics, by name."""
    for prefix, layer in module.named_modules():
        if isinstance(layer, _NormBase) and layer.running_mean is not None:
            yield prefix, layer


def _take_buffers(parts: Parts, prefix: str, layer: nn.Module) -> None:
    is_norm = isinstance(layer, _NormBase)
    for key, tensor in layer._buffers.items():
        if tensor is None or (is_norm and key == "num_batches_tracked"):
            continue
        name, buffer = _joined(prefix, key), Buffer(layer, key, tensor)
        if tensor.device.type != "cpu":
            raise _refused(parts.name, f"buffer {name}", "on the CPU", f"on {tensor.device}")
        if is_norm and key in _STATISTICS:
            parts.statistics[name] = buffer
            parts.shares[name] = layer.momentum
            parts.order.append(name)
        else:
            parts.constants[name] = buffer


def _check_layer(model: str, prefix: str, layer: nn.Module) -> None:
    where = f"layer {prefix or type(layer).__name__}"
    if isinstance(layer, nn.SyncBatchNorm):
        raise ConfigurationError(
            f"model {model}: {where}: expected BatchNorm, whose statistics are those of a micro-batch, got SyncBatchNorm; "
            "--micro-batch of more rows makes them less noisy"
        )
    if isinstance(layer, _NormBase) and layer.running_mean is not None and layer.momentum is None:
        raise ConfigurationError(
            f"model {model}: {where}: expected a momentum, the share by which a step moves the running statistics, got None, the mean "
            "over all batches since the first"
        )


def _check_parameter(model: str, name: str, parameter: nn.Parameter) -> None:
    where = f"parameter {name}"
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise _refused(model, where, "of a known shape", "of a lazy layer; call it once before fit")
    if parameter.device.type != "cpu":
        raise _refused(model, where, "on the CPU", f"on {parameter.device}; module.cpu() moves it")
    if parameter.dtype not in (torch.float32, torch.float64):
        raise _refused(model, where, "float32 or float64", f"of {parameter.dtype}")
    if parameter.layout != torch.strided or not parameter.numel():
        raise _refused(
            model, where, "dense, with elements", f"{parameter.layout}, {tuple(parameter.shape)}"
        )


def _refused(model: str, where: str, expected: str, got: str) -> ConfigurationError:
    return ConfigurationError(f"model {model}: {where}: expected one {expected}, got one {got}")


def _check_memory(parts: Parts) -> None:
    """Raises ConfigurationError for parameters that are different objects in the same memory."""
    spans = []
    for name, parameter in parts.trained.items():
        strides = zip(parameter.shape, parameter.stride(), strict=True)
        last = sum((length - 1) * stride for length, stride in strides)
        start = parameter.data_ptr()
        spans.append((start, start + (last + 1) * parameter.element_size(), name))
    spans.sort()
    for (_, stop, first), (start, _, second) in pairwise(spans):
        if start < stop:
            raise ConfigurationError(
                f"model {parts.name}: parameters {first} and {second} share memory: expected one nn.Parameter for both, as "
                f"module.{second} = module.{first}, got two"
            )


def _joined(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else key
