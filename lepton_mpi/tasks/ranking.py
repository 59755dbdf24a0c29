"""How rows are ordered by a score, a figure that no sum over rows says: the area under the ROC curve, of two classes.

It is the share of pairs of a row of the one class and a row of the other in which the second has the higher score, ties counting
one half: whole numbers until the last division, so that it is exact, and the same however rows are dealt to ranks.
Source: Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic curve", Radiology 143, 1982.
"""

from typing import Protocol, runtime_checkable

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.tasks.task import Figures


@runtime_checkable
class Ranked(Protocol):
    """A ``Task`` that has figures of how rows are ordered, beside those of its sums. For the models that predict.

    ``Task.better`` may name them.

    Attributes
    ----------
    ranks_rows : bool
        Whether it has them on these data; the others are then not called.
    """

    ranks_rows: bool

    def split_scores(self, batch: Batch, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores of the rows that should be low and of those that should be high; ``outputs`` as ``Model.predict`` fills it."""
        ...

    def ranking_figures(self, ordered: float | None) -> Figures:
        """To be added to the others; ``ordered`` is the share of pairs that are in order, None where there are no pairs."""
        ...


def twice_ordered(low: np.ndarray, high: np.ndarray) -> int:
    """2 for each pair of which ``high`` has the higher score, 1 for each of equal scores. Shapes (n,), ``low`` ascending, and (m,).

    >>> twice_ordered(np.array([0.1, 0.4]), np.array([0.4, 0.2]))
    5
    """
    below, not_above = (np.searchsorted(low, high, side) for side in ("left", "right"))
    return int(below.sum()) + int(not_above.sum())
