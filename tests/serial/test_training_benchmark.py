"""What the comparison of training engines makes of rows, and of a peer that is not to be had."""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.engines.cases import CASES, Case, order
from benchmarks.engines.launches import PEERS, case_options, launches
from benchmarks.harness import Launch, Row
from benchmarks.peers.environment import Environment, try_out
from benchmarks.training import Setting, find_problems
from benchmarks.training_table import training_markdown
from lepton_mpi.data.order import epoch_order
from lepton_mpi.models.logistic import Logistic
from lepton_mpi.models.mlp import Mlp

_SETTING = Setting("logistic-30", 64, 10, (1, 2))


def _row(engine: str, ranks: int = 1, threads: int = 1, rate: float = 1000.0, **more) -> Row:
    setting = {"model": _SETTING.model, "rows_per_rank": _SETTING.rows_per_rank}
    row = {"engine": engine, "ranks": ranks, "threads": threads, "samples_per_second": rate}
    return {**setting, **row, "final_loss": 0.5, "loss_off": 0.0, **more}


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_cases_have_the_parameters_of_the_engine(case):
    """By name, shape and order, so that all engines begin with the same."""
    model = Logistic(*case.widths) if case.is_logistic else Mlp(case.widths)
    assert list(case.shapes.items()) == list(model.shapes.items())


def test_the_order_is_the_engine_s():
    """Engines without Numba have it from elsewhere."""
    for epoch in (1, 2):
        np.testing.assert_array_equal(order(1009, epoch), epoch_order(1009, 0, epoch))


@pytest.mark.parametrize("features", [1, 30, 33])
def test_rows_do_not_depend_on_how_many_there_are(features):
    """Also across the blocks that they are made in."""
    case = Case("any", (features, 7))
    x, y = case.rows(600)
    assert x.dtype == np.float32
    assert set(y) == set(range(7))
    for count in (1, 256, 257):
        few, classes = case.rows(count)
        np.testing.assert_array_equal(few, x[:count])
        np.testing.assert_array_equal(classes, y[:count])
    # Uniform noise of width 1 around the centre of the class, another one in each block.
    noise = x - np.array([x[y == number].mean(axis=0) for number in range(7)])[y]
    assert abs(np.abs(noise).mean() - 0.25) < 0.02
    assert abs(np.corrcoef(noise[:256].ravel(), noise[256:512].ravel())[0, 1]) < 0.2
    assert sorted(order(600, 1)) == list(range(600))


def test_every_engine_runs_on_its_ranks_and_threads():
    """Keras and scikit-learn in one process only."""
    case = case_options("logistic-30", 64, 10, 3)
    made = launches(case, (1, 2), PEERS.values())
    assert [launch.label for launch in made] == [
        "lepton_mpi auto n=1",
        *(f"{name} n=1 threads={threads}" for name in PEERS for threads in (1, 2)),
        "lepton_mpi auto n=2",
        "lepton_mpi mpi n=2",
        "torch n=2 threads=1",
    ]
    assert all(" ".join(case) in " ".join(launch.command) for launch in made)
    assert len(launches(case, (1, 2), [])) == 3


@pytest.mark.parametrize("loss_off", [0.0101, math.nan, math.inf])
def test_a_loss_that_is_off_is_a_problem(loss_off):
    """It is named, NaN included."""
    rows = [_row("lepton_mpi"), _row("keras", loss_off=loss_off)]
    (problem,) = find_problems([_SETTING], rows)
    assert "keras" in problem
    assert "logistic-30, 64 rows" in problem


def test_rows_without_a_problem():
    """A loss that torch is not there to compare with is none."""
    rows = [_row("lepton_mpi", loss_off=None), _row("torch", loss_off=0.0099)]
    assert list(find_problems([_SETTING], rows)) == []


def test_a_setting_without_this_engine_is_a_problem():
    """Also where others were measured."""
    other = Setting("logistic-30", 128, 10)
    (problem,) = find_problems([_SETTING, other], [_row("lepton_mpi"), _row("torch")])
    assert problem.startswith("logistic-30, 128 rows: lepton_mpi")


def test_the_table_has_a_line_for_each_number_of_ranks():
    """Threads side by side, a dash for what was not measured."""
    rows = [
        _row("lepton_mpi", rate=142123.0),
        _row("torch", threads=2, rate=97465.0),
        _row("torch", rate=75517.0),
        _row("sklearn", rate=987.6),
        _row("lepton_mpi", 2, rate=292137.0),
        _row("lepton_mpi-mpi-allreduce", 2, rate=257713.0),
        _row("torch-ddp", 2, rate=36838.0),
    ]
    titles, rule, *lines = training_markdown(rows)
    assert titles.count("|") == rule.count("|") == 8
    assert lines == [
        "| logistic-30, 64 | 1 | 142 000 | - | 75 500, 97 500 | - | 988 |",
        "|  | 2 | 292 000 | 258 000 | 36 800 | - | - |",
    ]


def test_a_peer_that_cannot_be_installed_is_left_out_with_one_line(tmp_path, capfd):
    """It says which, what was wanted and why; its program is not started."""
    environment = Environment(tmp_path / "environment", (str(tmp_path / "no-such-package"),))
    started = Launch("trial", ("touch", str(tmp_path / "started")))
    assert try_out("keras", environment, started) is None
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("keras left out: pip could not install ")
    assert "no-such-package" in last
    assert not (tmp_path / "started").exists()
    assert not Path(environment.folder, ".complete").exists()


def test_a_peer_whose_trial_fails_is_left_out_with_one_line(capfd):
    """With the last line that it printed."""
    assert try_out("torch", None, Launch("trial", ("sh", "-c", "echo no torch; exit 1"))) is None
    error = capfd.readouterr().err
    assert error == "torch left out: its trial launch ended with exit code 1: no torch\n"
