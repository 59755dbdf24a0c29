"""Splits that a file has not, made of its training rows."""

from collections.abc import Mapping
from dataclasses import replace

from lepton_mpi.data import order
from lepton_mpi.data.rows import Rows


def hold_out(splits: dict[str, Rows], held_out: Mapping[str, float], seed: int) -> None:
    """Add the splits that are missing; ``held_out`` are their parts of the training rows, test first."""
    for purpose in ("test", "validation"):
        if purpose in splits:
            continue
        train = splits["train"]
        kept, out = order.hold_out(train.row_count, held_out[purpose], seed, purpose)
        before = train.indices
        if out.size:  # else all rows still count, which takes no list of them
            splits["train"] = replace(train, chosen=before[kept])
        splits[purpose] = replace(train, chosen=before[out])
