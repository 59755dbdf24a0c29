"""Codec ``sign``: the sign of every element, and the mean magnitude of each block of 1024.

    scale = mean |x| of the block       x ~ scale sign(x)       bytes = n / 8 + 4 n / 1024, each rounded up (float64: 8 for each scale)

Among all scales the mean magnitude leaves the smallest error in the sum of squares.
Source: Seide et al., "1-bit stochastic gradient descent", Interspeech 2014; Karimireddy et al., "Error feedback fixes SignSGD",
ICML 2019; both ways compressed as in Tang et al., "1-bit Adam", ICML 2021.
"""

import numpy as np

from lepton_mpi.collectives.compressing import sign_kernels
from lepton_mpi.collectives.compressing.blocks import Blocks


class Sign(Blocks):
    """See the module."""

    name, codes_per_byte = "sign", 8
    kernels = (sign_kernels.encode, sign_kernels.decode)

    def __init__(self, option: str, dtype: np.dtype) -> None:
        super().__init__(option, dtype)
        self._sums = np.zeros(sign_kernels.SUMS, self.dtype)

    def encode(
        self, x: np.ndarray, residual: np.ndarray, payload: np.ndarray, key: np.uint64
    ) -> None:
        scales, codes = self.parts(payload, x.size)
        sign_kernels.encode(x, residual, self._sums, scales, codes)

    def decode(self, payload: np.ndarray, out: np.ndarray, key: np.uint64, adds: bool) -> None:
        scales, codes = self.parts(payload, out.size)
        sign_kernels.decode(scales, codes, out, adds)
