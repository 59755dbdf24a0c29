"""A linear layer of categories, each as if it were one column for each value (one-hot), and of crosses of them.

    out[i] = sum over features f of weight[row of f in row i of x]

A feature is a column or a cross, whose values are those that its columns have together. Shapes: x int32 (rows, c), weight
(rows of all features, k), out (rows, k). A cross of no more than ``buckets`` values has a row for each: for codes a, b of columns
with A and B values, number a * B + b. Of more values it has ``buckets`` rows, and a value's is a hash of that number, so that some
values share one. ``grad_weight`` is as in ``column_embedding.py``.
Source: Cheng et al., "Wide and deep learning for recommender systems", 2016, arXiv:1606.07792, equation 1.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import prod

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.layers import crossed_linear_kernels as kernels
from lepton_mpi.layers.column_embedding import check_categories
from lepton_mpi.layers.initial import Initial, zeros
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Parameter, Shape, When

Cross = tuple[int, ...]


class CrossedLinear(Layer):
    """See the module.

    Parameters
    ----------
    values : sequence of int
        How many codes each column has.
    outputs : int
    crosses : sequence of tuple of int
        Numbers of the columns of each cross.
    buckets : int
        Rows of a cross at most.
    initial : Initial
    """

    needs_x = False
    kernels = (kernels.weight_rows, kernels.sum_weight_rows, kernels.weight_rows_gradient)

    def __init__(
        self,
        values: Sequence[int],
        outputs: int,
        crosses: Sequence[Cross] = (),
        buckets: int = 1000,
        initial: Initial = zeros,
    ) -> None:
        self.values, self.outputs, self._initial = tuple(values), outputs, initial
        features: list[Cross] = [*((column,) for column in range(len(self.values))), *crosses]
        all_values = [prod(self.values[column] for column in feature) for feature in features]
        # A column is never hashed.
        limits = [*self.values, *(buckets for _ in crosses)]
        sizes = [min(count, limit) for count, limit in zip(all_values, limits, strict=True)]
        self.starts = np.array([*accumulate(sizes, initial=0)], np.int64)
        self.is_hashed = np.array(
            [size < count for size, count in zip(sizes, all_values, strict=True)], np.bool_
        )
        longest = max(map(len, features))
        filled = [[*feature, *[-1] * (longest - len(feature))] for feature in features]
        self._members, self._values = np.array(filled, np.int64), np.array(self.values, np.int64)

    @property
    def features(self) -> list[Cross]:
        """Numbers of the columns of each feature: every column, then the crosses."""
        return [tuple(int(c) for c in members if c >= 0) for members in self._members]

    def rows_of(self, codes: Array) -> Array:
        """The row of the weight that each feature reads: int64, (rows, features), for codes int32, (rows, columns)."""
        rows = np.empty((len(codes), len(self._members)), np.int64)
        kernels.weight_rows(codes, self._values, self._members, self.starts, self.is_hashed, rows)
        return rows

    def parameters(self, x: Input) -> Mapping[str, Parameter]:
        check_categories("a linear layer of categories", x, self.values)
        shape = int(self.starts[-1]), self.outputs
        return {"weight": Parameter(shape, self._initial, decays=True)}

    def out_shape(self, x: Input) -> Shape:
        return (self.outputs,)

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        return {
            "rows": Memory((rows, len(self._members)), "kept", np.int64),
            "is_met": Memory((int(self.starts[-1]),), "backward", np.bool_),
        }

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        codes, rows = at.x.reshape(len(at.x), len(self.values)), at.memory["rows"]
        given = codes, self._values, self._members, self.starts, self.is_hashed
        kernels.weight_rows(*given, rows)
        kernels.sum_weight_rows(rows, p["weight"], at.out)

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        rows, is_met = at.memory["rows"], at.memory["is_met"]
        kernels.weight_rows_gradient(rows, at.grad_out, is_met, grad["weight"])
