"""``--compress`` on one host: nothing is compressed, but a run that goes on from several hosts has residuals left.

They are gradients that no update has seen. Their sum is added to the gradient of the first step.
"""

from collections.abc import Mapping

import numpy as np

from lepton_mpi.collectives.compressing.compression import is_of_codec, undelivered
from lepton_mpi.strategies.shared_parameters import SharedParameters


class UncompressedOnOneHost(SharedParameters):
    """See the module, and ``SharedParameters``."""

    compresses = True
    # On ``local_rank`` 0, which restores, until the first step.
    _undelivered: np.ndarray | None = None

    def step(self, step: int, weight: int) -> None:
        """See ``Strategy``."""
        if self._undelivered is not None:
            # There is one: the first rank has the first micro-batch.
            self.inputs[0] += self._undelivered
            self._undelivered = None
        super().step(step, weight)

    def state(self) -> dict[str, np.ndarray]:
        """With what is not delivered yet."""
        return super().state() | self._left

    @property
    def _left(self) -> dict[str, np.ndarray]:
        return {} if self._undelivered is None else {"residual.0": self._undelivered}

    def restore(self, parameters: np.ndarray | None, state: Mapping[str, np.ndarray]) -> None:
        """See ``Strategy``."""
        residuals = {name: vector for name, vector in state.items() if is_of_codec(name)}
        if residuals:
            self._undelivered = undelivered(residuals, self.parameters.size, self.parameters.dtype)
        of_optimizer = {name: vector for name, vector in state.items() if name not in residuals}
        super().restore(parameters, of_optimizer | self._left)

    def __str__(self) -> str:
        return f"{super().__str__()}; one host: nothing is compressed"
