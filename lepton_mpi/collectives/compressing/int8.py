"""Codec ``int8``: whole numbers from -127 to 127, stochastic rounding, a scale for each block of 1024 elements.

    scale = max |x| / 127 of the block       code = floor(x / scale + u), u uniform from 0 to 1       x ~ code scale
    bytes = n + 4 n / 1024, rounded up (float64: 8 for each scale)

The mean of the decoded value over u is x. u has 16 bits, from random numbers that are a function of the key and the
element's number alone, so the bits depend neither on time nor on the machine.
Source: Alistarh et al., "QSGD", NeurIPS 2017; blocks as in Dettmers et al., "8-bit optimizers", ICLR 2022.
"""

import numpy as np

from lepton_mpi.collectives.compressing import int8_kernels
from lepton_mpi.collectives.compressing.blocks import Blocks


class Int8(Blocks):
    """See the module."""

    name, codes_per_byte = "int8", 1
    kernels = (int8_kernels.encode, int8_kernels.decode)

    def encode(
        self, x: np.ndarray, residual: np.ndarray, payload: np.ndarray, key: np.uint64
    ) -> None:
        scales, codes = self.parts(payload, x.size)
        int8_kernels.encode(x, residual, key, self.numbers, scales, codes.view(np.int8))

    def decode(self, payload: np.ndarray, out: np.ndarray, key: np.uint64, adds: bool) -> None:
        scales, codes = self.parts(payload, out.size)
        int8_kernels.decode(scales, codes.view(np.int8), out, adds)
