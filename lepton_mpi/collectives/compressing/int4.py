"""Codec ``int4``: as ``int8`` with whole numbers from -7 to 7, two in a byte.

    scale = max |x| / 7 of the block       bytes = n / 2 + 4 n / 1024, each rounded up (float64: 8 for each scale)

Source: as of ``int8``.
"""

import numpy as np

from lepton_mpi.collectives.compressing import int4_kernels
from lepton_mpi.collectives.compressing.blocks import Blocks


class Int4(Blocks):
    """See the module."""

    name, codes_per_byte = "int4", 2
    kernels = (int4_kernels.encode, int4_kernels.decode)

    def encode(
        self, x: np.ndarray, residual: np.ndarray, payload: np.ndarray, key: np.uint64
    ) -> None:
        scales, codes = self.parts(payload, x.size)
        int4_kernels.encode(x, residual, key, self.numbers, scales, codes)

    def decode(self, payload: np.ndarray, out: np.ndarray, key: np.uint64, adds: bool) -> None:
        scales, codes = self.parts(payload, out.size)
        int4_kernels.decode(scales, codes, out, adds)
