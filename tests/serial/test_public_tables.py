"""What ``benchmarks/public_tables.py`` does around its commands: nothing is answered before it is asked, peers get the same rows."""

import numpy as np
import pytest

from benchmarks import public_peers, public_tables
from benchmarks.public_sets import SETS
from tests.serial.raw_files import prepare, write_csv


def test_peers_have_the_rows_of_the_file(tmp_path):
    """Those of validation too; numbers with mean 0 and deviation 1, categories as they are."""
    pytest.importorskip("sklearn")
    rows = [[7.0 * i, ("red", "green", "blue")[i % 3], "ab"[i >= 30]] for i in range(60)]
    write_csv(tmp_path / "t.csv", rows, "number", "colour", "label")
    prepare(tmp_path / "t.csv", tmp_path / "a.h5", "--label", "label")
    found = public_peers.read(tmp_path / "a.h5")
    assert (len(found.x), len(found.x_test), found.row_count, found.outputs) == (54, 6, 60, 2)
    colours, number = found.x[:, 1:], found.x[:, 0]
    assert abs(number.mean()) < 1e-12 and abs(number.std() - 1) < 1e-12
    assert set(np.unique(found.x_test[:, 1:])) == set(np.unique(colours)) == {0, 1}
    step = 7 / np.array([row[0] for row in rows]).std()
    assert abs(np.diff(np.sort(number)).min() - step) < 0.1 * step
    assert public_peers.scores(found, 0, boosts=False)["linear"] == 1


def test_answers_are_given_only_when_asked(tmp_path, monkeypatch):
    """One after the other, in the order in which ``prepare`` asks; and none for what is another problem."""
    said = iter(["say --task classification or --task regression", "--missing drop, mean", ""])
    commands: list[tuple[str, ...]] = []

    def run(folder, module, *words):
        commands.append(words)
        if message := next(said):
            raise public_tables.Failed(message)
        return ""

    monkeypatch.setattr(public_tables, "_run", run)
    (chosen,) = (each for each in SETS if each.name == "body-mass")
    answered = public_tables.prepare(chosen, tmp_path, "t.csv", "out.h5", [], [])
    first = ("prepare", "t.csv", "out.h5", "--label", "body_mass_g")
    task, missing = ("--task", "regression"), ("--missing", "median")
    assert answered == [*task, *missing]
    assert commands == [first, first + task, first + task + missing]
    said = iter(["t.csv: line 3: expected 4 cells, got 5"])
    with pytest.raises(public_tables.Failed, match="4 cells"):
        public_tables.prepare(chosen, tmp_path, "t.csv", "out.h5", [], [])


def test_a_run_without_figures_is_no_score():
    """Nor is an error of one of the commands."""
    with pytest.raises(public_tables.Failed, match="no figures"):
        public_tables.score_of("test      none: the data have no test rows")
    assert (
        public_tables.score_of("test      accuracy 0.9805, macro precision 1.0, loss 1") == 0.9805
    )
