"""What a job leaves for its user: metrics file, checkpoint, exit code; by command line and by ``fit``."""

import re

import pytest

from tests.faults import jobs


def _lines_of_ours(job: jobs.Ended) -> list[str]:
    assert "Traceback" not in job.text, job.text
    return job.lines("lepton_mpi")


@pytest.mark.slow
def test_the_metrics_file_tells_the_whole_run(tmp_path):
    """A start, a line for each epoch and an end, with the names that users and tools rely on."""
    path = tmp_path / "metrics.jsonl"
    job = jobs.run(2, *jobs.TRAIN, "--epochs", "2", "--metrics", str(path), cwd=tmp_path)
    assert job.code == 0, job.text
    start, *epochs, end = jobs.metrics(path)
    assert start["event"] == "start"
    assert start["configuration"]["epochs"] == 2
    assert start["rows"] == {"train": 1150, "validation": 288, "test": 359}
    assert [record["epoch"] for record in epochs] == [1, 2]
    figures = {"seconds", "samples_per_second", "loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(record["event"] == "epoch" and figures <= record.keys() for record in epochs)
    assert end["event"] == "end"
    promised = {
        "test_accuracy",
        "macro_recall",
        "samples_per_second",
        "weights_digest",
        "world_size",
    }
    assert promised <= end.keys()
    assert end["world_size"] == 2
    assert 0 < end["test_accuracy"] <= 1 and 0 < end["macro_recall"] <= 1


@pytest.mark.slow
def test_a_metrics_file_is_never_lost(tmp_path):
    """One that holds a run is refused in one line, added to if that is asked for, and an empty one is taken."""
    words = (*jobs.TRAIN, "--epochs", "1", "--metrics", "runs.jsonl")
    path = tmp_path / "runs.jsonl"
    path.touch()
    assert jobs.run(2, *words, cwd=tmp_path).code == 0
    before = path.read_bytes()
    refused = jobs.run(3, *words, cwd=tmp_path)
    assert refused.code == 2, refused.text
    (line,) = _lines_of_ours(refused)
    assert line.startswith("lepton_mpi: --metrics: expected a file that is new or empty, got runs")
    assert "--metrics-append" in line
    assert path.read_bytes() == before
    assert jobs.run(2, *words, "--metrics-append", cwd=tmp_path).code == 0
    assert path.read_bytes().startswith(before)
    assert [record["event"] for record in jobs.metrics(path)] == ["start", "epoch", "end"] * 2


@pytest.mark.slow
def test_a_job_that_is_submitted_again_adds_to_its_metrics(tmp_path):
    """Also where its first attempt ended before there was a checkpoint to go on from."""
    words = (*jobs.TRAIN, "--epochs", "1", "--metrics", "m", "--checkpoint", "runs", "--resume")
    (tmp_path / "m").write_text('{"event": "start"}\n')
    job = jobs.run(2, *words, "runs", cwd=tmp_path)
    assert job.code == 0, job.text
    job = jobs.run(3, *words, "runs", "--epochs", "2", cwd=tmp_path)
    assert job.code == 0, job.text
    assert [record["event"] for record in jobs.metrics(tmp_path / "m")] == [
        "start",
        *["start", "epoch", "end"] * 2,
    ]


@pytest.mark.slow
def test_the_recipe_that_was_taken_is_named(tmp_path):
    """In the head, and only where one was."""
    for words, recipe in (((), ["digits"]), (("--data", "digits"), [])):
        job = jobs.run(2, *jobs.TRAIN, "--epochs", "1", *words, cwd=tmp_path)
        assert job.code == 0, job.text
        assert re.findall(r"^recipe +(\w+)", job.out, re.MULTILINE) == recipe


def test_a_checkpoint_evaluates_to_the_figures_of_its_run(tmp_path):
    """``evaluate`` prints, on another number of ranks, what training printed at its end."""
    options = ("--epochs", "2", "--checkpoint", "runs")
    trained = jobs.run(3, *jobs.TRAIN, *options, cwd=tmp_path)
    assert trained.code == 0, trained.text
    (figures,) = re.findall(r"^test +(accuracy .*)$", trained.out, re.MULTILINE)
    newest = max((tmp_path / "runs").glob("*.h5"))
    assert str(newest.relative_to(tmp_path)) in trained.out
    evaluated = jobs.run(2, "-m", "lepton_mpi", "evaluate", str(newest), cwd=tmp_path)
    assert evaluated.code == 0, evaluated.text
    without_loss = figures.rpartition(", loss ")[0]
    assert f"test of digits.h5: {without_loss}" in evaluated.out
    assert evaluated.out.count("test of") == 1


@pytest.mark.slow
def test_a_folder_of_checkpoints_is_evaluated_by_its_newest(tmp_path):
    """The newest that is whole, which is said; so is what was skipped."""
    options = ("--epochs", "2", "--checkpoint", "runs")
    trained = jobs.run(2, *jobs.TRAIN, *options, cwd=tmp_path)
    (figures,) = re.findall(r"^test +(accuracy .*)$", trained.out, re.MULTILINE)
    older, newer = sorted((tmp_path / "runs").glob("*.h5"))
    evaluated = jobs.run(2, "-m", "lepton_mpi", "evaluate", "runs", cwd=tmp_path)
    assert evaluated.code == 0, evaluated.text
    assert f"checkpoint runs/{newer.name}, the newest that is whole" in evaluated.out
    assert figures.rpartition(", loss ")[0] in evaluated.out
    newer.write_bytes(newer.read_bytes()[:-1])
    evaluated = jobs.run(3, "-m", "lepton_mpi", "evaluate", "runs", cwd=tmp_path)
    assert evaluated.code == 0, evaluated.text
    assert f"skipped runs/{newer.name}: damaged" in evaluated.out
    assert f"checkpoint runs/{older.name}, the newest that is whole" in evaluated.out


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.h5", "none.h5: no such checkpoint: expected a file or a folder of them"),
        ("empty", "empty: expected a checkpoint that is whole, got none: no file step-….h5"),
        ("rows.csv", "rows.csv: expected a checkpoint of lepton_mpi, got another file"),
        ("rows.csv/x", "no such checkpoint"),
        ("x" * 300, "no such checkpoint"),
    ],
    ids=["nothing", "an empty folder", "another file", "inside a file", "a long name"],
)
def test_what_is_no_checkpoint_is_one_line(tmp_path, name, words):
    """It is named with what was expected, and the exit code is that of bad data."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.csv").write_text("1,2\n")
    job = jobs.run(2, "-m", "lepton_mpi", "evaluate", name, cwd=tmp_path)
    assert job.code == 3, job.text
    (line,) = _lines_of_ours(job)
    assert words in line


@pytest.mark.slow(but_every=3)
@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("fit(epochs=0)", ["--epochs", "at least 1", "got 0"]),
        ("fit(epoch=3)", ["epoch", "did you mean epochs?"]),
        ("fit(data='none.h5')", ["none.h5", "no such file"]),
    ],
    ids=["value", "name", "data"],
)
def test_fit_ends_as_the_command_line_does(tmp_path, call, words):
    """Wrong options and data: one line by one rank, and the exit code of the README."""
    (tmp_path / "own.py").write_text(f"from lepton_mpi import fit\n\n{call}\n")
    job = jobs.run(3, "own.py", cwd=tmp_path)
    assert job.code == (3 if "data" in call else 2), job.text
    (line,) = _lines_of_ours(job)
    for word in words:
        assert word in line


@pytest.mark.slow
def test_fit_can_be_called_again(tmp_path):
    """Two runs in one process give the same weights, and the process ends well."""
    (tmp_path / "own.py").write_text(
        "from lepton_mpi import fit\n\n"
        "digests = {fit(epochs=1, progress='none')['weights_digest'] for _ in range(2)}\n"
        "print('different digests:', len(digests))\n"
    )
    job = jobs.run(2, "own.py", cwd=tmp_path)
    assert job.code == 0, job.text
    assert job.out.count("different digests: 1") == 2, job.text


def test_a_full_disk_ends_in_one_line(tmp_path):
    """The metrics file cannot be written any more: the machine lacks something, and the line says where."""
    job = jobs.run(2, *jobs.TRAIN, "--epochs", "1", "--metrics", "/dev/full", cwd=tmp_path)
    assert job.code == 4, job.text
    (line,) = _lines_of_ours(job)
    assert "/dev/full" in line and "No space left" in line


def test_names_with_control_characters_are_escaped(tmp_path):
    """In the lines of a run as in its errors."""
    words = ("--recipe", "digits", "--epochs", "1", "--checkpoint", "ru\nns")
    job = jobs.run(2, *jobs.TRAIN, *words, cwd=tmp_path)
    assert job.code == 0 and job.lines("checkpoint") == [r"checkpoint ru\nns/step-00000018.h5"]
    job = jobs.run(2, *jobs.TRAIN, "--data", "no\nwhere.h5", cwd=tmp_path)
    assert job.code == 3 and job.lines("lepton_mpi: ")[0].startswith(
        r"lepton_mpi: no\nwhere.h5: no such file"
    )
