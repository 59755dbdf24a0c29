"""``model``: a torch module as a model of ``fit`` and of ``--model FILE.py:NAME``.

    a step      the module's parameters are views of the flat vector (``binding.py``) -> forward -> loss, summed over the rows
                (``losses.py``) -> backward; gradients go into the gradient's views, and are told of (``Sync.done``) one by one
    same bits   a micro-batch has the same rows on any rank, its loss and gradient are computed by the same calls, with the same
                number of threads, and the engine adds them up in one order
    random      torch's generator is seeded before each micro-batch by the step's ``draw`` and its first row: dropout is
                the same on any number of ranks. It is no function of a row alone: another --micro-batch drops other elements.
    values      a run begins with the module's own. What ``fit`` makes by a class or function is made again with the generator seeded
                by --seed; an object's values must be the same on all ranks, so ``torch.manual_seed`` comes first in the program
    the end     the module that was given, or made, has the trained values in memory of its own: ``result["module"]``

Only gradients overlap with the exchange between hosts: a step begins when all parameters are there, since a module may read
parameters of another one outside of its ``forward``.
"""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lepton_mpi.batch import Batch
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.layer import Array, Sums
from lepton_mpi.models.model import DataFacts, Model
from lepton_mpi.models.other_libraries import Described, Make
from lepton_mpi.sync import Sync
from lepton_mpi.torch import first_micro_batch
from lepton_mpi.torch.binding import Binding
from lepton_mpi.torch.losses import Loss, LossFunction, targets_of
from lepton_mpi.torch.parts import parts_of
from lepton_mpi.vectors import Views

# The seed under which a class or function makes the module whose constants are used.
_CONSTANTS_SEED = 0
_ALIGNMENT_BYTES = 64
_WORD = (1 << 64) - 1


def model(
    module: nn.Module | Callable[[tuple[int, ...], int], nn.Module],
    loss: str | LossFunction = "auto",
    *,
    reduction: str | None = None,
    channels_first: bool = False,
    mixes_rows: bool = False,
) -> "TorchModule":
    """A torch module for ``fit``, or to be returned by the NAME of ``--model FILE.py:NAME``.

    Parameters
    ----------
    module : nn.Module, or callable (feature_shape, output_count) -> nn.Module
        Called with the input, of the run's float type, shape (rows, *feature_shape), or int64 tokens; or with all inputs by
        name, if the data have several. Returns outputs (rows, classes), (rows, targets) or (rows, length, tokens): scores
        before the softmax.
    loss : {"auto", "cross_entropy", "mse", "huber"} or callable (outputs, targets) -> scalar
        See ``losses.py``. A callable gives a mean over the rows of a micro-batch, of texts over the tokens that count, which come
        as (rows * length, tokens) and (rows * length,).
    reduction : {"mean", "sum"}, optional
        What a callable gives; by default what its attribute ``reduction`` says, and else "mean".
    channels_first : bool
        Rows of shape (height, width, channels) come to the module as (rows, channels, height, width), without a copy.
    mixes_rows : bool
        True if a row's outputs depend on the other rows of its micro-batch. Layers of BatchNorm and random numbers of torch
        are noticed without it.

    Raises
    ------
    ConfigurationError
        From ``fit``, on every rank: see ``parts.py`` and ``first_micro_batch.py``.
    """
    return TorchModule(module, loss, reduction, channels_first, mixes_rows)


class TorchModule(Described):
    """What ``model`` returns."""

    def __init__(
        self,
        module: nn.Module | Callable[[tuple[int, ...], int], nn.Module],
        loss: str | LossFunction,
        reduction: str | None,
        channels_first: bool,
        mixes_rows: bool,
    ) -> None:
        self.module, self.loss, self.reduction = module, loss, reduction
        self.channels_first, self.mixes_rows = channels_first, mixes_rows

    def adapt(self, data: DataFacts, threads: int, make: Make | None) -> "TorchModel":
        torch.set_num_threads(threads)
        given = self.module
        if not isinstance(given, nn.Module):
            of_data = given
            make = lambda: of_data(data.feature_shape, data.output_count)  # noqa: E731
        made = given if make is None else _made(make, _CONSTANTS_SEED)
        assert isinstance(made, nn.Module), "checked"
        return TorchModel(made, self, data, make)


def _made(make: Make, seed: int) -> nn.Module:
    """The module that ``make`` returns, perhaps described, with torch's generator seeded. Raises ConfigurationError."""
    torch.manual_seed(seed)
    made = make()
    if isinstance(made, TorchModule):
        made = made.module
    if isinstance(made, nn.Module):
        return made
    raise ConfigurationError(
        f"lepton_mpi.torch.model: expected an nn.Module, or what is called with (feature_shape, output_count) and returns one, got "
        f"{type(made).__name__}"
    )


