"""Tables of what was measured: files, the choice, and the fit."""

import dataclasses

import numpy as np
import pytest

from lepton_mpi.collectives.choosing import tuning
from lepton_mpi.collectives.choosing.tuning import Fit, Job, Measured, Table, sizes
from lepton_mpi.collectives.schedules.algorithms import ALGORITHMS

JOB = Job("Some MPI 1.2", (2,), 2, "A processor")
CASES = (
    Measured("shared", "host", 8, 1.0),
    Measured("array", "host", 8, 4.0),
    Measured("any", "mpi", 8, 2.0),
    Measured("any", "ring", 4096, 3.0),
    Measured("array", "host", 4096, 2.5),
)


class OneHost:
    """As much of a world as the choice needs."""

    rank, size, host_count = 0, 2, 1

    def __init__(self, table: Table | None) -> None:
        self.remembered = {"tuning": table}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of tables that does not exist yet."""
    monkeypatch.setenv("LEPTON_TUNING", str(tmp_path / "tables"))
    return tmp_path / "tables"


def test_a_table_comes_back_as_it_was(folder):
    """With and without a fit."""
    for fit in (None, Fit(1e-6, 2e-6, 1e-9, 0.0, {"ring": 1.5})):
        table = Table(JOB, "2026-01-02", CASES, fit)
        assert tuning.save(table).parent == folder
        assert tuning.load(JOB) == table


def test_another_kind_of_job_has_another_table(folder):
    """Every part of the key counts."""
    tuning.save(Table(JOB, "2026-01-02", CASES))
    for change in ({"mpi": "Some MPI 1.3"}, {"ranks_per_host": (1, 1)}, {"cores": 4}, {"cpu": "B"}):
        assert tuning.load(dataclasses.replace(JOB, **change)) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', '{"version": 2}', "\x00"])
def test_a_damaged_table_is_none(folder, text):
    """What cannot be read is as if it had never been measured."""
    path = tuning.save(Table(JOB, "2026-01-02", CASES))
    path.write_text(text)
    assert tuning.load(JOB) is None


def test_auto_takes_the_fastest_of_the_nearest_size():
    """Modes are kept apart; what fits any mode competes in all."""
    world = OneHost(Table(JOB, "2026-01-02T03:04", CASES))
    choices = {
        ("shared", 8): "host",
        ("shared", 4096): "host",  # message algorithms have no result that a host shares
        ("array", 8): "mpi",
        ("array", 100): "mpi",
        ("array", 1000): "host",
        ("array", 1 << 30): "host",
        ("array", 0): "mpi",
    }
    for (mode, byte_count), expected in choices.items():
        choice = tuning.choose(world, "auto", mode, byte_count, reproducible=False)
        assert choice.algorithm == expected, (mode, byte_count)
    assert "fastest of 2" in choice.reason
    assert "2026-01-02" in choice.reason


def test_auto_for_gradients_keeps_the_canonical_order():
    """Whatever is faster; and the reason tells what it costs."""
    world = OneHost(Table(JOB, "2026-01-02", (*CASES, Measured("shared", "host", 4096, 9.0))))
    choice = tuning.choose(world, "auto", "shared", 4096, reproducible=True)
    assert choice.algorithm == "host"
    assert "same bits" in choice.reason
    assert "9 us" in choice.reason


def test_auto_without_a_table():
    """A rule, which says so."""
    for reproducible, words in ((True, "same bits"), (False, "lepton_mpi tune")):
        choice = tuning.choose(OneHost(None), "auto", "array", 8, reproducible)
        assert choice.algorithm == "host"
        assert words in choice.reason
    assert tuning.choose(OneHost(None), "ring", "array", 8, False).algorithm == "ring"


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_the_fit_recovers_what_the_times_were_made_from(world_size):
    """Also with one case in ten disturbed."""
    true = Fit(2e-6, 9e-6, 0.3e-9, 0.2e-9, {})
    names = [name for name in ALGORITHMS if name != "two_level"]
    cases = [
        Measured("any", name, size, 1e6 * true.seconds(name, size, world_size), held_out)
        for size, held_out in sizes(64 << 20)
        for name in names
    ]
    random = np.random.default_rng(1)
    disturbed = [
        dataclasses.replace(case, time_us=4 * case.time_us)
        if not case.held_out and random.random() < 0.1
        else case
        for case in cases
    ]
    for measured, tolerance in ((cases, 1e-6), (disturbed, 0.02)):
        fit = tuning.fit(measured, world_size)
        errors = tuning.held_out_errors(measured, fit, world_size)
        assert len(errors) == len(names) * 8
        assert np.median(errors) < tolerance
        assert fit.alpha_short == pytest.approx(true.alpha_short, rel=10 * tolerance)
        assert fit.alpha_long == pytest.approx(true.alpha_long, rel=10 * tolerance)


def test_there_is_nothing_to_fit_on_one_rank():
    """No messages, no model."""
    assert tuning.fit([Measured("any", "ring", 8, 1.0)], 1) is None
    assert tuning.fit([], 4) is None
