"""Tasks: from predictions to counts, from summed counts to figures."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_mpi.batch import Batch
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.tasks.classes import Classes, Scores, scores
from lepton_mpi.tasks.ranking import Ranked, twice_ordered
from lepton_mpi.tasks.registry import TASKS
from lepton_mpi.tasks.targets import Targets
from lepton_mpi.tasks.task import Task
from lepton_mpi.tasks.tokens import Tokens

F4 = np.dtype(np.float32)
NOTHING = np.zeros((0, 0), np.float32)


def _counted(task: Task, y: np.ndarray, predicted: np.ndarray, parts: int = 1) -> np.ndarray:
    """Sums of a task, added up over parts as over ranks."""
    sums = np.zeros((parts, *task.new_sums().shape), task.new_sums().dtype)
    for part in range(parts):
        task.add(sums[part], Batch(NOTHING, y[part::parts]), predicted[part::parts])
    return sums.sum(axis=0)


def _confusion(true, predicted, classes: int, parts: int = 1) -> np.ndarray:
    task = Classes(tuple(map(str, range(classes))), F4)
    return _counted(task, np.asarray(true, np.int32), np.asarray(predicted, np.int32), parts)


def _scores(true, predicted, classes: int) -> Scores:
    return scores(_confusion(true, predicted, classes))


def test_scores_by_hand():
    """Three classes, the last never true and never predicted: its ratios are 0, not NaN."""
    scores = _scores([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0], 3)
    assert scores.accuracy == 4 / 6
    assert scores.precision.tolist() == [3 / 4, 1 / 2, 0]
    assert scores.recall.tolist() == [3 / 4, 1 / 2, 0]
    np.testing.assert_allclose(scores.f1, [3 / 4, 1 / 2, 0])
    assert scores.macro["recall"] == pytest.approx(1.25 / 2)
    assert scores.occurs.tolist() == [True, True, False]


def test_classes_that_never_occur_or_are_never_predicted_count_as_zero():
    """A class that is predicted but never true has precision 0; one that is true but never predicted, recall 0."""
    scores = _scores([0, 0, 1], [0, 2, 0], 4)
    assert scores.precision.tolist() == [1 / 2, 0, 0, 0]
    assert scores.recall.tolist() == [1 / 2, 0, 0, 0]
    assert scores.f1.tolist() == [1 / 2, 0, 0, 0]


def test_no_rows_give_zeros_and_no_warning():
    """An empty confusion matrix has accuracy 0."""
    scores = _scores([], [], 2)
    assert scores.accuracy == 0 and not scores.f1.any()


rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(rows)
def test_scores_are_those_of_scikit_learn(rows):
    """Accuracy, precision, recall and F1, per class, and macro over those that occur, with ``zero_division=0``."""
    reference = pytest.importorskip("sklearn.metrics")
    true, predicted = np.array(rows).T
    scores = _scores(true, predicted, 4)
    labels = range(4)
    assert scores.accuracy == pytest.approx(reference.accuracy_score(true, predicted))
    both = {"labels": labels, "zero_division": 0}
    per_class = reference.precision_recall_fscore_support(true, predicted, **both)
    np.testing.assert_allclose([scores.precision, scores.recall, scores.f1], per_class[:3])
    macro = reference.precision_recall_fscore_support(
        true, predicted, average="macro", zero_division=0
    )
    np.testing.assert_allclose(
        [scores.macro[name] for name in ("precision", "recall", "f1")], macro[:3]
    )


@given(rows, st.integers(1, 5))
def test_counts_of_parts_add_up(rows, parts):
    """Confusion matrices of the rows of several ranks sum to that of all rows."""
    true, predicted = np.array(rows).T
    whole = np.zeros((4, 4), np.int64)
    for row, column in rows:
        whole[row, column] += 1
    np.testing.assert_array_equal(_confusion(true, predicted, 4, parts), whole)


def test_figures_of_classes():
    """Every key that ``fit`` and the metrics file have had; the score is among them."""
    task = Classes(("cat", "dog"), F4)
    figures = task.figures(_confusion([0, 0, 1, 1], [0, 1, 1, 1], 2), 6.0, 4)
    assert list(figures) == [
        "loss",
        "accuracy",
        "macro_precision",
        "macro_recall",
        "macro_f1",
        "macro_classes",
        "classes",
        "confusion",
    ]
    assert (figures["loss"], figures["accuracy"]) == (1.5, 0.75)
    assert figures["confusion"] == [[1, 1], [0, 2]]
    assert figures["classes"][0] == {
        "name": "cat",
        "precision": 1,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
    }
    assert task.short(figures) == {"loss": 1.5, "accuracy": 0.75}
    result = task.result(figures)
    assert (
        result["test_accuracy"] == 0.75
        and result["macro_recall"] == result["test_macro_recall"] == 0.75
    )
    assert task.sentence(figures) == (
        "accuracy 0.7500, macro precision 0.8333, macro recall 0.7500, macro f1 0.7333, loss 1.5000"
    )
    assert [line.split()[0] for line in task.table(figures)] == ["cat", "dog"]
    task = Classes(("none", "cat", "dog"), F4)
    figures = task.figures(_confusion([1, 1, 2, 2], [1, 2, 2, 2], 3), 6.0, 4)
    assert figures["macro_recall"] == 0.75 and figures["macro_classes"] == 2
    assert task.sentence(figures).endswith(", macro over the 2 of 3 classes that occur")


# -- the order of rows -------------------------------------------------------------------------------------

scored = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])), max_size=30
)


@given(scored, st.integers(1, 4))
def test_ordered_pairs_are_those_of_all_pairs(rows, parts):
    """Counted one by one, ties half; the same if the low ones come in parts, as from ranks."""
    low, high = (np.array([s for is_high, s in rows if is_high == kind]) for kind in (False, True))
    one_by_one = sum(2 * (a < b) + (a == b) for a in low for b in high)
    found = sum(twice_ordered(np.sort(low[part::parts]), high) for part in range(parts))
    assert found == one_by_one


@given(scored)
def test_auc_is_that_of_scikit_learn(rows):
    reference = pytest.importorskip("sklearn.metrics")
    y = np.array([is_high for is_high, _ in rows], np.int32)
    task = Classes(("no", "yes"), F4)
    outputs = np.array([(1 - s, s) for _, s in rows], np.float32).reshape(-1, 2)
    low, high = task.split_scores(Batch(NOTHING, y), outputs)
    if low.size and high.size:
        auc = twice_ordered(np.sort(low), high) / (2 * low.size * high.size)
        assert auc == pytest.approx(reference.roc_auc_score(y, outputs[:, 1]), abs=1e-14)


def test_auc_is_a_figure_of_two_classes():
    """In every line; where a class has no row it is none, and the lines do without."""
    task, of_three = Classes(("no", "yes"), F4), Classes(("a", "b", "c"), F4)
    assert isinstance(task, Ranked) and task.ranks_rows and task.better["auc"] == "higher"
    assert not of_three.ranks_rows and "auc" not in of_three.better
    figures = task.figures(_confusion([0, 1], [0, 1], 2), 1.0, 2)
    known, unknown = figures | task.ranking_figures(0.75), figures | task.ranking_figures(None)
    assert task.short(known)["auc"] == task.result(known)["test_auc"] == 0.75
    assert "accuracy 1.0000, auc 0.7500, macro" in task.sentence(known)
    assert "auc" not in task.short(unknown) and "auc" not in task.sentence(unknown)


def test_predicted_classes_have_their_names():
    task = Classes(("cat", "dog"), F4)
    outputs = task.outputs_for(2)
    assert outputs.shape == (2, 2) and outputs.dtype == F4
    outputs[:] = [[0.9, 0.1], [0.25, 0.75]]
    columns = task.columns(outputs)
    assert columns["class"].tolist() == ["cat", "dog"]
    assert columns["probability of dog"].tolist() == [np.float32(0.1), 0.75]


# -- targets -----------------------------------------------------------------------------------------


def _regression_scores(wanted, predicted, parts: int = 1) -> dict[str, float]:
    task = Targets(wanted[0])
    figures = task.figures(_counted(task, wanted, predicted, parts), 0.0, len(wanted))
    return {name: value for name, value in figures.items() if name != "loss"}


@pytest.mark.parametrize("parts", [1, 3, 50])
@pytest.mark.parametrize("centre", [0.0, 1e6])
def test_regression_scores_are_those_of_scikit_learn(parts, centre):
    """Several targets of different spread, also far from 0, in parts of any number; sums of parts add up."""
    reference = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    wanted = centre + generator.standard_normal((40, 3)) * [1, 10, 0.1]
    predicted = wanted + generator.standard_normal((40, 3)) * [0.1, 5, 1]
    scores = _regression_scores(wanted, predicted, parts)
    mse = reference.mean_squared_error(wanted, predicted)
    expected = {
        "mse": mse,
        "rmse": np.sqrt(mse),
        "mae": reference.mean_absolute_error(wanted, predicted),
        "r2": reference.r2_score(wanted, predicted),
    }
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, rel=1e-9), name


def test_a_target_that_never_changes():
    """Its r2 is 1 if it is predicted without error, else 0: neither NaN nor minus infinity."""
    wanted = np.full((5, 2), 0.1)
    predicted = wanted + np.array([0, 0.3])
    assert _regression_scores(wanted, predicted)["r2"] == 0.5


def test_float32_targets_are_summed_in_float64():
    """Of 10**6 rows no digit is lost."""
    wanted, predicted = np.zeros((10**6, 1), np.float32), np.full((10**6, 1), 0.1, np.float32)
    assert _regression_scores(wanted, predicted)["mae"] == pytest.approx(np.float32(0.1), rel=1e-12)


def test_figures_of_targets():
    task = Targets(np.array([1.0, 2.0], np.float32))
    figures = {"loss": 0.5, "mse": 4.0, "rmse": 2.0, "mae": 1.0, "r2": 0.25}
    assert task.short(figures) == {"loss": 0.5, "r2": 0.25}
    assert task.result(figures) == {f"test_{name}": value for name, value in figures.items()}
    assert task.sentence(figures) == "mse 4.0000, rmse 2.0000, mae 1.0000, r2 0.2500, loss 0.5000"
    outputs = task.outputs_for(3)
    assert outputs.shape == (3, 2) and outputs.dtype == F4
    assert list(task.columns(outputs)) == ["target 0", "target 1"]
    assert list(Targets(np.zeros(1)).columns(np.zeros((3, 1)))) == ["target"]


# -- tokens ------------------------------------------------------------------------------------------


def _tokens(byte_counts=(1, 2, 3, 1)) -> Tokens:
    counts = None if byte_counts is None else np.array(byte_counts)
    return Tokens(3, counts, ("a", "b", "c", "d"), F4)


_Y = np.array([[0, 1, 2], [-1, 3, -1], [-1, -1, -1]], np.int32)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_figures_of_tokens(parts):
    """Of the four tokens that count three are right, and they stand for 7 bytes of text."""
    task = _tokens()
    assert task.weight(Batch(NOTHING, _Y)) == 4
    predicted = np.array([[0, 1, 0], [0, 3, 0], [1, 1, 1]], np.int32)
    sums = _counted(task, _Y, predicted, parts)
    figures = task.figures(sums, 4 * math.log(8), 4)
    assert figures == {
        "loss": pytest.approx(math.log(8)),
        "perplexity": pytest.approx(8),
        "accuracy": 0.75,
        "bits_per_byte": pytest.approx(12 / 7),
    }
    assert task.sentence(figures) == (
        "loss 2.0794 nats per token, 1.7143 bits per byte, perplexity 8.0000, accuracy 0.7500"
    )
    assert task.result(figures).keys() == {f"test_{name}" for name in figures}
    assert task.short(figures).keys() == {"loss", "perplexity", "bits_per_byte"}


def test_bits_per_byte_need_bytes():
    """Where nobody says what a token stands for, there are none, and the line does not speak of them."""
    task = _tokens(None)
    figures = task.figures(_counted(task, _Y, np.maximum(_Y, 0)), 4.0, 4)
    assert figures["bits_per_byte"] is None
    assert task.short(figures).keys() == {"loss", "perplexity"}
    assert (
        task.sentence(figures) == "loss 1.0000 nats per token, perplexity 2.7183, accuracy 1.0000"
    )


def test_a_hopeless_loss_is_no_error():
    assert _tokens().training_figures(1e6, math.nan, 1) == {"loss": 1e6, "perplexity": math.inf}


def test_the_likeliest_next_token():
    task = _tokens()
    outputs = task.outputs_for(2)
    assert outputs.shape == (2, 4)
    outputs[:] = [[0.1, 0.2, 0.6, 0.1], [0.7, 0.1, 0.1, 0.1]]
    columns = task.columns(outputs)
    assert columns["token"].tolist() == ["c", "a"]
    np.testing.assert_array_equal(columns["probability"], np.float32([0.6, 0.7]))


# -- what all of them promise ------------------------------------------------------------------------

TASKS_AND_Y = {
    "classes": (Classes(("x", "y", "z", "w"), F4), np.array([0, 3, 1, 2, 2], np.int32)),
    "targets": (Targets(np.array([1.0, 2.0])), np.arange(10.0).reshape(5, 2) ** 2),
    "tokens": (_tokens(), np.array([[0, 1, 2], [3, -1, 0]], np.int32)),
}


@pytest.mark.parametrize("name", TASKS_AND_Y)
def test_what_every_task_promises(name):
    """A perfect prediction has the best score; keys exist; figures go through JSON; rows or tokens are the weight."""
    task, y = TASKS_AND_Y[name]
    batch = Batch(NOTHING, y)
    room = task.room_for(8)
    assert room.shape == (8, *y.shape[1:]) and task.name == name
    predicted = room[: len(y)]
    predicted[:] = np.maximum(y, 0)
    sums = task.new_sums()
    assert not sums.any()
    task.add(sums, batch, predicted)
    weight = task.weight(batch)
    assert weight == (5 if name == "tokens" else len(y))
    figures = task.figures(sums, 0.0, weight)
    assert json.loads(json.dumps(figures)) == figures
    assert task.score in task.better and task.better.keys() <= figures.keys()
    best = {"higher": 1.0, "lower": 0.0}
    for key, direction in task.better.items():
        if key != "perplexity":
            assert figures[key] == best[direction], key
    assert task.short(figures).keys() <= figures.keys()
    for line in (task.sentence(figures), *task.table(figures)):
        assert line and "\n" not in line
    training = task.training_figures(3.0, 2.0, 4)
    assert (training["loss"], training["accuracy"]) == (0.75, 0.5)
    assert "accuracy" not in task.training_figures(3.0, math.nan, 4)
    outputs = task.outputs_for(2)
    outputs[:] = 0
    assert all(values.shape == (2,) for values in task.columns(outputs).values())


def test_tasks_by_name():
    """A name that is none is an error that names the option and those that there are."""
    for name in TASKS.built_in:
        assert callable(TASKS.find(name))
    with pytest.raises(
        ConfigurationError, match=r"--task: expected classes, targets.*got 'clases'"
    ):
        TASKS.find("clases")
