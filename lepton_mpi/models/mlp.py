"""Multilayer perceptron: dense layers, an activation and perhaps dropout between them, a loss at the end."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lepton_mpi.batch import Batch, Input, flat_rows
from lepton_mpi.layers import loss_kernels
from lepton_mpi.layers.dense_stack import DenseStack, StackPlan
from lepton_mpi.layers.layer import Array, Sums
from lepton_mpi.models.model import DataFacts, Model, only_numbers
from lepton_mpi.sync import Sync
from lepton_mpi.vectors import Views

_NO_CLASSES = np.empty(0, np.int32)
# Beside softmax with cross-entropy, which is a stage of the stack.
_LOSS_KERNELS = {
    "cross_entropy": (loss_kernels.softmax_predict,),
    "mse": (loss_kernels.squared_error,),
    "huber": (loss_kernels.huber,),
}


class Mlp(Model):
    """All layers are one kernel, ``layers/dense_stack.py``.

    Parameters
    ----------
    widths
        Features, hidden widths, outputs; at least two numbers. (784, 128, 10) has one hidden layer. There is an
        output for each class, or for each target of a regression.
    threaded : bool
        Whether matrix products shall use the threads of BLAS.
    activation : {"relu", "gelu", "tanh", "sigmoid", "silu", "gelu_tanh"}
        Of the hidden layers. gelu is the exact one, made of the error function.
    dropout : float
        From 0 up to, not including, 1: the share of hidden units that a row of a training batch does without, in
        steps of 1/65536; the others are divided by the share that is kept. Which units is a function of the
        batch's ``draw``, the row's number in ``rows``, the layer and the unit. None in evaluation.
    loss : {"cross_entropy", "mse", "huber"}
        The first for classes, the others for targets: means over the targets of a row.
    huber_delta : float
        Size of an error from which on it no longer counts by its square.
    """

    name = "mlp"
    asks_for_parameters = True

    def __init__(
        self,
        widths: tuple[int, ...],
        threaded: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        loss: str = "cross_entropy",
        huber_delta: float = 1.0,
    ) -> None:
        self.widths, self.activation, self.dropout, self.loss = widths, activation, dropout, loss
        self.task = "classes" if loss == "cross_entropy" else "targets"
        self.inputs = {"x": Input("numbers", widths[:1])}
        self.reads_in_place = not threaded  # which BLAS cannot
        self._stack, self._huber_delta = (
            DenseStack(widths, threaded, activation, dropout),
            float(huber_delta),
        )
        self.shapes = self._stack.shapes
        self.decayed = tuple(name for name in self.shapes if name.endswith("/weight"))
        # Of two classes an evaluation takes probabilities, too.
        of_two = (loss_kernels.softmax,) if loss == "cross_entropy" and widths[-1] == 2 else ()
        self.kernels = (*self._stack.kernels, *_LOSS_KERNELS[loss], *of_two)

    def weigh_classes(self, weights: Array) -> None:
        if self.loss != "cross_entropy":
            super().weigh_classes(weights)
        self.class_weights = weights
        self.kernels = (*self.kernels, *loss_kernels.WEIGHTED)

    def __str__(self) -> str:
        words = [f"mlp {'-'.join(map(str, self.widths))}"]
        if len(self.widths) > 2:
            words += [self.activation] * (self.activation != "relu")
            words += [f"dropout {self.dropout:g}"] * (self.dropout > 0)
        return ", ".join(words + [self.loss] * (self.loss != "cross_entropy"))

    def loss_and_gradient(
        self, parameters: Views, batch: Batch, gradient: Views, sync: Sync
    ) -> Sums:
        stack, dropped = self._stack, self._stack.dropped
        plan = stack.plan(len(batch.y), batch.x.dtype, parameters, gradient)
        rows = self._rows(plan, batch, dropped)
        is_one_call = self.loss == "cross_entropy" and self.class_weights is None
        if is_one_call and not (sync.follows or sync.awaits):
            return stack.run(plan, rows, (0, stack.stage_count), dropped)
        for layer in range(stack.layer_count):
            sync.need(f"layer{layer}/weight")
            sync.need(f"layer{layer}/bias")
            stack.run(plan, rows, (layer, layer + 1), dropped)
        if is_one_call:
            sums = stack.run(plan, rows, (stack.loss_stage, stack.loss_stage + 1))
        elif self.class_weights is not None:
            weighted = loss_kernels.weighted_softmax_cross_entropy
            sums = weighted(plan.output, batch.y, self.class_weights)
        else:
            sums = self._regression_loss(plan.output, batch.y), np.nan
        for layer in range(stack.layer_count, 0, -1):
            weight, outputs = f"layer{layer - 1}/weight", self.widths[layer]
            # From the end, as buckets are.
            for position, (stages, (first, last)) in enumerate(stack.gradient_parts(layer)):
                stack.run(plan, rows, stages, part=(first, last))
                if position == 0:
                    sync.done(f"layer{layer - 1}/bias")
                sync.done(weight, first * outputs, last * outputs)
        return sums

    def evaluate(self, parameters: Views, batch: Batch, predicted: Array) -> float:
        return self._evaluated(self._outputs(parameters, batch), batch, predicted)

    def predict(self, parameters: Views, batch: Batch, outputs: Array) -> None:
        self._predicted(self._outputs(parameters, batch), outputs)

    def evaluate_and_predict(
        self, parameters: Views, batch: Batch, predicted: Array, outputs: Array
    ) -> float:
        found = self._outputs(parameters, batch)
        self._predicted(found, outputs)
        return self._evaluated(found, batch, predicted)

    def _evaluated(self, outputs: Array, batch: Batch, predicted: Array) -> float:
        """The loss may take ``outputs`` for its gradient."""
        if self.class_weights is not None:
            weighted = loss_kernels.weighted_softmax_predict
            return float(weighted(outputs, batch.y, self.class_weights, predicted))
        if self.loss == "cross_entropy":
            return float(loss_kernels.softmax_predict(outputs, batch.y, predicted))
        predicted[:] = outputs
        return self._regression_loss(outputs, batch.y)

    def _predicted(self, found: Array, outputs: Array) -> None:
        if self.loss == "cross_entropy":
            loss_kernels.softmax(found, outputs)
        else:
            outputs[:] = found

    def memory_lines(self, rows: int, dtype: np.dtype[Any]) -> list[str]:
        return self._stack.memory_lines(rows, dtype)

    def memory_bytes(self, batches: Iterable[tuple[int, bool]], dtype: np.dtype[Any]) -> int:
        return self._stack.memory_bytes(batches, dtype)

    def _outputs(self, parameters: Views, batch: Batch) -> Array:
        """Of the last layer, in memory that the next call writes over."""
        plan = self._stack.plan(len(batch.y), batch.x.dtype, parameters)
        self._stack.run(plan, self._rows(plan, batch, 0), (0, self._stack.loss_stage))
        return plan.output

    def _rows(self, plan: StackPlan, batch: Batch, dropped: int) -> tuple[Any, ...]:
        """What the stack wants to know of a batch."""
        x, places = flat_rows(batch, plan.places)
        numbers = batch.rows
        if numbers is None:
            if dropped:
                raise ValueError("dropout goes by the numbers of the rows: expected Batch.rows")
            numbers = places
        labels = batch.y if self.loss == "cross_entropy" else _NO_CLASSES
        return x, places, labels, numbers, batch.draw

    def _regression_loss(self, outputs: Array, targets: Array) -> float:
        """Summed loss; ``outputs`` become its gradient."""
        if self.loss == "mse":
            return float(loss_kernels.squared_error(outputs, targets))
        return float(loss_kernels.huber(outputs, targets, self._huber_delta))


def build(options: Mapping[str, Any], data: DataFacts) -> Mlp:
    """From ``hidden``, ``activation``, ``dropout``, ``loss`` (auto: by the data), ``huber_delta`` and ``threads``."""
    loss = options["loss"]
    if loss == "auto":
        loss = "cross_entropy" if data.class_count else "mse"
    (features,) = only_numbers("mlp", data).shape
    widths = (features, *options["hidden"], data.output_count)
    named = {name: options[name] for name in ("activation", "dropout", "huber_delta")}
    return Mlp(widths, options["threads"] > 1, loss=loss, **named)
