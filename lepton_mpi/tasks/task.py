"""``Task``: what a target is, how loss and counts add up over ranks, and the figures made of the sums."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np

from lepton_mpi.batch import Batch

Figures = dict[str, Any]


class Task(Protocol):
    """Sums are added over batches and ranks, figures are computed from the totals: never a mean of means.

    Attributes
    ----------
    name : str
        In the registry of tasks, and in checkpoints (attribute ``y_kind``).
    score : str
        The key of ``figures`` that compares runs.
    better : {"higher", "lower"}
        In which direction the score is better.
    """

    name: str
    score: str
    better: Literal["higher", "lower"]

    def weight(self, batch: Batch) -> int:
        """What the batch counts in a mean: its rows, or the tokens of them that count."""

    def room_for(self, rows: int) -> np.ndarray:
        """Array that ``Model.evaluate`` fills with the predictions of ``rows`` rows."""

    def new_sums(self) -> np.ndarray:
        """Zeros, float64 or int64 of any shape; to be added to by ``add``, then over ranks."""

    def add(self, sums: np.ndarray, batch: Batch, predicted: np.ndarray) -> None:
        """Count a batch."""

    def figures(self, sums: np.ndarray, loss: float, weight: int) -> Figures:
        """Of totals over all ranks; ``loss`` is summed, ``weight`` what it is divided by. The score is among them."""

    def training_figures(self, loss: float, correct: float, weight: int) -> Figures:
        """Of an epoch's training sums; ``correct`` is NaN where the model does not count."""

    def sentence(self, figures: Mapping[str, Any]) -> str:
        """Figures in one line, for people."""
