"""Whole runs: a poor one says what to try, the same on every rank; a good one says nothing; a diverged one is an error."""

import json

import numpy as np
import pytest

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options import sources
from lepton_mpi.run.fit import train
from tests.parallel.together import equal_everywhere, refused, together
from tests.serial.data_files import write


def _trained(world, capfd, **options):
    chosen = sources.from_program(options)
    result = train(chosen.config, world, given=chosen.given)
    return result, capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["digits", "breast_cancer"])
def test_healthy_runs_get_no_advice(world, recipe, capfd):
    result, said = _trained(world, capfd, recipe=recipe)
    with together(world):
        assert result["advice"] == [] and "advice" not in said


def _rows(folder, world, make):
    if world.rank == 0:
        x, y = make(np.random.default_rng(0))
        write(folder / "a.h5", {"x": x, "y": y})
    world.comm.Barrier()
    return str(folder / "a.h5")


def _rare(random):
    """Features that say nothing of a rare class."""
    return random.normal(size=(600, 4)).astype("f4"), (np.arange(600) % 20 == 0).astype("i4")


def _prices(random):
    x = random.normal(size=(600, 4)).astype("f4")
    return x, (2e5 + 5e4 * x[:, :1]).astype("f4")


def _textures(random):
    """Stripes across or along, at any phase: no pixel alone tells them apart."""
    phase, rows = random.integers(0, 4, 300), np.arange(16)
    across = (rows[None, :] + phase[:, None]) // 2 % 2
    kinds = np.arange(300) % 2
    x = np.where(kinds[:, None, None] == 0, across[:, :, None], across[:, None, :])
    noisy = x * np.ones((16, 16)) + random.normal(size=(300, 16, 16)) * 2
    return noisy[..., None].astype("f4"), kinds.astype("i4")


@pytest.mark.parametrize(
    ("make", "options", "expected"),
    [
        (_rare, {"epochs": 3}, "--class-weights balanced"),
        (_prices, {"epochs": 3}, "--target-scale standard"),
        (_textures, {"epochs": 3}, "--model cnn"),
    ],
)
def test_a_poor_run_says_what_to_try(world, folder, make, options, expected, capfd):
    """On screen, in the result and in the metrics file."""
    data, metrics = _rows(folder, world, make), folder / "run.jsonl"
    result, said = _trained(world, capfd, data=data, metrics=str(metrics), **options)
    equal_everywhere(world, result["advice"])
    with together(world):
        assert any(expected in line for line in result["advice"]), result["advice"]
        if world.rank == 0:
            end = json.loads(metrics.read_text().splitlines()[-1])
            assert end["advice"] == result["advice"]
            lines = [line for line in said.splitlines() if line.startswith("advice    ")]
            assert len(lines) == len(result["advice"])


@pytest.mark.parametrize("epochs", [1, 20])
def test_a_run_that_diverges_is_an_error_as_not_a_number_is(world, folder, epochs):
    """It ended with exit code 0 and a loss of a million; no checkpoint is made of it."""
    options = {"recipe": "digits", "learning_rate": 10000.0, "progress": "none"}
    more = {"epochs": epochs, "checkpoint": str(folder / "runs")}
    chosen = sources.from_program(options | more)
    with refused(
        world,
        ConfigurationError,
        "where it began at 2.",
        "training has diverged; try a smaller --learning-rate than 10000",
    ):
        train(chosen.config, world, given=chosen.given)
    with together(world):
        assert epochs > 1 or not list((folder / "runs").glob("step-*"))


def test_a_rate_that_is_too_large_and_comes_back_is_none(world):
    """The first epoch's loss is far above; the others' fall."""
    chosen = sources.from_program(
        {"recipe": "digits", "learning_rate": 0.3, "progress": "none", "epochs": 6}
    )
    result = train(chosen.config, world, given=chosen.given)
    with together(world):
        assert result["history"][0]["loss"] > 10 and len(result["history"]) == 6
