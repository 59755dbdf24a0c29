"""``--compress`` with ``--strategy sync`` on one host: nothing is compressed, but residuals of a run that was on several are left.

Their sum is added to the gradient of the first step.
"""

from lepton_mpi.collectives.choosing.tuning import Choice
from lepton_mpi.strategies.compression import Compressing
from lepton_mpi.strategies.shared_parameters import SharedParameters
from lepton_mpi.strategies.strategy import Setting


class UncompressedOnOneHost(Compressing, SharedParameters):
    """See the module, and ``SharedParameters``."""

    def __init__(self, setting: Setting, choice: Choice) -> None:
        super().__init__(setting, choice)
        self._use(None, setting)

    def step(self, step: int, weight: int) -> None:
        """See ``Strategy``."""
        if self._undelivered is not None:
            # On ``local_rank`` 0. There is one: the first rank has the first micro-batch.
            self.inputs[0] += self._undelivered
            self._undelivered = None
        super().step(step, weight)

    def __str__(self) -> str:
        return super().__str__() + self._codec_text()
