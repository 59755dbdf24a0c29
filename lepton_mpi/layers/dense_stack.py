"""Dense layers with an activation and perhaps dropout between them, fused: a whole pass is one kernel, ``dense_stack_kernels.py``.

For small networks, in which a return to Python after each layer would cost as much as the layer. The kernel works on a
table of addresses, made once for a row count and vectors of parameters and gradients.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton_mpi.kernels.product_kernels import LEFT_COLUMNS, right_scratch_size
from lepton_mpi.layers import activation_kernels
from lepton_mpi.layers import dense_stack_kernels as fused
from lepton_mpi.layers.dropout import dropped_levels
from lepton_mpi.layers.layer import Array, Shape, Sums
from lepton_mpi.vectors import Views
from lepton_mpi.wording import size_text

# Plans that are kept, for row counts and vectors of gradients: a table of a few numbers each.
_PLANS_MAX = 10_000
# Elements of a gradient that are told of as soon as they are filled: a few for each bucket.
_DONE_ELEMENTS = 1 << 18


class Room(NamedTuple):
    """Memory that batches of one row count share, whatever vectors they come with.

    numbers: 0, 1, …; scratch: of ``product_right``; random: numbers for dropout; layers: outputs, slope, gradient.
    """

    numbers: NDArray[np.int64]
    scratch: Array
    random: NDArray[np.uint64]
    layers: list[list[Array]]


class StackPlan(NamedTuple):
    """What the kernel needs for batches of one row count.

    table: as the kernel describes it; places: of all rows of a matrix of the batch; output: of the last layer; dtype: of the
    batch; memory: all that the table has addresses of.
    """

    table: NDArray[np.int64]
    places: NDArray[np.int64]
    output: Array
    dtype: np.dtype[Any]
    memory: tuple[Any, ...]


class DenseStack:
    """The layers of a multilayer perceptron.

    Parameters
    ----------
    widths : tuple of int
        Features, hidden widths, outputs; at least two numbers.
    threaded : bool
        Whether matrix products use the threads of BLAS.
    activation : {"relu", "gelu", "tanh", "sigmoid", "silu"}
        Of the hidden layers.
    dropout : float
        From 0 up to, not including, 1: the share of hidden units that a row of a training batch does without.

    Attributes
    ----------
    shapes : dict of str to shape
        layer0/weight, layer0/bias, layer1/weight, …
    layer_count, stage_count, loss_stage : int
        Stages are those of the kernel.
    kernel : Kernel
        Runs stages; ``kernels`` is a tuple of it alone.
    dropped : int
        Dropout's share, of ``activation_kernels.DROPOUT_LEVELS``.
    """

    def __init__(
        self, widths: tuple[int, ...], threaded: bool, activation: str, dropout: float
    ) -> None:
        self.widths, self.threaded = widths, threaded
        self.shapes: dict[str, Shape] = {}
        for layer, (inputs, outputs) in enumerate(pairwise(widths)):
            self.shapes |= {
                f"layer{layer}/weight": (inputs, outputs),
                f"layer{layer}/bias": (outputs,),
            }
        self.layer_count = len(widths) - 1
        self.loss_stage = fused.stage_of_loss(self.layer_count)
        self.stage_count = fused.stage_count(self.layer_count)
        self.dropped = dropped_levels(dropout) if len(widths) > 2 else 0
        self._kind, self._most_rows = activation_kernels.KINDS[activation], max(widths)
        self._has_slopes = activation != "relu" or self.dropped > 0
        self.kernel = fused.run_by(threaded, self._has_slopes, self.dropped > 0)
        self.kernels = (self.kernel,)
        self._plans: dict[tuple[int, int, int], StackPlan] = {}
        self._rooms: dict[tuple[int, np.dtype[Any]], Room] = {}
        self._parameters: Views | None = None  # of all plans

    def plan(
        self, rows: int, dtype: np.dtype[Any], parameters: Views, gradient: Views | None = None
    ) -> StackPlan:
        """Made once for views, which do not change."""
        key = rows, id(parameters), id(gradient)
        plan = self._plans.get(key)
        if plan is None or plan.dtype is not dtype:
            plan = self._make_plan(rows, dtype, parameters, gradient)
            if isinstance(parameters, Views) and isinstance(gradient, Views | None):
                if parameters is not self._parameters or len(self._plans) == _PLANS_MAX:
                    self._plans.clear()
                self._parameters = parameters
                self._plans[key] = plan
        return plan

    def run(
        self,
        plan: StackPlan,
        rows: tuple[Any, ...],
        stages: tuple[int, int],
        dropped: int = 0,
        part: tuple[int, int] | None = None,
    ) -> Sums:
        """Stages [start, stop) for a batch; returns (loss sum, correct count), 0 without the stage of the loss.

        Parameters
        ----------
        rows : tuple
            ``inputs, places, labels, numbers, draw`` as in ``dense_stack_kernels.run_by``.
        part : (start, stop)
            Rows of weights whose gradient is filled; all by default.
        """
        part = part or (0, self._most_rows)
        sums: Sums = self.kernel(plan.table, *rows, dropped, *stages, *part)
        return sums

    def gradient_parts(self, layer: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Stages and rows of the weights of ``layer`` = 1, 2, … in whose gradient is filled, part after part, from the end.

        The gradient by the layer's outputs comes with the first part. BLAS fills all at once.
        """
        inputs, outputs = self.widths[layer - 1 : layer + 1]
        first_stage = self.loss_stage + 1
        if layer < self.layer_count:
            first_stage = fused.stage_of_gradient(self.layer_count, layer + 1) + 1
        filled = fused.stage_of_gradient(self.layer_count, layer) + 1
        rows = inputs if self.threaded else _rows_together(outputs)
        parts = []
        for last in range(inputs, 0, -rows):
            start = first_stage if last == inputs else filled - 1
            parts.append(((start, filled), (max(0, last - rows), last)))
        return parts

    def memory_lines(self, rows: int, dtype: np.dtype[Any]) -> list[str]:
        """What a batch of so many rows works in, for people, a line each; nothing is shared between layers."""
        item, lines, total = dtype.itemsize, [], 0
        for layer, width in enumerate(self.widths[1:]):
            arrays = ["out", *(["slope"] if self._has_slopes else []), "gradient by out"]
            arrays = ["out and gradient by it"] if layer == self.layer_count - 1 else arrays
            for name in arrays:
                total += rows * width * item
                lines.append(
                    f"layer{layer}/{name}: {rows}x{width} {dtype}, {size_text(rows * width * item)}"
                )
        scratch = self._scratch_size(rows) * item
        return [
            *lines,
            f"{rows} rows: {size_text(total + scratch)}, of which scratch {size_text(scratch)}",
        ]

    def memory_bytes(self, batches: Iterable[tuple[int, bool]], dtype: np.dtype[Any]) -> int:
        """Of batches, as pairs of row count and whether they are trained on: every row count has memory of its own."""
        trained: dict[int, bool] = {}
        for rows, training in batches:
            trained[rows] = training or trained.get(rows, False)
        return dtype.itemsize * sum(self._room_size(*each) for each in trained.items())

    def _room_size(self, rows: int, training: bool) -> int:
        """Elements of a room that are written to."""
        hidden, outputs = sum(self.widths[1:-1]), self.widths[-1]
        size = hidden * (1 + self._has_slopes) + outputs
        if not training:
            return rows * size
        # The loss puts the gradient of the last layer in the place of its outputs.
        return rows * (size + hidden) + self._scratch_size(rows)

    def _scratch_size(self, rows: int) -> int:
        """The first layer's inputs get no gradient."""
        if self.threaded:
            return 0
        pairs = pairwise(self.widths[1:])
        return max((right_scratch_size(rows, k, m) for m, k in pairs), default=0)

    def _make_room(self, rows: int, dtype: np.dtype[Any]) -> Room:
        units, widths = activation_kernels.UNITS_PER_NUMBER, self.widths
        layers = [[np.empty((rows, k), dtype) for _ in range(3)] for k in widths[1:]]
        layers[-1][2] = layers[-1][0]  # the loss puts its gradient there
        return Room(
            np.arange(max(rows, *widths)),
            np.empty(self._scratch_size(rows), dtype),
            np.empty(-(-max(widths) // units), np.uint64),
            layers,
        )

    def _make_plan(
        self, rows: int, dtype: np.dtype[Any], parameters: Views, gradient: Views | None
    ) -> StackPlan:
        room = self._rooms.get((rows, dtype))
        if room is None:
            room = self._rooms[rows, dtype] = self._make_room(rows, dtype)
        numbers, scratch = room.numbers, room.scratch
        table = np.zeros((1 + self.layer_count, fused.WIDTH), np.int64)
        network = {
            fused.KIND: self._kind,
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
        return StackPlan(table, numbers[:rows], room.layers[-1][0], dtype, memory)

    def _address(self, views: Mapping[str, Array], name: str, dtype: np.dtype[Any]) -> int:
        """Of an array that is what the kernel takes it for."""
        array, shape = views[name], self.shapes[name]
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(
                f"{name}: expected a contiguous array of {dtype}, the batch's type, and shape {shape}, got {array.dtype}, "
                f"shape {array.shape}, strides {array.strides}"
            )
        return int(array.ctypes.data)


def _rows_together(outputs: int) -> int:
    """Rows of weights whose gradient is filled before it is told of, in whole passes of ``product_left``."""
    return max(1, _DONE_ELEMENTS // (outputs * LEFT_COLUMNS)) * LEFT_COLUMNS