class TorchModel(Model):
    """See the module, and ``Model``."""

    def __init__(
        self, module: nn.Module, chosen: TorchModule, data: DataFacts, make: Make | None
    ) -> None:
        self.module, self._make = module, make
        parts = self._parts = parts_of(module)
        self.name = parts.name
        given = parts.given()
        self.shapes = {name: tuple(given[name].shape) for name in parts.order}
        self.inputs = dict(data.inputs)
        self.task = "classes" if data.class_count else "targets"
        self.averaged = parts.shares
        # In torch the first dimension of every weight is that of its outputs.
        self.outputs_first = [name for name, shape in self.shapes.items() if len(shape) >= 2]
        self.frozen = frozenset(n for n, p in parts.trained.items() if not p.requires_grad)
        # Values that ``initialise`` makes by --seed are the same anyway.
        self.fingerprint = parts.fingerprint()
        self._loss = Loss(self.name, chosen.loss, chosen.reduction)
        self._channels_first, self._says_mixes = chosen.channels_first, chosen.mixes_rows
        self._binding = Binding(module, parts)
        self.mixes_rows = self._says_mixes or self._binding.mixes_rows()
        self._is_tried = False

    def __str__(self) -> str:
        layers = sum(1 for layer in self.module.modules() if not any(layer.children()))
        return f"{self.name} of torch, {layers} layers, loss {self._loss}"

    def initialise(self, parameters: Views, seed: int) -> None:
        values = self._parts.given()
        if self._make is not None:
            values = parts_of(_made(self._make, seed)).given()
        for name, array in parameters.items():
            array[...] = values[name].numpy()

    def freeze(self, names: Collection[str]) -> None:
        self._binding.freeze(names)
        self.frozen = frozenset([*self.frozen, *names])
        self.mixes_rows = self._says_mixes or self._binding.mixes_rows()

    def loss_and_gradient(
        self, parameters: Views, batch: Batch, gradient: Views, sync: Sync
    ) -> Sums:
        if not self._is_tried:
            first_micro_batch.check(self, parameters, batch, gradient)
            self._is_tried = True
        return self.compute(parameters, batch, gradient, sync)[0]

    def compute(
        self, parameters: Views, batch: Batch, gradient: Views, sync: Sync, seed: int = 0
    ) -> tuple[Sums, list[str]]:
        """Loss and gradient, and the parameters that got none; another ``seed`` draws other random numbers."""
        self._binding.to_train(parameters, gradient)
        torch.default_generator.manual_seed(_seed_of(batch) ^ seed)
        targets = targets_of(batch)
        with torch.enable_grad():
            outputs = self._outputs(batch)
            loss = self._loss.sum(outputs, targets)
        if not loss.requires_grad:
            raise ConfigurationError(
                f"model {self.name}: expected a loss that depends on the parameters, got one without a graph: computed under "
                "torch.no_grad(), or from numbers (detach, item, numpy)?"
            )
        missing = self._binding.backward(loss, len(batch.y), gradient, sync)
        correct = np.nan
        if targets.are_classes:
            correct = float(torch.count_nonzero(outputs.detach().argmax(-1) == targets.y))
        return (float(loss.detach()), correct), missing

    def evaluate(self, parameters: Views, batch: Batch, predicted: Array) -> float:
        self._binding.to_evaluate(parameters)
        targets = targets_of(batch)
        with torch.no_grad():
            outputs = self._outputs(batch)
            loss = float(self._loss.sum(outputs, targets))
            found = outputs.argmax(-1) if targets.are_classes else outputs.reshape(targets.y.shape)
        np.copyto(predicted, found.numpy(), casting="same_kind")
        return loss

    def predict(self, parameters: Views, batch: Batch, outputs: Array) -> None:
        self._binding.to_evaluate(parameters)
        with torch.no_grad():
            found = self._outputs(batch)
            if batch.y.dtype.kind != "f":
                # Of a text what stands behind the row.
                found = (found[:, -1] if found.ndim == 3 else found).softmax(-1)
        np.copyto(outputs, found.reshape(outputs.shape).numpy())

    def release(self, parameters: Views) -> dict[str, Any]:
        self._binding.release(parameters)
        return {"module": self.module}

    @property
    def binding(self) -> Binding:
        """For the checks of the first micro-batch."""
        return self._binding

    @property
    def parts(self) -> Any:
        """Of the module."""
        return self._parts

    def _outputs(self, batch: Batch) -> Tensor:
        found = {name: self._tensor(array) for name, array in batch.inputs.items()}
        if len(found) == 1:
            return self.module(*found.values())
        return self.module(**found)

    def _tensor(self, array: Array) -> Tensor:
        tensor = torch.from_numpy(array)
        if not tensor.is_floating_point():
            return tensor.long()
        if tensor.data_ptr() % _ALIGNMENT_BYTES:
            # Where an array begins decides how a matrix product adds up; torch's own memory begins so.
            tensor = tensor.clone()
        if self._channels_first and tensor.ndim == 4:
            return tensor.permute(0, 3, 1, 2)
        return tensor


def _seed_of(batch: Batch) -> int:
    """Of the step and the micro-batch's first row; all bits are mixed, since torch's generator takes the lower 32."""
    row = int(batch.rows[0]) if batch.rows is not None and len(batch.rows) else 0
    mixed = (batch.draw + (row + 1) * 0x9E3779B97F4A7C15) & _WORD
    # SplitMix64's finaliser, as in kernels/counter_random.py; arrays of one number would take 20 us.
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & _WORD
    return (mixed ^ (mixed >> 31)) >> 1
