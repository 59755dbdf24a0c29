"""Payloads of codecs that give every block of elements a scale: the scales, then the codes."""

import numpy as np

from lepton_mpi.collectives.compressing.bit_kernels import BLOCK, DITHER_BITS
from lepton_mpi.collectives.compressing.codec import no_option


class Blocks:
    """Common to int8, int4 and sign; see ``Codec``.

    Attributes
    ----------
    codes_per_byte : int
    """

    sums_payloads = is_sparse = False
    name: str
    codes_per_byte: int

    def __init__(self, option: str, dtype: np.dtype) -> None:
        no_option(self.name, option)
        self.dtype = np.dtype(dtype)
        self.numbers = np.zeros(BLOCK * DITHER_BITS // 64, np.uint64)

    def sent_bytes(self, count: int) -> int:
        return self.dtype.itemsize * -(-count // BLOCK) + -(-count // self.codes_per_byte)

    def parts(self, payload: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Views of its scales and its codes, the latter uint8."""
        bound = self.dtype.itemsize * -(-count // BLOCK)
        return payload[:bound].view(self.dtype), payload[bound:]
