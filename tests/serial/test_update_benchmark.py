"""What ``benchmarks/update.py`` decides without ranks: what is right, what fits, what won, and the ratios."""

import argparse

import numpy as np
import pytest

from benchmarks import update_launches
from benchmarks.engines.update_reference import PERIOD, Reference, fill_parameters, settings_of
from benchmarks.peers import Variant
from benchmarks.update_launches import combine, fits, needed_bytes, winners
from lepton_mpi.optimizers.optimizer import Optimizer
from lepton_mpi.optimizers.registry import OPTIMIZERS, rule_of
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.vectors import Layout

_COUNT = 3 * PERIOD + 5


def _after_steps(optimizer: str, size: int, steps: int) -> tuple[Reference, np.ndarray]:
    """The reference, and parameters by the engine's kernel, after so many steps of ``size`` ranks."""
    references = [Reference(optimizer, rank, size) for rank in range(size)]
    state = np.zeros((len(rule_of(Settings(optimizer, float)).state), _COUNT), np.float32)
    made = Optimizer(settings_of(optimizer), Layout({"all": (_COUNT,)}), np.float32, state)
    parameters, gradients = np.empty(_COUNT, np.float32), np.empty((size, _COUNT), np.float32)
    fill_parameters(parameters)
    for step in range(1, steps + 1):
        for reference, gradient in zip(references, gradients, strict=True):
            reference.advance(gradient)
        made.begin_step(step, 1.0 / references[0].row_count)
        made.update(parameters, gradients.sum(axis=0), 0, _COUNT)
    return references[0], parameters


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.built_in)
def test_the_kernels_agree_with_the_reference(optimizer, size):
    """Over as many steps as are timed."""
    reference, parameters = _after_steps(optimizer, size, 400)
    assert reference.count_wrong(parameters) == 0


@pytest.mark.parametrize("size", [2, 4, 8])
def test_plain_sgd_is_compared_exactly(size):
    """To the last bit."""
    reference, parameters = _after_steps("sgd", size, 400)
    assert reference.tolerance == 0
    parameters[-1] = np.nextafter(parameters[-1], np.float32(9))
    assert reference.count_wrong(parameters) == 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS.built_in)
def test_a_step_too_few_is_noticed(optimizer):
    """In nearly all elements, whatever the bound on rounding."""
    reference, parameters = _after_steps(optimizer, 2, 9)
    reference.advance(np.empty(_COUNT, np.float32))
    assert reference.count_wrong(parameters) > 0.9 * _COUNT


def test_not_a_number_is_wrong():
    """Though it is not farther away than anything."""
    reference, parameters = _after_steps("adam", 2, 3)
    parameters[[0, PERIOD, -1]] = np.nan
    assert reference.count_wrong(parameters) == 3


def test_a_replica_on_every_rank_needs_most_memory():
    """With the numbers of the table in ``update_ways.py``: 8 ranks, 400 MB, Adam."""
    gigabytes = {
        way: needed_bytes(way, 8, 10**8, 2) / 1e9
        for way in ("shared", "reduce_scatter", "allreduce")
    }
    assert [round(value) for value in gigabytes.values()] == [6, 13, 18]


def test_what_does_not_fit_is_left_out_with_a_reason(monkeypatch, capsys):
    """One line that says what is needed and what there is."""
    monkeypatch.setattr(update_launches, "free_bytes", lambda: 12 * 10**9)
    assert fits("shared", 8, 10**8, "adam")
    assert capsys.readouterr().out == ""
    assert not fits("allreduce", 8, 10**8, "adam")
    said = (
        "left out: allreduce of 100000000 parameters on 8 ranks needs 17.8 GB, 12.0 GB are free\n"
    )
    assert capsys.readouterr().out == said


def _row(library: str, way: str, form: str, us: float, **more) -> dict:
    row = {"library": library, "tuning": "default", "tuned": False, "way": way, "form": form}
    row |= {"ranks": 2, "parameters": 10**6, "time_us": us, "min_us": us, "p99_us": us, "wrong": 0}
    return row | {"limit_us": None} | more


def test_the_ratio_is_to_the_fastest_way_of_all():
    """Also where that is a tuned one; the limit is the one measured beside lepton_mpi."""
    rows = combine(
        [
            _row("intel", "allreduce", "whole", 900.0),
            _row("intel", "allreduce", "whole", 700.0, tuning="preset 9", tuned=True),
            _row("mpich", "reduce_scatter", "whole", 600.0),
            _row("lepton_mpi", "allreduce", "private", 400.0, limit_us=100.0),
            _row("lepton_mpi", "shared", "whole", 200.0, limit_us=100.0),
        ]
    )
    assert [row["library"][0] for row in rows] == ["l", "l", "m", "i", "i"]
    assert [row["ratio"] for row in rows] == [3.0, 1.5, None, None, None]
    assert [row["of_limit"] for row in rows] == [1 / 2, 1 / 4, 1 / 6, 1 / 9, 1 / 7]


def test_launches_become_a_median():
    """And the worst count of wrong elements."""
    launches = [
        _row("mpich", "allreduce", "whole", us, wrong=w) for us, w in ((5, 0), (3, 2), (9, 0))
    ]
    (row,) = combine(launches)
    assert (row["time_us"], row["min_us"], row["wrong"], row["launches"]) == (5, 3, 2, 3)


def test_longer_vectors_take_the_winners_of_the_sweep():
    """The fastest form at the defaults, and the fastest under any other setting."""
    default, ring = Variant("openmpi", "default", {}), Variant("openmpi", "ring", {"A": "1"})
    found = [
        (default, _row("openmpi", "allreduce", "whole", 30.0, parameters=10**7)),
        (default, _row("openmpi", "allreduce", "buckets", 20.0, parameters=10**7)),
        (ring, _row("openmpi", "allreduce", "whole", 10.0, parameters=10**7, tuned=True)),
    ]
    entrants = winners(found, [(10**7, "allreduce"), (10**8, "allreduce")], "adam")
    cases = {e.tuning: [str(case) for case in e.cases] for e in entrants}
    assert cases == {
        "default": ["10000000:adam:allreduce:buckets", "100000000:adam:allreduce:buckets"],
        "ring": ["10000000:adam:allreduce:whole", "100000000:adam:allreduce:whole"],
    }
    assert entrants[1].environment == {"A": "1"}


@pytest.mark.parametrize("text", ["0", "1.5", "-3"])
def test_sizes_are_whole_numbers(text):
    """From 1."""
    from benchmarks.update import _count

    with pytest.raises(argparse.ArgumentTypeError, match=r"expected a whole number from 1"):
        _count(text)
    assert _count("1e7") == 10_000_000
