"""Multilayer perceptron: dense layers, an activation and perhaps dropout between them, a loss at the end."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from lepton_mpi.models import Batch, activation_kernels, flat_rows, kernels, regression_kernels
from lepton_mpi.models.product_kernels import right_scratch_size


class Mlp:
    """See ``lepton_mpi.models`` for the contract.

    Parameters
    ----------
    widths
        Features, hidden widths, outputs; at least two numbers. (784, 128, 10) has one hidden layer. There is an
        output for each class, or for each target of a regression.
    threaded : bool
        Whether matrix products shall use the threads of BLAS.
    activation : {"relu", "gelu", "tanh", "sigmoid", "silu"}
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

    def __init__(
        self,
        widths: tuple[int, ...],
        threaded: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        loss: str = "cross_entropy",
        huber_delta: float = 1.0,
    ) -> None:
        self.widths, self.threaded = widths, threaded
        self.activation, self.dropout, self.loss = activation, dropout, loss
        self.shapes = {}
        for layer, (inputs, outputs) in enumerate(pairwise(widths)):
            self.shapes |= {
                f"layer{layer}/weight": (inputs, outputs),
                f"layer{layer}/bias": (outputs,),
            }
        self._kind, self._huber_delta = activation_kernels.KINDS[activation], float(huber_delta)
        levels = activation_kernels.DROPOUT_LEVELS
        self._dropped = min(round(dropout * levels), levels - 1) if len(widths) > 2 else 0
        self._plans: dict[tuple[int, np.dtype], _Plan] = {}
        self.reads_in_place = not threaded  # which BLAS cannot

    def __str__(self) -> str:
        words = [f"mlp {'-'.join(map(str, self.widths))}"]
        if len(self.widths) > 2:
            words += [self.activation] * (self.activation != "relu")
            words += [f"dropout {self.dropout:g}"] * (self.dropout > 0)
        return ", ".join(words + [self.loss] * (self.loss != "cross_entropy"))

    def loss_and_gradient(self, parameters, batch: Batch, gradient) -> tuple[float, int] | float:
        """Summed loss; with classes also the number of rows classified correctly."""
        plan = self._plan(batch)
        grad_output = self._forward(plan, parameters, batch, self._dropped)
        if self.loss == "cross_entropy":
            loss, correct = kernels.softmax_cross_entropy(grad_output, batch.y)
            result = loss, int(correct)
        else:
            result = self._regression_loss(grad_output, batch.y)
        for weight, bias, inputs, slope, grad_input in plan.backward:
            rows = inputs, plan.places
            self._fill(gradient, weight, bias, rows, grad_output)
            right = self.threaded, plan.numbers, plan.scratch
            if slope is None:
                kernels.dense_relu_backward(
                    grad_output, parameters[weight], inputs, *right, grad_input
                )
            else:
                activation_kernels.dense_slope_backward(
                    grad_output, parameters[weight], slope, *right, grad_input
                )
            grad_output = grad_input
        names = "layer0/weight", "layer0/bias"
        self._fill(gradient, *names, flat_rows(batch, plan.places), grad_output)
        return result

    def evaluate(self, parameters, batch: Batch, predicted) -> float:
        """Predicted classes, or targets, and summed loss."""
        outputs = self._forward(self._plan(batch), parameters, batch, 0)
        if self.loss == "cross_entropy":
            return kernels.softmax_predict(outputs, batch.y, predicted)
        predicted[:] = outputs
        return self._regression_loss(outputs, batch.y)

    def _forward(self, plan: "_Plan", parameters, batch: Batch, dropped: int) -> np.ndarray:
        """What the last layer gives, shape (rows, outputs)."""
        if dropped and batch.rows is None:
            raise ValueError("dropout goes by the numbers of the rows: expected Batch.rows")
        rows, threaded = flat_rows(batch, plan.places), self.threaded
        for layer, (weight, bias, numbers, out, slope) in enumerate(plan.hidden):
            w, b = parameters[weight], parameters[bias]
            if slope is None:
                kernels.dense_relu(*rows, w, b, threaded, out)
            elif dropped:
                key = batch.draw, layer, batch.rows
                activation_kernels.dense_dropout(
                    self._kind, *rows, w, b, threaded, *key, dropped, numbers, out, slope
                )
            else:
                activation_kernels.dense_activation(self._kind, *rows, w, b, threaded, out, slope)
            rows = out, plan.places
        weight, bias, out = plan.output
        kernels.dense(*rows, parameters[weight], parameters[bias], threaded, out)
        return out

    def _fill(self, gradient, weight: str, bias: str, rows, grad_output) -> None:
        """Gradient of one layer, whose inputs are ``rows``: memory and places in it."""
        arrays = gradient[weight], gradient[bias]
        kernels.dense_gradient(*rows, grad_output, self.threaded, *arrays)
        gradient.done(bias)
        gradient.done(weight)

    def _regression_loss(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """Summed loss; ``outputs`` become its gradient."""
        if self.loss == "mse":
            return regression_kernels.squared_error(outputs, targets)
        return regression_kernels.huber(outputs, targets, self._huber_delta)

    def _plan(self, batch: Batch) -> "_Plan":
        """What the layers do to batches of this length, made once."""
        key = len(batch.y), batch.x.dtype
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._make_plan(*key)
        return plan

    def _make_plan(self, rows: int, dtype: np.dtype) -> "_Plan":
        names = [(f"layer{n}/weight", f"layer{n}/bias") for n in range(len(self.widths) - 1)]
        needs_slope = self.activation != "relu" or self._dropped
        hidden, backward = [], []
        for layer, width in enumerate(self.widths[1:-1]):
            numbers = np.empty(-(-width // activation_kernels.UNITS_PER_NUMBER), np.uint64)
            out, grad = (np.empty((rows, width), dtype) for _ in range(2))
            slope = np.empty_like(out) if needs_slope else None
            hidden.append((*names[layer], numbers, out, slope))
            backward.append((*names[layer + 1], out, slope, grad))
        output = *names[-1], np.empty((rows, self.widths[-1]), dtype)
        numbers = np.arange(max(rows, *self.widths))
        # The first layer's inputs get no gradient.
        scratch_size = 0
        if not self.threaded:
            scratch_size = max(
                (right_scratch_size(rows, k, m) for m, k in pairwise(self.widths[1:])), default=0
            )
        scratch = np.empty(scratch_size, dtype)
        return _Plan(numbers[:rows], numbers, scratch, hidden, output, backward[::-1])


class _Plan(NamedTuple):
    """Parameters by name, and memory, of every layer, in the order in which a batch of one length needs them.

    places: of all rows of a matrix of the batch; numbers, scratch: what ``product_right`` works with; hidden: (weight,
    bias, numbers for dropout, output, slope); output: (weight, bias, output); backward, last layer first, without the
    first: (weight, bias, inputs, slope of the inputs, gradient by the inputs). The slope is None for ReLU without
    dropout.
    """

    places: np.ndarray
    numbers: np.ndarray
    scratch: np.ndarray
    hidden: list[tuple]
    output: tuple
    backward: list[tuple]
