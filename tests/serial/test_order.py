"""Which rows form a step, and which of them belong to a rank."""

import hashlib
import inspect
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_mpi.chunks import share
from lepton_mpi.data import order
from tests import reference

WORLD_SIZES = range(1, 10)


def _row_counts(world_size: int) -> set[int]:
    return {0, 1, world_size - 1, world_size, world_size + 1, 1009}


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("batch_rows", [1, 3, 64, 2000])
def test_every_row_of_an_epoch_is_used_exactly_once(world_size, batch_rows):
    """The rows of all steps on all ranks are all rows, each once, in the order of the epoch within a step."""
    for row_count in _row_counts(world_size):
        rows = order.epoch_order(row_count, 11, 2)
        used = []
        for step_start, step_stop in reference.step_bounds(row_count, batch_rows):
            shares = [share(step_start, step_stop, world_size, rank) for rank in range(world_size)]
            used += [rows[start:stop] for start, stop in shares]
        used = np.concatenate([*used, np.empty(0, np.int64)])
        np.testing.assert_array_equal(used, rows)
        np.testing.assert_array_equal(np.sort(used), np.arange(row_count))


@given(st.integers(0, 5000), st.integers(-5, 5000), st.integers(1, 200))
def test_shares_are_contiguous_and_differ_by_one(start, length, world_size):
    """Shares follow each other from start to stop, none negative, lengths differing by at most 1."""
    shares = [share(start, start + length, world_size, rank) for rank in range(world_size)]
    assert shares[0][0] == start and shares[-1][1] == start + max(0, length)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(shares))
    lengths = [stop - first for first, stop in shares]
    assert min(lengths) >= 0 and max(lengths) - min(lengths) <= 1


@given(st.integers(0, 5000), st.integers(1, 600))
def test_steps_are_full_but_for_the_last(row_count, batch_rows):
    """Every step but the last has ``batch_rows`` rows, and the last at least one."""
    cut = order.MicroBatches(batch_rows, 1)
    lengths = [cut.step_rows(row_count, step) for step in range(cut.step_count(row_count))]
    bounds = reference.step_bounds(row_count, batch_rows)
    assert lengths == [stop - start for start, stop in bounds]
    assert sum(lengths) == row_count
    assert all(length == batch_rows for length in lengths[:-1])
    assert not lengths or 0 < lengths[-1] <= batch_rows


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    """Neither rank nor world size can be told to ``epoch_order``; other seeds and epochs give other orders."""
    assert list(inspect.signature(order.epoch_order).parameters) == ["row_count", "seed", "epoch"]
    orders = {
        order.epoch_order(100, seed, epoch).tobytes() for seed in range(5) for epoch in range(5)
    }
    assert len(orders) == 25
    np.testing.assert_array_equal(order.epoch_order(100, 3, 4), order.epoch_order(100, 3, 4))


def test_the_order_never_changes_between_versions():
    """Frozen values: a run of an old version can be repeated."""
    assert order.epoch_order(12, 0, 1).tolist() == [3, 8, 4, 7, 10, 6, 9, 0, 11, 2, 5, 1]
    assert order.epoch_order(12, 5, 3).tolist() == [8, 4, 3, 6, 2, 5, 1, 7, 10, 11, 9, 0]
    long = order.epoch_order(1009, 0, 1).astype("<i8")
    assert hashlib.blake2b(long.tobytes(), digest_size=8).hexdigest() == "b37bf22ed2816dab"


@pytest.mark.parametrize("row_count", [0, 1, 2, 7, 1009])
@pytest.mark.parametrize("fraction", [0, 0.001, 0.2, 0.5, 0.999])
def test_held_out_rows_and_kept_rows_are_all_rows(row_count, fraction):
    """``round(fraction * rows)`` rows are held out, the others kept, both ascending."""
    kept, held_out = order.hold_out(row_count, fraction, 3, "test")
    assert held_out.size == round(fraction * row_count)
    assert (np.diff(kept) > 0).all() and (np.diff(held_out) > 0).all()
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(row_count))


def test_held_out_rows_never_change_between_versions():
    """Frozen values; test and validation are drawn independently of each other."""
    assert order.hold_out(10, 0.2, 0, "test")[1].tolist() == [7, 8]
    assert order.hold_out(10, 0.2, 0, "validation")[1].tolist() == [6, 9]
