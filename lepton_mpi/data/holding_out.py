"""Splits that a file has not, made of its training rows."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from lepton_mpi.data import order
from lepton_mpi.data.rows import Rows
from lepton_mpi.data.windows import Windows


def hold_out(splits: dict[str, Rows], held_out: Mapping[str, float], seed: int) -> None:
    """Add the splits that are missing; ``held_out`` are their parts of the training rows, test first."""
    for purpose in ("test", "validation"):
        if purpose in splits:
            continue
        train = splits["train"]
        if train.windows is None:
            kept, out = order.hold_out(train.row_count, held_out[purpose], seed, purpose)
        else:
            kept, out = _last_rows(train.windows, train.row_count, held_out[purpose])
        before = train.indices
        if out.size:  # else all rows still count, which takes no list of them
            splits["train"] = replace(train, chosen=before[kept])
        splits[purpose] = replace(train, chosen=before[out])


def _last_rows(windows: Windows, row_count: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Places of the rows kept and held out: a text is divided in its order, as ``prepare`` does.

    Rows that overlap with those held out are in neither.
    """
    first = row_count - round(fraction * row_count)
    overlapping = -(-windows.length // windows.stride) - 1 if first < row_count else 0
    return np.arange(max(0, first - overlapping)), np.arange(first, row_count)
