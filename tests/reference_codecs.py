"""The codecs of ``collectives/compressing`` in NumPy, element by element as their docstrings have them.

Each takes y, the vector with its residual, shape (n,), and returns what is decoded, shape (n,). Equal bits, not nearly equal.
"""

import numpy as np

from lepton_mpi.kernels import counter_random

BLOCK = 1024


def fp16(y: np.ndarray, key: np.uint64) -> np.ndarray:
    held = np.where(np.isfinite(y), np.clip(y, -65504, 65504), y)
    return held.astype(np.float32).astype(np.float16).astype(y.dtype)


def bf16(y: np.ndarray, key: np.uint64) -> np.ndarray:
    largest = np.array([0x7F7F0000], np.uint32).view(np.float32)[0]
    held = np.where(np.isfinite(y), np.clip(y, -largest, largest), y).astype(np.float32)
    bits = held.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    found = np.where(np.isnan(held), bits | 0x400000, rounded).astype(np.uint32)
    return found.view(np.float32).astype(y.dtype)


def int8(y: np.ndarray, key: np.uint64) -> np.ndarray:
    return _whole(y, key, 127)


def int4(y: np.ndarray, key: np.uint64) -> np.ndarray:
    return _whole(y, key, 7)


def _whole(y: np.ndarray, key: np.uint64, levels: int) -> np.ndarray:
    kind = y.dtype.type
    out = np.empty_like(y)
    for block in range(-(-y.size // BLOCK)):
        part = y[block * BLOCK : (block + 1) * BLOCK]
        largest = np.abs(part).max()
        scale = largest / kind(levels)
        if not np.isfinite(largest):
            out[block * BLOCK : (block + 1) * BLOCK] = scale
            continue
        if scale < np.finfo(y.dtype).tiny:
            out[block * BLOCK : (block + 1) * BLOCK] = 0
            continue
        words = counter_random.numbers(np.array([key]), BLOCK // 4, block * BLOCK // 4)
        dither = words.view(np.uint16)[: part.size].astype(y.dtype) / kind(65536)
        codes = np.floor(part * (kind(levels) / largest) + dither)
        out[block * BLOCK : (block + 1) * BLOCK] = np.clip(codes, -levels, levels) * scale
    return out


def sign(y: np.ndarray, key: np.uint64) -> np.ndarray:
    kind = y.dtype.type
    out = np.empty_like(y)
    for start in range(0, y.size, BLOCK):
        part = y[start : start + BLOCK]
        # Element i is added to sum i modulo 64, and the sums pairwise, from the farthest on.
        terms = np.zeros(-(-part.size // 64) * 64, y.dtype)
        terms[: part.size] = np.abs(part) * (kind(1) / kind(part.size))
        sums = np.zeros(64, y.dtype)
        for row in terms.reshape(-1, 64):
            sums += row
        while sums.size > 1:
            half = sums.size // 2
            sums = sums[:half] + sums[half:]
        out[start : start + BLOCK] = np.where(np.signbit(part), -sums[0], sums[0])
    return out


def topk(y: np.ndarray, key: np.uint64, k: int) -> np.ndarray:
    """NaN is above all; of equal magnitudes the first."""
    magnitude = np.abs(y).view(f"u{y.itemsize}")
    order = np.argsort(~magnitude, kind="stable")[:k]
    out = np.zeros_like(y)
    out[order] = y[order]
    return out


def randomk(y: np.ndarray, key: np.uint64, k: int) -> np.ndarray:
    out = np.zeros_like(y)
    words = counter_random.numbers(np.array([key]), k)
    for j in range(k):
        start, stop = j * y.size // k, (j + 1) * y.size // k
        index = start + int(words[j]) % (stop - start)
        out[index] = y[index] if np.isfinite(y).all() else np.nan
    return out


def powersgd(
    matrices: list[np.ndarray], q: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """One step for M of all hosts, float64: the decoded sum, the new Q, and what each host keeps."""
    p, _ = np.linalg.qr(sum(matrix @ q for matrix in matrices))
    parts = [matrix.T @ p for matrix in matrices]
    left = [matrix - p @ part.T for matrix, part in zip(matrices, parts, strict=True)]
    return p @ sum(parts).T, sum(parts), left
