"""Every way that ``benchmarks/update.py`` times makes the right parameters, and a wrong one is noticed."""

import numpy as np
import pytest

from benchmarks.engines.update import Case, measure, measure_case
from benchmarks.engines.update_reference import Reference
from benchmarks.engines.update_ways import WAYS, Problem
from tests.parallel.together import together

# No multiple of 2, 3 or 4, so that the last slices are padded; three buckets and a rest.
_COUNT, _BUCKET = 6_007, 2_000
_SECONDS = 1e-6


@pytest.mark.parametrize(("way", "form"), WAYS)
# With no, one and two vectors of state.
@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam"])
def test_every_way_is_right(world, way, form, optimizer):
    """All parameters, after the first steps and at the end."""
    case = Case(_COUNT, optimizer, way, form)
    row = measure_case(world, case, 4 * _BUCKET, _SECONDS)
    with together(world):
        assert row["wrong"] == 0
        assert 0 < row["min_us"] <= row["time_us"] <= row["p99_us"]


@pytest.mark.parametrize(("way", "form"), WAYS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_gradient_left_out_is_noticed(world, way, form, optimizer):
    """Of one rank in one step."""
    made = WAYS[way, form](world, Problem(_COUNT, optimizer, _BUCKET))
    right_step = made.step

    def step_without_the_last_rank(step, row_count):
        if step == 2 and world.rank == world.size - 1:
            made.gradient[:] = 0
        right_step(step, row_count)

    made.step = step_without_the_last_rank
    timing = measure(world, made, Reference(optimizer, world.rank, world.size), _SECONDS)
    with together(world):
        assert timing.wrong > 0.9 * _COUNT


def test_a_slow_case_is_given_up(world):
    """And has no row."""
    case = Case(_COUNT, "adam", "allreduce", "whole", give_up_seconds=0.0)
    row = measure_case(world, case, 4 * _BUCKET, _SECONDS)
    with together(world):
        assert row is None


def test_what_memory_allows_is_measured(world):
    """A time above 0 that is the same on all ranks, for any number of vectors of state."""
    from benchmarks.limit import MemoryLimit

    limit = MemoryLimit(world, np.dtype(np.float32))
    for states in (0, 1, 2):
        seconds = limit.update_seconds(1 << 16, states)
        everybody = world.comm.allgather(seconds)
        with together(world):
            assert seconds > 0
            assert set(everybody) == {seconds}
