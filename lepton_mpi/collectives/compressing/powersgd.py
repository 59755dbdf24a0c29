"""Codec ``powersgd:RANK``: every matrix as a product of two thin ones, by one step of the power iteration.

    M, (m, n), of a host plus its residual; Q, (n, r), of the step before

    P = sum over hosts of M Q           made orthonormal
    Q = sum over hosts of M^T P
    sum of M ~ P Q^T, (m, n)            a host's residual is M - P (M^T P)^T with its own M

    bytes = 4 r (m + n), a vector of n elements 4 n; float64 twice as many

A parameter of more than two dimensions is cut between two of them, where m + n is least: a convolution's weights
(height, width, inputs, outputs) are a matrix of as many columns as outputs, or nearly so. Vectors, matrices for which this would be
no less, and parameters that are not trained are summed as they are. The first Q is random. Since P is orthonormal, the
residuals of all hosts sum to the sum of all M less what was decoded.
Source: Vogels, Karimireddy and Jaggi, "PowerSGD: practical low-rank gradient compression for distributed optimization",
NeurIPS 2019.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from lepton_mpi.collectives.compressing import powersgd_kernels as kernels
from lepton_mpi.collectives.compressing.codec import whole_option
from lepton_mpi.kernels.product_kernels import product, product_left, product_right

_RANK_MAX = 1024


class PowerSgd:
    """The choice of a rank; its lane is in ``low_rank_lane.py``. Made as a ``Codec`` is.

    Attributes
    ----------
    name, dtype, kernels
        As of a ``Codec``.
    rank : int
    """

    kernels = (
        *(kernels.orthonormalise, kernels.draw_columns, kernels.subtract),
        *(product, product_left, product_right),
    )

    def __init__(self, option: str, dtype: np.dtype) -> None:
        expected = f"powersgd:RANK, with a rank from 1 to {_RANK_MAX}, such as powersgd:4"
        self.rank = whole_option("powersgd", option, expected, _RANK_MAX)
        self.name, self.dtype = f"powersgd:{self.rank}", np.dtype(dtype)

    def matrix(self, shape: Sequence[int]) -> tuple[int, int] | None:
        """A parameter of this shape as a matrix of m rows and n columns; None if it is sent as it is."""
        if len(shape) < 2:
            return None
        cuts = [(prod(shape[:at]), prod(shape[at:])) for at in range(1, len(shape))]
        m, n = min(cuts, key=sum)
        return (m, n) if self.rank * (m + n) < m * n else None

    def sent_bytes(self, shape: Sequence[int]) -> int:
        """Bytes that stand for a parameter of this shape."""
        found = self.matrix(shape)
        return self.dtype.itemsize * (self.rank * sum(found) if found else prod(shape))
