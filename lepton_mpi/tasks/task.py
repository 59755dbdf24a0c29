"""``Task``: what a target is, how loss and counts add up over ranks, and the figures made of the sums."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from lepton_mpi.batch import Batch

Figures = dict[str, Any]
Better = Literal["higher", "lower"]


class Task(Protocol):
    """Sums are added over batches and ranks, figures are computed from the totals: never a mean of means.

    Made by ``make(data)`` with a ``lepton_mpi.data.dataset.DataSet``; the same on every rank.

    Attributes
    ----------
    name : str
        In the registry of tasks, and in checkpoints (attribute ``y_kind``).
    score : str
        The key of ``figures`` that compares runs, unless another is asked for.
    better : mapping of str to {"higher", "lower"}
        Every key of ``figures`` that can compare runs, ``score`` among them, and in which direction it is better.
    """

    name: str
    score: str
    better: Mapping[str, Better]

    def weight(self, batch: Batch) -> int:
        """What the batch counts in a mean: its rows, or the tokens of them that count."""

    def room_for(self, rows: int) -> np.ndarray:
        """Array that ``Model.evaluate`` fills with the predictions of ``rows`` rows, which stand first in it."""

    def new_sums(self) -> np.ndarray:
        """Zeros of any shape, int64 or float64, for ``add`` to add to; then they are added over ranks.

        Whole numbers must stay below 2**53: they travel as float64.
        """

    def add(self, sums: np.ndarray, batch: Batch, predicted: np.ndarray) -> None:
        """Count a batch; ``predicted`` has its rows only."""

    def figures(self, sums: np.ndarray, loss: float, weight: int) -> Figures:
        """Of totals over all ranks; ``loss`` is summed, ``weight``, at least 1, what it is divided by.

        ``loss`` and the score are among them. Values are what JSON can hold.
        """

    def training_figures(self, loss: float, correct: float, weight: int) -> Figures:
        """Of an epoch's training sums; ``correct`` is NaN where the model does not count."""

    def short(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """The few of them that stand in the line of an epoch."""

    def result(self, figures: Mapping[str, Any]) -> Figures:
        """Those of the test rows as ``fit`` returns them, and as the metrics file has them at the end."""

    def sentence(self, figures: Mapping[str, Any]) -> str:
        """Figures in one line, for people."""

    def table(self, figures: Mapping[str, Any]) -> list[str]:
        """Lines that say more, such as one for each class; for people."""

    def outputs_for(self, rows: int) -> np.ndarray:
        """Array that ``Model.predict`` fills for ``rows`` rows, shape (rows, outputs)."""

    def columns(self, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """What was predicted, in the user's words and units: arrays of shape (rows,) by the heading of a table."""


def listed(figures: Mapping[str, Any], names: Sequence[str]) -> str:
    """``accuracy 0.9000, loss 0.1000``: figures by name, in the order of the names."""
    return ", ".join(f"{name.replace('_', ' ')} {figures[name]:.4f}" for name in names)
