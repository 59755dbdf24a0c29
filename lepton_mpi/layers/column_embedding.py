"""Embedding by column: every column of categories has a table of its own, of a width of its own; their rows stand side by side.

    out[i] = column0[x[i, 0]], column1[x[i, 1]], …

Shapes: x int32 (rows, c), column j (values of j, width of j), out (rows, sum of widths). A row of a table's gradient is the sum of
``grad_out`` where its code stands, in the order of the batch, and 0 if it does not: flat vectors of gradients are dense, so that
zeros are written and summed for codes that are not met. How many are met is what the kernel returns.

A column's width, unless one is given, is ``min(50, ceil(1.6 * values ** 0.56))``.
Sources: Guo and Berkhahn, "Entity embeddings of categorical variables", 2016; the width is fastai's rule (Howard and Gugger,
"fastai: a layered API for deep learning", 2020), with a lower limit.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import ceil

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers import column_embedding_kernels as kernels
from lepton_mpi.layers.initial import Initial, normal
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Parameter, Shape, When

_WIDTH_MAX = 50
# So that the numbers of a row, of deviation 1, are not drowned by those of many columns.
_DEVIATION = 0.1


def usual_width(values: int) -> int:
    """See the module.

    >>> [usual_width(values) for values in (1, 2, 10, 100, 1000, 10_000)]
    [2, 3, 6, 22, 50, 50]
    """
    return min(_WIDTH_MAX, ceil(1.6 * values**0.56))


class ColumnEmbedding(Layer):
    """See the module.

    Parameters
    ----------
    values : sequence of int
        How many codes each column has.
    widths : sequence of int, optional
        Numbers that stand for a code of each column.
    initial : Initial, optional
        Of every table.
    """

    kernels = (kernels.embed_column, kernels.embed_column_gradient)

    def __init__(
        self,
        values: Sequence[int],
        widths: Sequence[int] | None = None,
        initial: Initial | None = None,
    ) -> None:
        self.values = tuple(values)
        self.widths = tuple(widths or map(usual_width, values))
        if len(self.widths) != len(self.values):
            raise ConfigurationError(
                f"an embedding by column: expected a width for each of {len(self.values)} columns, got {len(self.widths)}"
            )
        self._initial = initial or normal(_DEVIATION)
        *firsts, self._width = accumulate(self.widths, initial=0)
        self._columns = tuple((f"column{j}", j, first) for j, first in enumerate(firsts))

    def parameters(self, x: Input) -> Mapping[str, Parameter]:
        check_categories("an embedding by column", x, self.values)
        shapes = zip(self.values, self.widths, strict=True)
        return {
            f"column{j}": Parameter(shape, self._initial, decays=True)
            for j, shape in enumerate(shapes)
        }

    def out_shape(self, x: Input) -> Shape:
        return (self._width,)

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        return {"is_met": Memory((max(self.values),), "backward", np.bool_)}

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        codes = at.x.reshape(len(at.x), len(self.values))
        for name, column, first in self._columns:
            kernels.embed_column(codes, column, p[name], first, at.out)

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        codes, is_met = at.x.reshape(len(at.x), len(self.values)), at.memory["is_met"]
        for (name, column, first), values in zip(self._columns, self.values, strict=True):
            given = codes, column, at.grad_out, first, is_met[:values]
            kernels.embed_column_gradient(*given, grad[name])


def check_categories(layer: str, x: Input, values: Sequence[int]) -> None:
    """Whether ``x`` are categories, with so many codes in each column. Raises ConfigurationError."""
    if x.kind != "categories" or x.counts != tuple(values):
        raise ConfigurationError(
            f"{layer}: expected categories of {tuple(values)} values, got {x.kind} of {x.counts}"
        )
