"""A trace of a run: every step and phase of every rank, in the time that the run's own figures have."""

import json

import pytest

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config
from lepton_mpi.run.fit import train
from lepton_mpi.world import clock_offsets
from tests.parallel.together import refused, together
from tests.serial.test_trace import check_format


@pytest.mark.parametrize("strategy", ["sync", "local", "bounded", "elastic"])
def test_the_last_steps_of_all_ranks(world, folder, strategy):
    """Steps 41 to 54 of 54; what the phases of the whole run add up to is what the run says, where the trace has all of it."""
    path = folder / "t.json"
    options = {"strategy": strategy, "epochs": 3, "global_batch": 64, "progress": "none"}
    train(Config(trace=str(path), trace_steps=14, **options), world)
    with together(world):
        trace = json.loads(path.read_text())
        check_format(trace)
        slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
        for tid in range(1, world.size + 1):
            own = [each for each in slices if each["tid"] == tid]
            steps = {each["args"]["step"] for each in own if each["cat"] == "step"}
            assert steps == set(range(41, 55)), steps
            names = {each["name"] for each in own if each["cat"] == "phase"}
            assert {"compute", "communication", "input", "evaluation"} <= names
    metrics = folder / "m.jsonl"
    config = Config(trace=str(path), trace_steps=1000, metrics=str(metrics), **options)
    train(config, world)
    with together(world):
        end = json.loads(metrics.read_text().splitlines()[-1])
        trace = json.loads(path.read_text())
        for account in end["ranks"]:
            for name in ("compute", "input", "evaluation"):
                own = [
                    event["dur"]
                    for event in trace["traceEvents"]
                    if event["ph"] == "X" and event["tid"] == account["rank"] + 1
                    if event["name"] == name
                ]
                assert sum(own) / 1e6 == pytest.approx(account["seconds"][name], rel=0.02, abs=2e-3)


def test_a_file_that_is_no_trace_is_refused(world, folder):
    path = folder / "t.json"
    if world.rank == 0:
        path.write_text("mine")
    with refused(world, ConfigurationError, "--trace: expected a new file"):
        train(Config(trace=str(path), progress="none"), world)


def test_clocks_of_a_host_are_one(world):
    """And of hosts that are pretended, or emulated, as well: the difference is within its error."""
    found = clock_offsets.measure(world)
    with together(world):
        assert len(found) == world.host_count
        assert all(abs(offset.seconds) <= offset.error_seconds for offset in found)
