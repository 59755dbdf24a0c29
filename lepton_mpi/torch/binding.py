"""A module on the engine's memory: parameters and running statistics are views of its flat vectors.

parameters     ``parameter.data`` is the view: nothing is copied in a step
statistics     in training a layer writes those of its micro-batch into the gradient's views (momentum 1), times its rows; the
               optimizer moves the parameters by the layer's own momentum to the mean of the step. In evaluation the layer reads
               the parameters' views, and so it does in training where both are frozen.
gradients      autograd leaves each in memory of its own, from where it is copied into the gradient's view: behind the backward
               pass, or as soon as it is there, if the strategy sends it on (``Sync.follows``). Adding to views filled with
               zeros, which saves that memory, takes two passes more over it.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.sync import Sync
from lepton_mpi.torch.parts import Parts, normalisations
from lepton_mpi.vectors import Views

# Vectors of gradients whose tensors are kept: a rank has one for each level of its sum tree.
_GRADIENTS_MAX = 64


class Binding:
    """Ties ``module`` to the vectors that it is called with; ``release`` gives it memory of its own again."""

    def __init__(self, module: nn.Module, parts: Parts) -> None:
        self._module, self._parts = module, parts
        self._trained = {n: p for n, p in parts.trained.items() if p.requires_grad}
        self._parameters: Mapping[str, Any] | None = None
        self._tensors: dict[str, Tensor] = {}
        self._gradients: dict[int, tuple[Views, dict[str, Tensor]]] = {}
        self._dtype: np.dtype[Any] | None = None
        self._momenta: dict[_NormBase, float | None] = {}
        self._counters: dict[_NormBase, Tensor | None] = {}
        self._fixed: set[str] = set()
        self._frozen: list[nn.Parameter] = []
        self._mode: str = ""
        self._hooks: list[Any] = []
        # Of the backward pass that is under way, if its strategy follows.
        self._sync: Sync | None = None
        self._views: dict[str, Tensor] = {}
        self._told: set[str] = set()

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """Parameters that get a gradient, by name."""
        return self._trained

    def freeze(self, names: Collection[str]) -> None:
        """These parameters and statistics stay. Raises ConfigurationError for one of two statistics."""
        self._trained = {n: p for n, p in self._trained.items() if n not in names}
        for name, parameter in self._parts.trained.items():
            if name in names and parameter.requires_grad:
                parameter.requires_grad_(False)
                self._frozen.append(parameter)
        self._fixed |= self._parts.statistics.keys() & set(names)
        for prefix, _ in normalisations(self._module):
            start = f"{prefix}." if prefix else ""
            found = [name for name in self._fixed if name.rpartition(".")[0] == prefix]
            if len(found) == 1:
                raise ConfigurationError(
                    f"--freeze: expected both running_mean and running_var of {start or 'the module'}, or neither, got {found[0]}"
                )

    def mixes_rows(self) -> bool:
        """Whether a layer normalises by its micro-batch."""
        norms = normalisations(self._module)
        batch_norms = [
            n for n, layer in norms if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        ]
        return any(f"{n}.running_mean".lstrip(".") not in self._fixed for n in batch_norms)

    def to_train(self, parameters: Mapping[str, Any], gradient: Views) -> None:
        """Before the forward pass of training."""
        self._bind(parameters)
        self._set_mode("training")
        views = self._views_of(gradient)
        for name, buffer in self._parts.statistics.items():
            if name not in self._fixed:
                # What was there before would be NaN times 0.
                buffer.put(views[name].zero_())

    def to_evaluate(self, parameters: Mapping[str, Any]) -> None:
        """Before the forward pass of evaluation."""
        self._bind(parameters)
        if self._mode != "evaluation":
            self._set_mode("evaluation")
            for name, buffer in self._parts.statistics.items():
                buffer.put(self._tensors[name])

    def backward(self, loss: Tensor, rows: int, gradient: Views, sync: Sync) -> list[str]:
        """Fill ``gradient``; parameters that the loss does not depend on get 0, and are returned."""
        views = self._views_of(gradient)
        if sync.follows:
            return self._backward_in_sync(loss, rows, views, sync)
        loss.backward()
        targets, sources, missing = [], [], []
        for name, parameter in self._trained.items():
            if parameter.grad is None:
                missing.append(name)
                continue
            targets.append(views[name])
            sources.append(self._checked(name, parameter.grad))
            parameter.grad = None
        torch._foreach_copy_(targets, sources)
        self._finish(views, rows, missing)
        return missing

    def release(self, parameters: Mapping[str, Any]) -> None:
        """Copies of ``parameters`` for the module, which is left in evaluation; everything else as it was given."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        dtype = next(iter(parameters.values())).dtype
        values = {name: torch.from_numpy(array.copy()) for name, array in parameters.items()}
        for name, parameter in self._parts.trained.items():
            parameter.data, parameter.grad = values[name], None
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        for name, buffer in self._parts.statistics.items():
            buffer.put(values[name])
        self._convert_constants(dtype)
        for layer, momentum in self._momenta.items():
            layer.momentum = momentum
            layer._buffers["num_batches_tracked"] = self._counters[layer]
        self._momenta, self._counters, self._gradients, self._views = {}, {}, {}, {}
        self._parameters, self._tensors, self._mode = None, {}, ""
        self._module.eval()

    def _bind(self, parameters: Mapping[str, Any]) -> None:
        # A name of ``Views`` keeps its array; other mappings may change.
        if parameters is self._parameters and isinstance(parameters, Views):
            return
        dtype = next(iter(parameters.values())).dtype
        if dtype != self._dtype:
            self._convert_constants(dtype)
            self._dtype = dtype
        self._tensors = {name: torch.from_numpy(array) for name, array in parameters.items()}
        for name, parameter in self._parts.trained.items():
            parameter.data = self._tensors[name]
        self._parameters, self._mode = parameters, ""

    def _convert_constants(self, dtype: np.dtype[Any]) -> None:
        wanted = torch.float64 if dtype == np.float64 else torch.float32
        for buffer in self._parts.constants.values():
            if buffer.given.is_floating_point():
                buffer.put(buffer.given.to(wanted))

    def _set_mode(self, mode: str) -> None:
        if self._mode == mode:
            return
        self._mode = mode
        self._module.train(mode == "training")
        for prefix, layer in normalisations(self._module):
            if layer not in self._momenta:
                self._momenta[layer] = layer.momentum
                self._counters[layer] = layer.num_batches_tracked
                layer._buffers["num_batches_tracked"] = None
            layer.momentum = 1.0
            name = f"{prefix}.running_mean".lstrip(".")
            if name in self._fixed:
                layer.eval()
                for each in (name, f"{prefix}.running_var".lstrip(".")):
                    self._parts.statistics[each].put(self._tensors[each])

    def _views_of(self, gradient: Views) -> dict[str, Tensor]:
        found = self._gradients.get(id(gradient))
        if found is None:
            found = gradient, {name: torch.from_numpy(array) for name, array in gradient.items()}
            if isinstance(gradient, Views):
                if len(self._gradients) >= _GRADIENTS_MAX:
                    self._gradients.clear()
                self._gradients[id(gradient)] = found
        return found[1]

    def _checked(self, name: str, gradient: Tensor) -> Tensor:
        if gradient.layout != torch.strided:
            raise ConfigurationError(
                f"model {self._parts.name}: parameter {name}: expected a dense gradient, got one of {gradient.layout}; "
                "nn.Embedding(…, sparse=False) gives such"
            )
        return gradient

    def _finish(self, views: dict[str, Tensor], rows: int, missing: list[str]) -> None:
        """Sums of statistics over the rows, and 0 for what has no gradient."""
        for name in self._parts.statistics:
            if name in self._fixed:
                views[name].zero_()
            else:
                views[name].mul_(rows)
        for name in missing:
            views[name].zero_()
        for name in self._parts.trained.keys() - self._trained.keys():
            views[name].zero_()

    def _backward_in_sync(
        self, loss: Tensor, rows: int, views: dict[str, Tensor], sync: Sync
    ) -> list[str]:
        if not self._hooks:
            for name, parameter in self._trained.items():
                hook = self._hook_of(name)
                self._hooks.append(parameter.register_post_accumulate_grad_hook(hook))
        self._sync, self._views, self._told = sync, views, set()
        try:
            loss.backward()
        finally:
            self._sync, self._views = None, {}
        missing = [name for name in self._trained if name not in self._told]
        self._finish(views, rows, missing)
        return missing

    def _hook_of(self, name: str) -> Any:
        def take(parameter: Tensor) -> None:
            if self._sync is None:
                return
            if name in self._told:
                raise ConfigurationError(
                    f"model {self._parts.name}: parameter {name}: expected one gradient in a backward pass, got a second one: "
                    "checkpointing of a part that shares it needs use_reentrant=False"
                )
            assert parameter.grad is not None, "it has just been accumulated"
            self._views[name].copy_(self._checked(name, parameter.grad))
            parameter.grad = None
            self._told.add(name)
            self._sync.done(name)

        return take
