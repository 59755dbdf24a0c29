"""``Sync``: what a model tells the strategy while it computes, so that sums travel behind the computation (overlap).

``Exchange``: what it tells the other ranks, if a layer needs sums over all micro-batches of a step.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Sync(Protocol):
    """Given to ``Model.loss_and_gradient`` with each micro-batch.

    A model that does not call it is right all the same: all parameters are there when it is called then, and all of its
    gradient is taken for filled when it returns.

    Attributes
    ----------
    awaits : bool
        Whether ``need`` must be called: parameters may still be on their way.
    follows : bool
        Whether anybody listens to ``done``.
    """

    awaits: bool
    follows: bool

    def need(self, name: str) -> None:
        """Return once parameter ``name`` is that after the last step. To be called before it is read, if ``awaits``."""

    def done(self, name: str, start: int = 0, stop: int | None = None) -> None:
        """Elements [start, stop) of the gradient of ``name``, counted as in the flat vector, are filled; each once.

        Best from the last layer to the first, and from the end of each: buckets are summed in that order. After the last
        ``done`` of a micro-batch no parameter may be read.
        """


class NoSync:
    """Nothing is awaited, and nobody listens."""

    awaits = follows = False

    def need(self, name: str) -> None:
        """Nothing to wait for."""

    def done(self, name: str, start: int = 0, stop: int | None = None) -> None:
        """Nobody to tell."""


NO_SYNC: Sync = NoSync()


class Untold:
    """``sync`` of which nobody is told what is done before ``loss_and_gradient`` has returned; parameters stay what they are until then."""

    follows = False

    def __init__(self, sync: Sync) -> None:
        self.awaits, self.need, self.done = sync.awaits, sync.need, NO_SYNC.done


class Exchange(Protocol):
    """Given to ``Model.loss_and_gradients`` with the micro-batches of a step that a rank computes.

    Attributes
    ----------
    count : int
        Micro-batches of a step, over all ranks.
    """

    count: int

    def sum(self, table: NDArray[np.float64]) -> None:
        """Put the sum over all ranks in the place of a small table, of which each has filled a part, and left the rest 0.

        Collective: every rank calls it as often in a step, with tables of the same shapes, whether it computes anything or not.
        """


class Alone:
    """One micro-batch is all there is."""

    count = 1

    def sum(self, table: NDArray[np.float64]) -> None:
        """Nobody adds to it."""


ALONE: Exchange = Alone()
