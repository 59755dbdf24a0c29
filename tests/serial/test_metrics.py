"""Scores from a confusion matrix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_mpi.tasks import metrics


def _scores(true, predicted, classes: int) -> metrics.Scores:
    confusion = np.zeros((classes, classes), np.int64)
    metrics.count_confusion(confusion, np.asarray(true, np.int32), np.asarray(predicted, np.int32))
    return metrics.scores(confusion)


def test_scores_by_hand():
    """Three classes, the last never true and never predicted: its ratios are 0, not NaN."""
    scores = _scores([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0], 3)
    assert scores.accuracy == 4 / 6
    assert scores.precision.tolist() == [3 / 4, 1 / 2, 0]
    assert scores.recall.tolist() == [3 / 4, 1 / 2, 0]
    np.testing.assert_allclose(scores.f1, [3 / 4, 1 / 2, 0])
    assert scores.macro["recall"] == pytest.approx(1.25 / 3)


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
    """Accuracy, precision, recall and F1, per class and macro, with ``zero_division=0``."""
    reference = pytest.importorskip("sklearn.metrics")
    true, predicted = np.array(rows).T
    scores = _scores(true, predicted, 4)
    labels = range(4)
    assert scores.accuracy == pytest.approx(reference.accuracy_score(true, predicted))
    both = {"labels": labels, "zero_division": 0}
    per_class = reference.precision_recall_fscore_support(true, predicted, **both)
    np.testing.assert_allclose([scores.precision, scores.recall, scores.f1], per_class[:3])
    macro = reference.precision_recall_fscore_support(true, predicted, average="macro", **both)
    np.testing.assert_allclose(
        [scores.macro[name] for name in ("precision", "recall", "f1")], macro[:3]
    )


@given(rows, st.integers(1, 5))
def test_counts_of_parts_add_up(rows, parts):
    """Confusion matrices of the rows of several ranks sum to that of all rows."""
    true, predicted = np.array(rows).T
    confusion = np.zeros((parts, 4, 4), np.int64)
    for part in range(parts):
        metrics.count_confusion(confusion[part], true[part::parts], predicted[part::parts])
    whole = np.zeros((4, 4), np.int64)
    metrics.count_confusion(whole, true, predicted)
    np.testing.assert_array_equal(confusion.sum(axis=0), whole)


# -- targets -----------------------------------------------------------------------------------------


def _regression_scores(wanted, predicted, parts: int = 1) -> dict[str, float]:
    sums = np.zeros((parts, 4, wanted.shape[1]))
    for part in range(parts):
        rows = slice(part, None, parts)
        metrics.add_errors(sums[part], wanted[0], wanted[rows], predicted[rows])
    return metrics.regression_scores(sums.sum(axis=0), len(wanted))


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
