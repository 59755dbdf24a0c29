"""What the executors of ``--strategy sync`` have in common: parameters and optimizer state, and what is said of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_mpi.collectives.choosing.tuning import Choice
from lepton_mpi.optimizers.optimizer import Optimizer


class Executor:
    """See ``Strategy``.

    Attributes
    ----------
    choice : Choice
        What sums gradients, and why.
    bucket_count : int
        How many parts the vector is summed in.
    """

    is_shared: bool
    parameters: np.ndarray
    optimizer: Optimizer
    choice: Choice
    bucket_count: int

    @property
    def reproducible(self) -> bool:
        """The other ways of summing round otherwise with another number of ranks."""
        return self.choice.algorithm in ("host", "two_level")

    def consensus(self) -> np.ndarray:
        """The parameters: all ranks have the same."""
        return self.parameters

    def state(self) -> dict[str, np.ndarray]:
        """The optimizer's vectors by name."""
        return self.optimizer.named_state

    def restore(self, parameters: np.ndarray | None, state: Mapping[str, np.ndarray]) -> None:
        """See ``Strategy``; to be called by ``local_rank`` 0 if ``is_shared``, else by every rank."""
        own = self.state()
        if own.keys() != state.keys():
            expected, came = (", ".join(sorted(names)) or "none" for names in (own, state))
            raise ValueError(f"expected optimizer state {expected}, got {came}")
        if parameters is not None:
            self.parameters[:] = parameters
        for name, vector in own.items():
            vector[:] = state[name]

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

    def figures(self) -> dict[str, float]:
        """None."""
        return {}

    def memory(self) -> dict[str, int]:
        """None that the host shares."""
        return {}

    def finish(self) -> None:
        """``step`` has left nothing to do."""

    def close(self) -> None:
        """Memory and communicators are the group's, which gives them back."""
