"""What ``benchmarks.strategies`` makes of its runs."""

import pytest

from benchmarks import strategies
from benchmarks.harness import write_rows
from benchmarks.strategies import TASKS, WAYS, options_of, parse_command_line
from lepton_mpi.options import names, sources


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_one_that_train_takes(task, way):
    """The words of each run make a configuration, and each strategy and codec is among them."""
    chosen = sources.from_command_line(
        [*TASKS[task].words, *options_of(task, way), "--epochs", "2"]
    )
    assert chosen.config.epochs == 2
    every = " ".join(word for words in WAYS.values() for word in words)
    assert all(name in every for name in names.STRATEGIES if name != "sync")


_EPOCH = {"seconds": 1.0, "val_loss": 0.5, "val_accuracy": 0.9}


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
    # Of another network the score alone, whose bits are the same.
    found = strategies._beside_sync(other | {"network": "m"}, [sync])
    assert (found["below_sync"], found["fewer"]) == (pytest.approx(0.02), None)


def test_bytes_of_start_and_evaluation_do_not_count(monkeypatch):
    """They are in the run of one epoch, which is taken off."""
    ends = {30: ({"steps": 540}, 6_000_000), 1: ({"steps": 18}, 780_000)}
    common = {"seconds": 1.0, "samples_per_second": 1.0, "test_accuracy": 0.9}
    split = {"time_split": {"waiting": 0.1, "communication": 0.2}}

    def run(task, words, hosts):
        end, sent = ends[task.epochs]
        return end | common | split, [_EPOCH], sent

    monkeypatch.setattr(strategies, "_run", run)
    row = strategies.train("digits", "sync", object(), "1gbit")
    assert row["bytes_per_step"] == pytest.approx((6_000_000 - 780_000) / 522)


def test_bytes_of_a_warm_up_do_not_count(monkeypatch):
    """They are in the run that is taken off: 150 steps end in the 9th epoch of 18."""
    asked = []

    def run(task, words, hosts):
        asked.append(task.epochs)
        end = {"steps": 18 * task.epochs, "seconds": 1.0, "samples_per_second": 1.0}
        end |= {"test_accuracy": 0.9, "time_split": {"waiting": 0.1, "communication": 0.2}}
        return end, [_EPOCH], 1000 * 150 + 10 * (end["steps"] - 150)

    monkeypatch.setattr(strategies, "_run", run)
    row = strategies.train("digits", "sync, sign", object(), "1gbit")
    assert asked == [30, 9]
    assert (row["bytes_per_step"], row["warm_up_steps"]) == (10, 150)


def test_a_score_is_the_mean_over_seeds(monkeypatch):
    """All else is of the first."""

    def run(task, words, hosts):
        seed = int(task.words[-1]) if "--seed" in task.words else 0
        end = {"steps": 540, "seconds": 1.0 + seed, "samples_per_second": 1.0}
        split = {"time_split": {"waiting": 0.1, "communication": 0.2}}
        epoch = _EPOCH | {"val_accuracy": 0.25 + seed / 8}
        return end | split | {"test_accuracy": 0.5 + seed / 8, "test_loss": 2.0 + seed}, [epoch], 0

    monkeypatch.setattr(strategies, "_run", run)
    row = strategies.train("digits", "sync", None, "0", seeds=3)
    assert (row["score"], row["seconds"], row["scores"]) == (0.625, 1.0, [0.5, 0.625, 0.75])
    assert (row["validation"], row["validations"]) == (0.375, [0.25, 0.375, 0.5])
    assert strategies.train("gpt 2x64", "sync", None, "0", seeds=2)["score"] == -2.5


def test_rates_are_those_that_are_asked_for():
    """One host is 0."""
    assert parse_command_line(["--rates", "0"]).rates == ["0"]


def test_a_way_is_a_name_or_its_options():
    """Of options that are given twice the last counts, as for the warm-up's steps."""
    way = "--strategy local --sync-every 2"
    assert parse_command_line(["--ways", "--also", way]).also == [way]
    assert options_of("digits", way) == ("--strategy", "local", "--sync-every", "2")
    words = ("--compress-after", "150", "--compress", "sign", "--compress-after", "70")
    assert (strategies._warm_up_steps(words), strategies._warm_up_steps(())) == (70, 0)


def test_of_a_loss_what_is_below_is_a_part_of_it():
    """And of an accuracy the difference."""
    assert strategies._below(-2.2, -2.0) == pytest.approx(0.1)
    assert strategies._below(0.97, 0.98) == pytest.approx(0.01)


def test_rows_of_several_files_are_one_table(tmp_path, capsys):
    """Each is beside sync, wherever that is; of like rows the last counts."""
    sync = {"task": "digits", "network": "1gbit", "way": "sync", "score": 0.9, "validation": 0.8}
    sync |= {"bytes_per_step": 100.0, "steps": 400, "warm_up_steps": 0, "seconds": 1.0}
    sync |= {"samples_per_second": 1.0, "waiting": 0.5} | strategies.machine()
    other = sync | {"way": "delayed", "score": 0.8, "bytes_per_step": 50.0}
    write_rows(tmp_path / "a", [other, other | {"score": 0.85}])
    write_rows(tmp_path / "b", [sync])
    files = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert strategies.combine(files, ["0"]) == []
    rows = strategies.combine(files, ["0", "1gbit"])
    assert [row["way"] for row in rows] == ["sync", "delayed"]
    assert rows[1]["below_sync"] == pytest.approx(0.05) and rows[1]["fewer"] == 2
    assert "delayed" in capsys.readouterr().out
