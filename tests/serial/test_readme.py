"""What the README says of measurements is what the committed results say."""

import json
from pathlib import Path

import pytest

from benchmarks.harness import Row
from benchmarks.loader_table import loader_markdown
from benchmarks.readme_table import markdown, time_text
from benchmarks.training_table import training_markdown

_ROOT = Path(__file__).parents[2]


def test_the_table_is_that_of_the_results():
    """Every line of it, as ``bench allreduce --table`` prints it."""
    rows = json.loads((_ROOT / "benchmarks/results/allreduce.json").read_text("utf-8"))
    readme = (_ROOT / "README.md").read_text("utf-8")
    assert "\n".join(markdown(rows)) in readme
    assert all(row["wrong"] == 0 for row in rows)


def test_pictures_of_the_readme_exist():
    """And are committed beside it."""
    readme = (_ROOT / "README.md").read_text("utf-8")
    pictures = [word.split(")")[0] for word in readme.split("](")[1:] if ".svg)" in word]
    assert pictures
    for picture in pictures:
        assert (_ROOT / picture).is_file(), picture


@pytest.mark.parametrize(("us", "text"), [(0.6, "0.6 us"), (999.6, "1 ms"), (123456.0, "123 ms")])
def test_times_have_three_digits(us, text):
    """And the unit that fits."""
    assert time_text(us) == text


def test_the_fastest_peer_is_shown_tuned_or_not():
    """With its name, the faster form of a mode, and a dash for what was not measured."""
    common: Row = {"ranks": 2, "bytes": 4096, "mode": "array", "tuned": False, "algorithm": "x"}
    rows = [
        {**common, "library": "lepton_mpi", "mode": "shared", "time_us": 1.5},
        {**common, "library": "lepton_mpi", "mode": "shared", "time_us": 1.0},
        {**common, "library": "mpich", "time_us": 3.0},
        {**common, "library": "intel", "time_us": 2.0, "tuned": True},
    ]
    assert markdown(rows)[-1] == "| 4 KiB | 1 us, -, - | 2 us, Intel MPI tuned |"


def test_the_training_table_is_that_of_the_results():
    """Line for line, as ``bench training --table`` prints it, and losses agree with torch's."""
    rows = json.loads((_ROOT / "benchmarks/results/training.json").read_text("utf-8"))
    assert "\n".join(training_markdown(rows)) in (_ROOT / "README.md").read_text("utf-8")
    for row in rows:
        if row["engine"].startswith("lepton"):
            assert row["loss_off"] < (1e-4 if row["model"] == "mlp-10m" else 1e-5), row


def test_the_loader_s_table_is_that_of_the_results():
    """Line for line, as ``bench loader --table`` prints it, and no engine gave a wrong row."""
    rows = json.loads((_ROOT / "benchmarks/results/loader.json").read_text("utf-8"))
    assert "\n".join(loader_markdown(rows)) in (_ROOT / "README.md").read_text("utf-8")
    assert all(row["wrong"] == 0 for row in rows)
