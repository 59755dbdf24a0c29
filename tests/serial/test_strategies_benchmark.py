"""What ``benchmarks.strategies`` makes of its runs."""

import pytest

from benchmarks import strategies
from benchmarks.strategies import TASKS, WAYS, parse_command_line
from lepton_mpi.options import names, sources


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_one_that_train_takes(task, way):
    """The words of each run make a configuration, and each strategy and codec is among them."""
    chosen = sources.from_command_line([*TASKS[task].words, *WAYS[way], "--epochs", "2"])
    assert chosen.config.epochs == 2
    every = " ".join(word for words in WAYS.values() for word in words)
    assert all(name in every for name in names.STRATEGIES if name != "sync")


def test_scores_and_bytes_are_beside_those_of_sync():
    """Of the same task and network, and none where there is no such row."""
    sync = {"task": "a", "network": "n", "way": "sync", "score": 0.9, "bytes_per_step": 100.0}
    sync |= {"steps": 400, "warm_up_steps": 0}
    other = sync | {"way": "local, H = 4", "score": 0.88, "bytes_per_step": 25.0}
    found = strategies._beside_sync(other, [sync])
    expected = {"below_sync": pytest.approx(0.02), "fewer": 4.0, "fewer_of_run": 4.0}
    assert found == expected | {"warm_up_bytes": 100.0}
    found = strategies._beside_sync(other | {"warm_up_steps": 100}, [sync])
    # 100 steps of 100 bytes, and 300 of 25.
    assert found == expected | {
        "fewer_of_run": pytest.approx(40_000 / 17_500),
        "warm_up_bytes": 100.0,
    }
    found = strategies._beside_sync(other | {"task": "b"}, [sync])
    assert set(found.values()) == {None}


def test_bytes_of_start_and_evaluation_do_not_count(monkeypatch):
    """They are in the run of one epoch, which is taken off."""
    ends = {30: ({"steps": 540}, 6_000_000), 1: ({"steps": 18}, 780_000)}
    common = {"seconds": 1.0, "samples_per_second": 1.0, "test_accuracy": 0.9}
    split = {"time_split": {"waiting": 0.1, "communication": 0.2}}

    def run(task, way, hosts):
        end, sent = ends[task.epochs]
        return end | common | split, [], sent

    monkeypatch.setattr(strategies, "_run", run)
    row = strategies.train("digits", "sync", object(), "1gbit")
    assert row["bytes_per_step"] == pytest.approx((6_000_000 - 780_000) / 522)


def test_bytes_of_a_warm_up_do_not_count(monkeypatch):
    """They are in the run that is taken off: 150 steps end in the 9th epoch of 18."""
    asked = []

    def run(task, way, hosts):
        asked.append(task.epochs)
        end = {"steps": 18 * task.epochs, "seconds": 1.0, "samples_per_second": 1.0}
        end |= {"test_accuracy": 0.9, "time_split": {"waiting": 0.1, "communication": 0.2}}
        return end, [], 1000 * 150 + 10 * (end["steps"] - 150)

    monkeypatch.setattr(strategies, "_run", run)
    row = strategies.train("digits", "sync, sign", object(), "1gbit")
    assert asked == [30, 9]
    assert (row["bytes_per_step"], row["warm_up_steps"]) == (10, 150)


def test_a_score_is_the_mean_over_seeds(monkeypatch):
    """All else is of the first."""

    def run(task, way, hosts):
        seed = int(task.words[-1]) if "--seed" in task.words else 0
        end = {"steps": 540, "seconds": 1.0 + seed, "samples_per_second": 1.0}
        split = {"time_split": {"waiting": 0.1, "communication": 0.2}}
        return end | split | {"test_accuracy": 0.5 + seed / 8, "test_loss": 2.0 + seed}, [], 0

    monkeypatch.setattr(strategies, "_run", run)
    row = strategies.train("digits", "sync", None, "0", seeds=3)
    assert (row["score"], row["seconds"], row["scores"]) == (0.625, 1.0, [0.5, 0.625, 0.75])
    assert strategies.train("gpt 2x64", "sync", None, "0", seeds=2)["score"] == -2.5


def test_rates_are_those_that_are_asked_for():
    """One host is 0."""
    assert parse_command_line(["--rates", "0"]).rates == ["0"]
