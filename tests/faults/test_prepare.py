"""``prepare`` and ``inspect`` as commands: those of its page from raw file to trained model, and wrong input."""

import re
import shlex

import pytest

from tests.faults import jobs
from tests.serial.raw_files import write_csv, write_raw_files

PREPARE, INSPECT = ("-m", "lepton_mpi", "prepare"), ("-m", "lepton_mpi", "inspect")


def _commands() -> list[tuple[list[str], list[str]]]:
    """Words behind ``python`` of the page's pairs of commands."""
    readme = (jobs.ROOT / "lepton_mpi/prepare/README.md").read_text("utf-8")
    pattern = r"^\$ python (-m lepton_mpi prepare .*)\n\$ python (-m lepton_mpi\.train .*)$"
    pairs = re.findall(pattern, readme, re.MULTILINE)
    return [tuple(shlex.split(line, comments=True) for line in pair) for pair in pairs]


_LEAST_ACCURACY = {
    "optdigits.h5": 0.9,
    "mnist.h5": 0.9,
    "fashion.h5": 0.9,
    "pixels.h5": 0.9,
    "customers.h5": 0.9,
    "letters.h5": 0.5,
}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(_LEAST_ACCURACY)))
def test_from_raw_file_to_trained_model_in_two_commands(tmp_path, number):
    """As the page writes them; the models have learned."""
    commands = _commands()
    assert len(commands) == len(_LEAST_ACCURACY)
    write_raw_files(tmp_path)
    prepare, train = commands[number]
    words = [word for part in prepare for word in _expanded(part, tmp_path)]
    job = jobs.run(0, *words, cwd=tmp_path)
    assert job.code == 0, job.text
    (output,) = re.findall(r"^wrote +(\S+);", job.out, re.MULTILINE)
    job = jobs.run(0, *train, cwd=tmp_path)
    assert job.code == 0, job.text
    (accuracy,) = re.findall(r"^test +accuracy ([\d.]+)", job.out, re.MULTILINE)
    assert float(accuracy) > _LEAST_ACCURACY[output], job.text


def _expanded(word: str, folder) -> list[str]:
    """As a shell does it."""
    found = sorted(path.name for path in folder.glob(word)) if "*" in word else []
    return found or [word]


@pytest.mark.slow
def test_ranks_share_the_work_and_inspect_repeats_the_report(tmp_path):
    """Under a launcher; the report is printed once, and can be printed again."""
    write_csv(tmp_path / "t.csv", [[i, i % 2] for i in range(3000)], "n", "label")
    job = jobs.run(3, *PREPARE, "t.csv", "t.h5", "--block", "1K", cwd=tmp_path)
    assert job.code == 0, job.text
    printed = job.out.splitlines()
    assert sum(line.startswith("rows ") for line in printed) == 1
    again = jobs.run(0, *INSPECT, "t.h5", cwd=tmp_path)
    assert again.code == 0, again.text
    assert again.out.splitlines()[: len(printed) - 1] == printed[:-1]


@pytest.mark.parametrize(
    ("ranks", "words", "code", "expected"),
    [
        (3, ("t.csv", "t.h5", "--block", "64"), 3, "t.csv: line 42, column 'n': expected a number"),
        (0, ("t.csv", "t.h5", "--label", "nobody"), 2, "no column 'nobody'"),
        (0, ("t.csv", "t.h5", "--normalize", "none"), 2, "did you mean --normalise?"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(tmp_path, ranks, words, code, expected):
    """With the exit code of the README, and nothing is left behind."""
    rows = [[i if i != 40 else "forty", i % 2] for i in range(100)]
    write_csv(tmp_path / "t.csv", rows, "n", "label")
    job = jobs.run(ranks, *PREPARE, *words, cwd=tmp_path)
    assert job.code == code, job.text
    lines = job.lines("lepton_mpi")
    assert len(lines) == 1 and expected in lines[0], job.text
    assert "Traceback" not in job.text
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_inspect_of_a_file_that_is_none(tmp_path):
    """One line, exit code 3."""
    (tmp_path / "a.h5").write_text("no HDF5")
    job = jobs.run(0, *INSPECT, "a.h5", cwd=tmp_path)
    assert job.code == 3 and job.out == ""
    assert job.err.startswith("lepton_mpi inspect: a.h5: not a readable HDF5 file")


@pytest.mark.slow(but_every=2)
@pytest.mark.parametrize("ranks", [0, 2])
def test_from_raw_file_to_trained_model_in_one_command(tmp_path, ranks):
    """train --prepare; what it writes is what prepare writes, and is not replaced unasked."""
    write_csv(tmp_path / "t.csv", [[i % 7, i % 3, i % 2] for i in range(300)], "a", "b", "label")
    words = (*jobs.TRAIN, "--data", "t.csv", "--epochs", "1")
    job = jobs.run(ranks, *words, cwd=tmp_path)
    assert (
        job.code == 3
        and "python -m lepton_mpi prepare t.csv t.prepared.h5 --label NAME" in job.text
    )
    job = jobs.run(ranks, *words, "--prepare=--label label --seed 3", cwd=tmp_path)
    assert (
        job.code == 0 and job.out.count("\ntest ") == 1 and "t.prepared.h5: 240 train" in job.out
    ), job.text
    assert (
        jobs.run(0, *PREPARE, "t.csv", "o.h5", "--label", "label", "--seed", "3", cwd=tmp_path).code
        == 0
    )
    assert (tmp_path / "o.h5").read_bytes() == (tmp_path / "t.prepared.h5").read_bytes()
    job = jobs.run(ranks, *words, "--prepare=--label label", cwd=tmp_path)
    assert job.code == 2 and "t.prepared.h5 exists; --force replaces it" in job.text
    assert jobs.run(ranks, *words, "--prepare=--label label --force", cwd=tmp_path).code == 0
    job = jobs.run(ranks, *words, "--prepare=--lable label", cwd=tmp_path)
    assert job.code == 2 and "unknown option --lable, did you mean --label" in job.text
