"""Codec ``randomk:SHARE``: elements at random, the same on all hosts, so that their values alone are sent, and summed.

    k = SHARE n, rounded up       bytes = 4 k, float64 8 k

The vector is cut into k runs of nearly equal length, and each gives one element. Which one is a function of the key alone.
With NaN or infinity anywhere all values sent are NaN.
Source: Stich, Cordonnier and Jaggi, "Sparsified SGD with memory", NeurIPS 2018.
"""

import numpy as np

from lepton_mpi.collectives.compressing import randomk_kernels as kernels
from lepton_mpi.collectives.compressing.codec import chosen_count, share_option

_EXPECTED = "randomk:SHARE, with a share above 0, at most 1, such as randomk:0.01"


class RandomK:
    """See the module, and ``Codec``."""

    sums_payloads = is_sparse = True
    kernels = (kernels.encode, kernels.scatter_add)

    def __init__(self, option: str, dtype: np.dtype) -> None:
        self._share = share_option("randomk", option, _EXPECTED)
        self.name, self.dtype = f"randomk:{option}", np.dtype(dtype)

    def sent_bytes(self, count: int) -> int:
        return chosen_count(self._share, count) * self.dtype.itemsize

    def encode(
        self, x: np.ndarray, residual: np.ndarray, payload: np.ndarray, key: np.uint64
    ) -> None:
        kernels.encode(x, residual, key, payload.view(self.dtype))

    def decode(self, payload: np.ndarray, out: np.ndarray, key: np.uint64, adds: bool) -> None:
        if not adds:
            out[:] = 0
        kernels.scatter_add(payload.view(self.dtype), key, out)
