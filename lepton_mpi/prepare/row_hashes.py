"""Rows that are equal, found by a hash of each: no rank has to hold the rows of another."""

from hashlib import blake2b

import numpy as np

from lepton_mpi.kernels.counter_random import bits, mix
from lepton_mpi.prepare.readers import Block, Words

# Streams of the random numbers behind the two halves of a row's hash; labels have the next.
_HASHES = (20, 21)


def hashes_of_rows(block: Block, x: np.ndarray) -> np.ndarray:
    """Two independent 64-bit hashes of each row, features and label; equal rows have equal ones wherever they stand.

    ``x`` must be of one type in all blocks, or of float types, since bytes are compared.
    Each word of a row is mixed with a random key of its place and the results are added up. 128 bits: a billion rows
    have two different ones with the same hash by a chance of 1e-21.
    """
    if not x.size:
        return np.zeros((len(x), 2), np.uint64)
    values = x.astype(np.float64) + 0.0 if x.dtype.kind == "f" else x  # +0.0: minus zero is zero
    words = _as_words(values)
    out = np.empty((len(x), 2), np.uint64)
    for half, stream in enumerate(_HASHES):
        keys = bits(0, stream, words.shape[1] + 1)
        out[:, half] = mix(words ^ keys[1:]).sum(axis=1, dtype=np.uint64)
        texts = [*((1 + feature, w) for feature, w in block.words.items()), (0, block.y)]
        for place, column in texts:
            mixed = mix(_column_words(column) ^ mix(keys[:1] + np.uint64(place)))
            # A missing text adds nothing, since a block without any text of a column does not know that it holds texts.
            out[:, half] += np.where(_is_missing(column), np.uint64(0), mixed)
    return out


def with_labels(hashes: np.ndarray, y: Words | np.ndarray) -> np.ndarray:
    """Hashes of rows, of which the labels were not known before, with these labels."""
    out = hashes.copy()
    for half, stream in enumerate(_HASHES):
        mixed = mix(_column_words(y) ^ mix(bits(0, stream, 1)))
        out[:, half] += np.where(_is_missing(y), np.uint64(0), mixed)
    return out


def _is_missing(column: Words | np.ndarray) -> np.ndarray | bool:
    return column.codes < 0 if isinstance(column, Words) else False


def _as_words(values: np.ndarray) -> np.ndarray:
    """The bytes of each row as uint64, filled up with zeros. Missing cells are all the same."""
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), np.nan, values)
    raw = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    spare = -raw.shape[1] % 8
    if spare:
        raw = np.concatenate([raw, np.zeros((len(raw), spare), np.uint8)], axis=1)
    return raw.view(np.uint64)


def _column_words(column: Words | np.ndarray) -> np.ndarray:
    """One uint64 a row: of texts their own hash, whatever their codes in this block."""
    if isinstance(column, Words):
        of_texts = np.array([_text_hash(text) for text in column.texts] + [0], np.uint64)
        return of_texts[column.codes]
    words = _as_words(column.reshape(len(column), -1) + 0)
    return mix(words ^ bits(0, _HASHES[0] + 2, words.shape[1])).sum(axis=1, dtype=np.uint64)


def _text_hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
