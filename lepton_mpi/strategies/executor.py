"""What the executors of ``--strategy sync`` have in common: which allreduce, why, and in how many parts."""

from typing import Any

from lepton_mpi.collectives.choosing.tuning import Choice
from lepton_mpi.optimizers.optimizer import Optimizer
from lepton_mpi.strategies.strategy import Copy, SkipScope, StrategyBase


class Executor(StrategyBase):
    """See ``Strategy``.

    Attributes
    ----------
    choice : Choice
        What sums gradients, and why.
    bucket_count : int
        How many parts the vector is summed in.
    reproducible : bool
        The other ways of summing round otherwise with another number of ranks.
    """

    is_in_step = freezes = True
    skips: SkipScope = "all"
    bucket_count: int
    optimizer: Optimizer

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.reproducible = choice.algorithm in ("host", "two_level")

    def copies(self) -> list[Copy]:
        """See ``Strategy``: all ranks make the same step."""
        self.finish()
        return self.copies_at_end()

    def facts(self) -> dict[str, Any]:
        """Which allreduce, why, and in how many buckets."""
        return {
            "allreduce": self.choice.algorithm,
            "allreduce_reason": self.choice.reason,
            "buckets": self.bucket_count,
        }

    def __str__(self) -> str:
        many = "s" * (self.bucket_count > 1)
        return f"sync, allreduce {self.choice.algorithm} in {self.bucket_count} bucket{many} ({self.choice.reason})"
