"""Losses of a torch module: a scalar for the rows of a micro-batch, and what it is a sum or a mean over.

    "cross_entropy"   softmax and cross-entropy: outputs (rows, classes), or (rows, length, tokens) for texts
    "mse"             the mean over the targets of a row: outputs (rows, targets)
    "huber"           the same with delta 1
    "auto"            cross_entropy for classes and tokens, mse for targets
    callable          (outputs, targets) -> scalar, a mean over what counts, or with reduction="sum" a sum

The engine adds up sums over rows (of texts over tokens) and divides by those of all micro-batches of a step, so a step's loss is the mean over
the step's rows, whatever the ranks. A mean is multiplied by the rows, or tokens, of its micro-batch.

Targets come as torch's own losses want them: int64 classes (rows,); floats (rows, targets); int64 next tokens (rows, length), of
which those that do not count are -100, the ``ignore_index`` of torch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lepton_mpi.batch import Batch
from lepton_mpi.errors import ConfigurationError

LossFunction = Callable[[Tensor, Tensor], Tensor]
NAMES = ("auto", "cross_entropy", "mse", "huber")
IGNORED = -100


class Targets(NamedTuple):
    """Of a batch: ``y`` for a loss, what it counts in a mean, and whether they are classes or tokens."""

    y: Tensor
    weight: int
    are_classes: bool


def targets_of(batch: Batch) -> Targets:
    """See the module."""
    y = torch.from_numpy(batch.y)
    if y.is_floating_point():
        return Targets(y, len(y), False)
    y = y.long()
    if y.ndim == 1:
        return Targets(y, len(y), True)
    counts = y >= 0
    return Targets(y.masked_fill_(~counts, IGNORED), int(counts.sum()), True)


class Loss:
    """The loss of ``model``: summed over what counts.

    Parameters
    ----------
    model : str
        For messages.
    chosen : str or callable
        See the module.
    reduction : "mean", "sum" or None
        Of a callable. None: its attribute ``reduction``, as torch's own losses have it, or else "mean".
    """

    def __init__(self, model: str, chosen: str | LossFunction, reduction: str | None) -> None:
        self._model, self._function, self._name = model, None, "auto"
        if callable(chosen):
            reduction = reduction or getattr(chosen, "reduction", "mean")
            self._function, self._name = chosen, _name_of(chosen)
        elif chosen in NAMES and reduction is None:
            self._name = chosen
        elif chosen in NAMES:
            raise ConfigurationError(
                f"model {model}: reduction: expected none for loss {chosen!r}, which the engine adds up, got {reduction!r}"
            )
        else:
            raise ConfigurationError(
                f"model {model}: loss: expected {', '.join(NAMES)} or a callable (outputs, targets) -> scalar, got {chosen!r}"
            )
        if reduction not in (None, "mean", "sum"):
            raise ConfigurationError(
                f"model {model}: reduction: expected 'mean' or 'sum', which give a scalar, got {reduction!r}"
            )
        self._is_mean = reduction == "mean"

    def __str__(self) -> str:
        return self._name

    def sum(self, outputs: Tensor, targets: Targets) -> Tensor:
        """A scalar of the graph. Raises ConfigurationError for outputs and losses of a wrong shape."""
        outputs, y = self._fitted(outputs, targets)
        if self._function is None:
            return self._of_engine(outputs, y, targets.are_classes)
        loss = self._function(outputs, y)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.dtype.is_complex:
            got = (
                f"of shape {tuple(loss.shape)}, {loss.dtype}"
                if isinstance(loss, Tensor)
                else type(loss).__name__
            )
            raise ConfigurationError(
                f"model {self._model}: loss {self._name}: expected a scalar, a tensor of one number, got {got}"
            )
        return loss.reshape(()) * targets.weight if self._is_mean else loss.reshape(())

    def _of_engine(self, outputs: Tensor, y: Tensor, are_classes: bool) -> Tensor:
        if self._name not in ("auto", "cross_entropy" if are_classes else self._name) or (
            self._name == "cross_entropy" and not are_classes
        ):
            kind = "classes or tokens: cross_entropy" if are_classes else "targets: mse or huber"
            raise ConfigurationError(
                f"model {self._model}: loss: expected one of {kind}, got {self._name!r}"
            )
        if are_classes:
            outputs, y = outputs.reshape(-1, outputs.shape[-1]), y.reshape(-1)
            return functional.cross_entropy(outputs, y, reduction="sum", ignore_index=IGNORED)
        if self._name == "huber":
            return functional.huber_loss(outputs, y, reduction="sum") / y.shape[1]
        return functional.mse_loss(outputs, y, reduction="sum") / y.shape[1]

    def _fitted(self, outputs: Any, targets: Targets) -> tuple[Tensor, Tensor]:
        """Outputs and targets of shapes that belong together. Raises ConfigurationError: torch would broadcast others."""
        y = targets.y
        if not isinstance(outputs, Tensor):
            raise ConfigurationError(
                f"model {self._model}: expected forward to return a tensor, got {type(outputs).__name__}; a module around it may "
                "return the one that the loss takes"
            )
        if not targets.are_classes:
            fits = outputs.shape == y.shape
            if not fits and y.shape[1] == 1 and outputs.shape == y.shape[:1]:
                outputs, fits = outputs.unsqueeze(1), True
            expected = f"{tuple(y.shape)}, rows and targets"
        else:
            fits = outputs.ndim == y.ndim + 1 and outputs.shape[:-1] == y.shape
            expected = f"({', '.join(map(str, y.shape))}, {'classes' if y.ndim == 1 else 'tokens'})"
        if not fits:
            raise ConfigurationError(
                f"model {self._model}: expected outputs of shape {expected}, got {tuple(outputs.shape)}"
            )
        if self._function is not None and y.ndim == 2 and targets.are_classes:
            outputs, y = outputs.reshape(-1, outputs.shape[-1]), y.reshape(-1)
        return outputs, y


def _name_of(function: LossFunction) -> str:
    name = getattr(function, "__name__", None)
    return name or (type(function).__name__ if isinstance(function, nn.Module) else str(function))
