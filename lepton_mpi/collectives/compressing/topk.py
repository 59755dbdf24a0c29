"""Codec ``topk:SHARE``: the elements of largest magnitude, with their numbers; the others are 0.

    k = SHARE n, rounded up       bytes = k (4 + 4), float64 k (8 + 4)

``topk:SHARE,sampled`` takes its threshold from a sample of the elements, which saves counting all of them; more than k above
it are reduced to the k largest, fewer are sent as they are, and the rest of the payload is zeros.
Source: Aji and Heafield, "Sparse communication for distributed gradient descent", EMNLP 2017; the sample: Lin et al., "Deep
gradient compression", ICLR 2018.
"""

import numpy as np

from lepton_mpi.collectives.compressing import topk_kernels as kernels
from lepton_mpi.collectives.compressing.codec import chosen_count, share_option

_EXPECTED = "topk:SHARE or topk:SHARE,sampled, with a share above 0, at most 1, such as topk:0.01"
_INDEX_BYTES = 4
# Elements of a sample: this share of all, but no fewer than SAMPLE_MIN, of which a share of 1 % still is some.
_SAMPLE_SHARE, _SAMPLE_MIN = 0.01, 4096


class TopK:
    """See the module, and ``Codec``."""

    sums_payloads, is_sparse = False, True

    def __init__(self, option: str, dtype: np.dtype) -> None:
        share, comma, way = option.partition(",")
        known = not comma or way == "sampled"
        self._share = share_option("topk", share if known else "", _EXPECTED)
        self.is_sampled = bool(comma)
        self.name, self.dtype = f"topk:{option}", np.dtype(dtype)
        self.kernels = (
            *(kernels.pick, kernels.choose, kernels.scatter_add, kernels.threshold_bin),
            *((kernels.sample, kernels.kth_bits) if comma else (kernels.add_and_count,)),
        )
        self._counts = np.zeros((kernels.WAYS, kernels.BINS), np.int64)
        self._candidates, self._found = np.zeros(0, np.uint32), np.zeros(2, np.int64)
        self._bits = 8 * self.dtype.itemsize - 1

    def sent_bytes(self, count: int) -> int:
        return chosen_count(self._share, count) * (self.dtype.itemsize + _INDEX_BYTES)

    def encode(
        self, x: np.ndarray, residual: np.ndarray, payload: np.ndarray, key: np.uint64
    ) -> None:
        values, indices = self._parts(payload)
        if len(self._candidates) < x.size:
            self._candidates = np.empty(x.size, np.uint32)
        k, found = len(indices), self._found
        if self.is_sampled:
            lower = self._sampled_threshold(x, residual, k / x.size, key)
            # All that pass are candidates, of which too many are reduced; magnitudes have no more bits than these.
            bits = self._bits
            last = (1 << bits) - 1
        else:
            kernels.add_and_count(x, residual, self._counts)
            bits = self._bits - kernels.BIN_BITS
            lower = kernels.threshold_bin(self._counts[0], k) << bits
            last = lower + (1 << bits) - 1
        places = self._candidates, indices, values, found
        kernels.pick(x, self.is_sampled, residual, lower, last, *places)
        taken, collected = found.tolist()
        bins = self._counts[1]
        kernels.choose(residual, self._candidates, collected, taken, bits, bins, indices, values)

    def decode(self, payload: np.ndarray, out: np.ndarray, key: np.uint64, adds: bool) -> None:
        values, indices = self._parts(payload)
        if not adds:
            out[:] = 0
        kernels.scatter_add(indices, values, out)

    def _parts(self, payload: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Views of its values and its indices, shape (k,) both."""
        k = payload.size // (self.dtype.itemsize + _INDEX_BYTES)
        bound = k * self.dtype.itemsize
        return payload[:bound].view(self.dtype), payload[bound:].view(np.uint32)

    def _sampled_threshold(
        self, x: np.ndarray, residual: np.ndarray, share: float, key: np.uint64
    ) -> int:
        """Bits of a magnitude that about ``share`` of the elements reach, all of them in a short vector."""
        count = min(x.size, max(_SAMPLE_MIN, int(_SAMPLE_SHARE * x.size)))
        stride = x.size // count
        found = np.empty(count, self.dtype)
        kernels.sample(x, residual, int(key % np.uint64(stride)), stride, found)
        # At least one of a sample passes, so that something is sent.
        k = max(1, int(share * count))
        return int(kernels.kth_bits(found, k, self._counts[0]))
