"""Multilayer perceptron: dense layers, an activation and perhaps dropout between them, a loss at the end."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from lepton_mpi.batch import Batch, flat_rows
from lepton_mpi.kernels.product_kernels import LEFT_COLUMNS, right_scratch_size
from lepton_mpi.layers import activation_kernels, loss_kernels
from lepton_mpi.layers import dense_stack_kernels as fused
from lepton_mpi.sync import NO_SYNC, Sync
from lepton_mpi.vectors import Views

# Plans that are kept, for lengths of batches and vectors of gradients: a table of a few numbers each.
_PLANS_MAX = 10_000
_NO_CLASSES = np.empty(0, np.int32)
# Elements of a gradient that are told of as soon as they are filled: a few for each bucket.
_DONE_ELEMENTS = 1 << 18

_LOSS_KERNELS = {
    "cross_entropy": loss_kernels.softmax_predict,
    "mse": loss_kernels.squared_error,
    "huber": loss_kernels.huber,
}


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
        self._layers, self._most_rows = len(widths) - 1, max(widths)
        self._plans: dict[tuple[int, int, int], _Plan] = {}
        self._rooms: dict[tuple[int, np.dtype], _Room] = {}
        self._parameters: Views | None = None  # of all plans
        self.reads_in_place = not threaded  # which BLAS cannot
        self.kernels = (fused.run, _LOSS_KERNELS[loss])

    def __str__(self) -> str:
        words = [f"mlp {'-'.join(map(str, self.widths))}"]
        if len(self.widths) > 2:
            words += [self.activation] * (self.activation != "relu")
            words += [f"dropout {self.dropout:g}"] * (self.dropout > 0)
        return ", ".join(words + [self.loss] * (self.loss != "cross_entropy"))

    def loss_and_gradient(
        self, parameters, batch: Batch, gradient, sync: Sync = NO_SYNC
    ) -> tuple[float, int] | float:
        """Summed loss; with classes also the number of rows classified correctly."""
        plan, layers = self._plan(parameters, batch, gradient), self._layers
        has_classes = self.loss == "cross_entropy"
        if has_classes and not (sync.follows or sync.awaits):
            loss, correct = self._run(plan, batch, 0, fused.stage_count(layers), self._dropped)
            return loss, int(correct)
        loss_stage = fused.stage_of_loss(layers)
        for layer in range(layers):
            sync.need(f"layer{layer}/weight")
            sync.need(f"layer{layer}/bias")
            self._run(plan, batch, layer, layer + 1, self._dropped)
        if has_classes:
            loss, correct = self._run(plan, batch, loss_stage, loss_stage + 1)
            result = loss, int(correct)
        else:
            result = self._regression_loss(plan.output, batch.y)
        done = loss_stage + 1
        for layer in range(layers, 0, -1):
            filled = fused.stage_of_gradient(layers, layer) + 1
            weight, (inputs, outputs) = (
                f"layer{layer - 1}/weight",
                self.widths[layer - 1 : layer + 1],
            )
            rows = inputs if self.threaded else _rows_together(outputs)
            # From the end, as buckets are. The gradient by the layer's outputs comes with the first part.
            for last in range(inputs, 0, -rows):
                first = max(0, last - rows)
                self._run(plan, batch, done, filled, rows=(first, last))
                if last == inputs:
                    sync.done(f"layer{layer - 1}/bias")
                sync.done(weight, first * outputs, last * outputs)
                done = filled - 1
            done = filled
        return result

    def evaluate(self, parameters, batch: Batch, predicted) -> float:
        """Predicted classes, or targets, and summed loss."""
        plan = self._plan(parameters, batch)
        self._run(plan, batch, 0, fused.stage_of_loss(self._layers))
        if self.loss == "cross_entropy":
            return loss_kernels.softmax_predict(plan.output, batch.y, predicted)
        predicted[:] = plan.output
        return self._regression_loss(plan.output, batch.y)

    def _run(
        self,
        plan: "_Plan",
        batch: Batch,
        start: int,
        stop: int,
        dropped: int = 0,
        rows: tuple[int, int] | None = None,
    ) -> tuple:
        """Stages [start, stop), see ``dense_stack_kernels.py``; ``rows`` of weights are those whose gradient is filled."""
        x, places = flat_rows(batch, plan.places)
        numbers = batch.rows
        if numbers is None:
            if dropped:
                raise ValueError("dropout goes by the numbers of the rows: expected Batch.rows")
            numbers = places
        y = batch.y if self.loss == "cross_entropy" else _NO_CLASSES
        options = batch.draw, dropped, start, stop, *(rows or (0, self._most_rows))
        return fused.run(plan.table, x, places, y, numbers, *options)

    def _regression_loss(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """Summed loss; ``outputs`` become its gradient."""
        if self.loss == "mse":
            return loss_kernels.squared_error(outputs, targets)
        return loss_kernels.huber(outputs, targets, self._huber_delta)

    def _plan(self, parameters, batch: Batch, gradient=None) -> "_Plan":
        """What the layers do to batches of this length, with these vectors; made once for views, which do not change."""
        key = len(batch.y), id(parameters), id(gradient)
        plan = self._plans.get(key)
        if plan is None or plan.dtype is not batch.x.dtype:
            plan = self._make_plan(parameters, batch, gradient)
            if isinstance(parameters, Views) and isinstance(gradient, Views | None):
                if parameters is not self._parameters or len(self._plans) == _PLANS_MAX:
                    self._plans.clear()
                self._parameters = parameters
                self._plans[key] = plan
        return plan

    def _make_room(self, rows: int, dtype: np.dtype) -> "_Room":
        """Memory that batches of one length share, whatever vectors they come with."""
        # The first layer's inputs get no gradient.
        scratch_size, widths = 0, self.widths
        if not self.threaded:
            scratch_size = max(
                (right_scratch_size(rows, k, m) for m, k in pairwise(widths[1:])), default=0
            )
        units = activation_kernels.UNITS_PER_NUMBER
        layers = [[np.empty((rows, k), dtype) for _ in range(3)] for k in widths[1:]]
        layers[-1][2] = layers[-1][0]  # the loss puts its gradient there
        return _Room(
            np.arange(max(rows, *widths)),
            np.empty(scratch_size, dtype),
            np.empty(-(-max(widths) // units), np.uint64),
            layers,
        )

    def _make_plan(self, parameters, batch: Batch, gradient) -> "_Plan":
        rows, dtype = len(batch.y), batch.x.dtype
        room = self._rooms.get((rows, dtype))
        if room is None:
            room = self._rooms[rows, dtype] = self._make_room(rows, dtype)
        numbers, scratch = room.numbers, room.scratch
        table = np.zeros((1 + self._layers, fused.WIDTH), np.int64)
        network = {
            fused.THREADED: self.threaded,
            fused.KIND: self._kind,
            fused.HAS_SLOPES: self.activation != "relu" or self._dropped > 0,
            fused.NUMBERS: numbers.ctypes.data,
            fused.NUMBER_COUNT: numbers.size,
            fused.SCRATCH: scratch.ctypes.data,
            fused.SCRATCH_SIZE: scratch.size,
            fused.RANDOM: room.random.ctypes.data,
        }
        for place, word in network.items():
            table[0, place] = word
        for layer, (inputs, outputs) in enumerate(pairwise(self.widths), 1):
            names = f"layer{layer - 1}/weight", f"layer{layer - 1}/bias"
            vectors = [
                self._address(views, name, dtype) if views is not None else 0
                for views in (parameters, gradient)
                for name in names
            ]
            matrices = [matrix.ctypes.data for matrix in room.layers[layer - 1]]
            table[layer] = [inputs, outputs, *vectors, *matrices]
        memory = room, parameters, gradient
        return _Plan(table, numbers[:rows], room.layers[-1][0], dtype, memory)

    def _address(self, views, name: str, dtype: np.dtype) -> int:
        """Of an array that is what the kernels take it for."""
        array, shape = views[name], self.shapes[name]
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(
                f"{name}: expected a contiguous array of {dtype}, the batch's type, and shape {shape}, got {array.dtype}, "
                f"shape {array.shape}, strides {array.strides}"
            )
        return array.ctypes.data


def _rows_together(outputs: int) -> int:
    """Rows of a gradient of weights that are told of together, a multiple of what is computed together."""
    return max(1, _DONE_ELEMENTS // (outputs * LEFT_COLUMNS)) * LEFT_COLUMNS


class _Room(NamedTuple):
    """numbers: 0, 1, …; scratch: of ``product_right``; random: numbers for dropout; layers: outputs, slope, gradient."""

    numbers: np.ndarray
    scratch: np.ndarray
    random: np.ndarray
    layers: list[list[np.ndarray]]


class _Plan(NamedTuple):
    """What ``dense_stack_kernels`` needs for batches of one length.

    table: the plan that it describes; places: int64, of all rows of a matrix of the batch; output: of the last layer;
    dtype: of the batch; memory: all that the table has addresses of.
    """

    table: np.ndarray
    places: np.ndarray
    output: np.ndarray
    dtype: np.dtype
    memory: tuple
