"""``--find-learning-rate`` of a run: the losses of training at those rates, the same bits on any ranks, and nothing left changed."""

import json

import numpy as np
import pytest

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config
from lepton_mpi.run import build, rate_search
from lepton_mpi.run.fit import train
from tests.parallel.together import check, equal_everywhere, refused, together


def _config(**options) -> Config:
    usual = {"recipe": "digits", "learning_rate": 0.003, "hidden": (32,), "global_batch": 64}
    return Config(
        **usual | {"progress": "none", "find_learning_rate": True, "find_steps": 40} | options
    )


def test_nothing_is_left_changed_and_the_file_has_what_is_returned(world, folder):
    """The first loss is that of the parameters that a run begins with; no other file is there."""
    out = folder / "rate.json"
    options = {
        "find_out": str(out),
        "checkpoint": str(folder / "runs"),
        "metrics": str(folder / "m"),
    }
    result = train(_config(**options), world)
    equal_everywhere(world, (result["losses"], result["learning_rate"], result["weights_digest"]))
    run = build.build(_config(epochs=1), world)
    begin = run.layout.digest(run.strategy.parameters)
    run.close()
    with together(world):
        assert [path.name for path in folder.iterdir()] == ["rate.json"]
        record = json.loads(out.read_text())
        assert record == {name: result[name] for name in record}
        assert result["weights_digest"] == begin
        assert 1e-4 < result["learning_rate"] < 0.3
        assert result["losses"][0] == pytest.approx(np.log(10), rel=0.2)
        assert result["rates"][: len(record["rates"])] == [
            rate_search.rate_of(k, 40) for k in range(len(record["rates"]))
        ]


def test_the_numbers_do_not_depend_on_the_ranks(world):
    """All losses, by their digest: the same on 1, 2, 3 and 4 ranks."""
    result = train(_config(), world)
    text = json.dumps([result["losses"], result["learning_rate"]])
    check(world, text == json.dumps(_alone(world)), "other numbers than on one rank")


def _alone(world) -> list:
    """The same on each rank by itself."""
    group = world.group([world.rank])
    try:
        result = train(_config(), group)
    finally:
        group.close()
    return [result["losses"], result["learning_rate"]]


def test_losses_are_those_of_training(world, monkeypatch):
    """At one rate all the time, the first epoch's losses add up to what an ordinary run says of it."""
    monkeypatch.setattr(rate_search, "rate_of", lambda number, steps: 0.01)
    found = train(_config(), world)
    usual = train(_config(find_learning_rate=False, learning_rate=0.01, epochs=1), world)
    rows = [64] * 17 + [1150 - 17 * 64]
    mean = np.dot(found["losses"][:18], rows) / 1150
    check(world, abs(mean - usual["history"][0]["loss"]) < 1e-12, f"{mean} {usual['history']}")


def test_a_file_that_is_there_is_asked_for_before_the_test(world, folder, monkeypatch):
    """One of another test is replaced; any other stays as it is, and nothing is trained."""
    if world.rank == 0:
        (folder / "mine.json").write_text('{"learning_rates": [1]}')
    world.comm.Barrier()
    with monkeypatch.context() as patched:
        patched.setattr(rate_search, "range_test", None)
        for name, said in (
            ("mine.json", "--find-out: expected a new file, or one that --find-out has written"),
            ("none/a.json", "--find-out: expected a file in a folder that exists"),
        ):
            with refused(world, ConfigurationError, said):
                train(_config(find_out=str(folder / name)), world)
    again = _config(find_out=str(folder / "own.json"))
    assert train(again, world) == train(again, world)
    with together(world):
        assert (folder / "mine.json").read_text() == '{"learning_rates": [1]}'
        assert len(list(folder.iterdir())) == 2
