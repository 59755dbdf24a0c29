"""``Hook``: what happens beside training at fixed points of a run, such as evaluation, checkpoints, progress, metrics."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from lepton_mpi.run.run import Run


class Hook(Protocol):
    """Called on every rank, in the order of ``Run.hooks``. Collective: a hook may use collectives, on all ranks alike.

    A hook reads the run and adds to ``run.figures``; it changes parameters only through ``run.strategy``.
    ``QuietHook`` has no-ops to inherit from.
    """

    def before_epoch(self, run: Run) -> None:
        """Epoch ``run.epoch`` begins."""

    def after_step(self, run: Run) -> None:
        """Step ``run.step`` of the run is made; parameters may still be on their way until ``run.strategy.finish()``."""

    def after_epoch(self, run: Run) -> None:
        """All steps of epoch ``run.epoch`` are made and finished; ``run.figures`` has those of the hooks before."""

    def at_end(self, run: Run) -> None:
        """Nothing is left to train."""


class QuietHook:
    """Does nothing at any point."""

    def before_epoch(self, run: Run) -> None:
        """Nothing."""

    def after_step(self, run: Run) -> None:
        """Nothing."""

    def after_epoch(self, run: Run) -> None:
        """Nothing."""

    def at_end(self, run: Run) -> None:
        """Nothing."""


def weak(run: Run) -> Run:
    """The run, for a hook that keeps it: it must not hold what holds it, or files and memory would stay until Python's collector comes by."""
    return cast("Run", weakref.proxy(run))
