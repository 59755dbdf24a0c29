"""Each row has one class: accuracy, and precision, recall and F1 by class, from the confusion matrix; of two classes, AUC."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.data.dataset import DataSet
from lepton_mpi.tasks.task import Better, Figures, listed

# Of a larger confusion matrix the figures alone are kept: the metrics file would grow with its square.
CONFUSION_CLASSES_MAX = 100
_MEANS = ("macro_precision", "macro_recall", "macro_f1")


class Classes:
    """See ``Task``. Sums are the confusion matrix, int64: row true class, column predicted.

    Parameters
    ----------
    class_names : tuple of str
    dtype : np.dtype
        Of a model's probabilities.
    """

    name, score = "classes", "accuracy"
    better: Mapping[str, Better] = {
        "loss": "lower",
        **dict.fromkeys(("accuracy", *_MEANS), "higher"),
    }

    def __init__(self, class_names: tuple[str, ...], dtype: np.dtype) -> None:
        self._names, self._dtype = class_names, dtype
        self.ranks_rows = len(class_names) == 2
        if self.ranks_rows:
            self.better = {**self.better, "auc": "higher"}

    def weight(self, batch: Batch) -> int:
        """Rows."""
        return len(batch.y)

    def room_for(self, rows: int) -> np.ndarray:
        """The class of each row, int32 (rows,)."""
        return np.empty(rows, np.int32)

    def new_sums(self) -> np.ndarray:
        """int64 (classes, classes)."""
        return np.zeros((len(self._names), len(self._names)), np.int64)

    def add(self, sums: np.ndarray, batch: Batch, predicted: np.ndarray) -> None:
        """Count a batch."""
        np.add.at(sums, (batch.y, predicted), 1)

    def figures(self, sums: np.ndarray, loss: float, weight: int) -> Figures:
        """``loss``, ``accuracy``, ``macro_precision``, ``macro_recall``, ``macro_f1``, ``macro_classes``, ``classes`` and
        ``confusion``.

        The macro figures are means over the ``macro_classes`` classes that occur. ``classes`` is a list of dicts with name,
        precision, recall and f1, one for each class; ``confusion`` has the rows of the confusion matrix, true class by predicted,
        of at most 100 classes.
        """
        found = scores(sums)
        is_kept = len(self._names) <= CONFUSION_CLASSES_MAX
        confusion = {"confusion": sums.tolist()} if is_kept else {}
        per_class = zip(self._names, found.precision, found.recall, found.f1, strict=True)
        return {
            "loss": loss / weight,
            "accuracy": found.accuracy,
            **{f"macro_{name}": value for name, value in found.macro.items()},
            "macro_classes": int(found.occurs.sum()),
            "classes": [
                {"name": n, "precision": float(p), "recall": float(r), "f1": float(f)}
                for n, p, r, f in per_class
            ],
            **confusion,
        }

    def split_scores(self, batch: Batch, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of the second class: of rows of the first one, and of its own."""
        scores, is_second = outputs[:, 1], batch.y == 1
        return scores[~is_second], scores[is_second]

    def ranking_figures(self, ordered: float | None) -> Figures:
        """``auc``, the area under the ROC curve of two classes; None where one of them has no row."""
        return {"auc": ordered}

    def training_figures(self, loss: float, correct: float, weight: int) -> Figures:
        """``loss``, and ``accuracy`` if the model counts."""
        accuracy = {} if isnan(correct) else {"accuracy": correct / weight}
        return {"loss": loss / weight, **accuracy}

    def short(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """``loss`` and ``accuracy``, and ``auc`` if there is one."""
        auc = {} if figures.get("auc") is None else {"auc": figures["auc"]}
        return {name: figures[name] for name in ("loss", "accuracy")} | auc

    def result(self, figures: Mapping[str, Any]) -> Figures:
        """``test_loss``, ``test_accuracy``, … and ``macro_recall``."""
        of_test = {f"test_{name}": value for name, value in figures.items()}
        return of_test | {"macro_recall": figures["macro_recall"]}

    def sentence(self, figures: Mapping[str, Any]) -> str:
        """Figures in one line, without those of single classes."""
        over = figures.get("macro_classes", len(self._names))
        some = f", macro over the {over} of {len(self._names)} classes that occur"
        auc = () if figures.get("auc") is None else ("auc",)
        names = ("accuracy", *auc, *_MEANS, "loss")
        return listed(figures, names) + some * (over < len(self._names))

    def table(self, figures: Mapping[str, Any]) -> list[str]:
        """A line for each class."""
        return [
            f"{values['name']:<20} precision {values['precision']:.4f}  recall {values['recall']:.4f}  "
            f"f1 {values['f1']:.4f}"
            for values in figures["classes"]
        ]

    def outputs_for(self, rows: int) -> np.ndarray:
        """Probabilities of the classes, shape (rows, classes)."""
        return np.empty((rows, len(self._names)), self._dtype)

    def columns(self, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """The name of the likeliest class, the first of several that are, and the probability of each by its name."""
        likeliest = np.array(self._names)[outputs.argmax(axis=1)]
        return {"class": likeliest} | {
            f"probability of {name}": outputs[:, number] for number, name in enumerate(self._names)
        }


def make(data: DataSet) -> Classes:
    """The task of data whose rows have classes."""
    return Classes(data.class_names, data.dtype)


@dataclass(frozen=True)
class Scores:
    """What one confusion matrix says. A ratio whose denominator is 0 counts as 0.

    Attributes
    ----------
    accuracy : float
    precision, recall, f1 : float64, shape (classes,)
    occurs : bool, shape (classes,)
        Whether a row has the class, or is predicted to have it.
    """

    accuracy: float
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    occurs: np.ndarray

    @property
    def macro(self) -> dict[str, float]:
        """Unweighted means over the classes that occur, as scikit-learn takes them; 0 without a row."""
        means = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        there = self.occurs if self.occurs.any() else slice(None)
        return {name: float(values[there].mean()) for name, values in means.items()}


def scores(confusion: np.ndarray) -> Scores:
    """Accuracy and, per class, precision, recall and F1 of a confusion matrix summed over all ranks."""
    hits = np.diagonal(confusion).astype(np.float64)
    precision = _ratio(hits, confusion.sum(axis=0))
    recall = _ratio(hits, confusion.sum(axis=1))
    f1 = _ratio(2 * precision * recall, precision + recall)
    occurs = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
    return Scores(float(_ratio(hits.sum(), confusion.sum())), precision, recall, f1, occurs)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
