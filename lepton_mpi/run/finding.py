"""Where numbers that are not finite began: step, rank, micro-batch, rows and parameter."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from lepton_mpi.kernels.finite_kernels import not_finite

if TYPE_CHECKING:
    from lepton_mpi.batch import Batch
    from lepton_mpi.run.run import Run

_ROWS_SHOWN = 8


@dataclass(frozen=True)
class Finding:
    """A micro-batch with a loss or a gradient that is not finite.

    Attributes
    ----------
    step, epoch, number, rank : int
        ``number`` is that of the micro-batch in its step, from 0.
    loss : float
    rows : tuple of int
        Numbers of its rows in the training data set.
    of_parameters : bool
        Whether parameters were not finite before it was computed: then ``names`` are theirs.
    names : tuple of str
        Parameters whose gradient is not finite, in the order in which gradients are computed: from the last layer back.
    """

    step: int
    epoch: int
    number: int
    rank: int
    loss: float
    rows: tuple[int, ...]
    of_parameters: bool
    names: tuple[str, ...]

    def __str__(self) -> str:
        rows = ", ".join(map(str, self.rows[:_ROWS_SHOWN]))
        if len(self.rows) > _ROWS_SHOWN:
            rows += f", … ({len(self.rows)} rows)"
        text = (
            f"step {self.step}, rank {self.rank}, micro-batch {self.number}, training rows {rows}: "
        )
        if not isfinite(self.loss):
            text += f"loss {self.loss}"
        else:
            text += "a finite loss"
        if not self.names:
            return f"{text}, all gradients finite"
        others = f" and {len(self.names) - 1} more" if len(self.names) > 1 else ""
        if self.of_parameters:
            return f"{text}, after parameter {self.names[0]}{others} had become not finite"
        return f"{text}, gradient of {self.names[0]}{others} not finite"


def finding_of(run: Run, number: int, batch: Batch, vector: np.ndarray, loss: float) -> Finding:
    """What is wrong with micro-batch ``number`` of this rank, whose gradient is ``vector``."""
    rows = () if batch.rows is None else tuple(batch.rows.tolist())
    of_parameters = wrong_names(run, run.strategy.parameters)
    names = of_parameters or wrong_names(run, vector)
    where = run.step, run.epoch, number, run.world.rank
    return Finding(*where, float(loss), rows, bool(of_parameters), names)


def wrong_names(run: Run, vector: np.ndarray) -> tuple[str, ...]:
    """Parameters with elements in ``vector`` that are not finite, from the last layer back; those that are frozen may be anything."""
    views, frozen = run.layout.views(vector), run.model.frozen
    return tuple(
        name
        for name in reversed(views)
        if name not in frozen and not_finite(views[name].reshape(-1))
    )


def earliest(run: Run, found: Finding | None) -> Finding | None:
    """Of what all ranks have found. Collective."""
    all_found: list[Finding] = list(filter(None, run.world.comm.allgather(found)))
    return min(all_found, key=lambda each: (each.step, each.number), default=None)
