"""Codecs ``fp16`` and ``bf16``: 16-bit floats, rounded to nearest, ties to even.

    fp16    10 bits of fraction, from 6e-8 to 65504       bf16    7 bits of fraction, the range of float32
    bytes   2 n

A larger number becomes the largest one, and the residual keeps the rest. float64 is rounded to float32 first.
Source: Micikevicius et al., "Mixed precision training", ICLR 2018; Kalamkar et al., "A study of BFLOAT16 for deep learning
training", 2019.
"""

import numpy as np

from lepton_mpi.collectives.compressing import half_kernels
from lepton_mpi.collectives.compressing.codec import no_option


class _Half:
    """Common to both; see ``Codec``."""

    sums_payloads = is_sparse = False
    name: str

    def __init__(self, option: str, dtype: np.dtype) -> None:
        no_option(self.name, option)
        self.dtype = np.dtype(dtype)

    def sent_bytes(self, count: int) -> int:
        return 2 * count


class Fp16(_Half):
    """See the module."""

    name = "fp16"
    kernels = (half_kernels.encode_fp16, half_kernels.decode_fp16)

    def encode(
        self, x: np.ndarray, residual: np.ndarray, payload: np.ndarray, key: np.uint64
    ) -> None:
        half_kernels.encode_fp16(x, residual, payload.view(np.uint16))

    def decode(self, payload: np.ndarray, out: np.ndarray, key: np.uint64, adds: bool) -> None:
        half_kernels.decode_fp16(payload.view(np.uint16), out, adds)


class Bf16(_Half):
    """See the module."""

    name = "bf16"
    kernels = (half_kernels.encode_bf16, half_kernels.decode_bf16)

    def encode(
        self, x: np.ndarray, residual: np.ndarray, payload: np.ndarray, key: np.uint64
    ) -> None:
        limit = self.dtype.type(half_kernels.BF16_MAX)
        half_kernels.encode_bf16(x, residual, limit, payload.view(np.uint16))

    def decode(self, payload: np.ndarray, out: np.ndarray, key: np.uint64, adds: bool) -> None:
        half_kernels.decode_bf16(payload.view(np.uint16), out, adds)
