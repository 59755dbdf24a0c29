"""Parameters that stay as they are (``--freeze``), where workers average: a mean of equal numbers may round to another one."""

import numpy as np

from lepton_mpi.strategies.strategy import Setting


class FrozenValues:
    """Those of ``parameters``, shape (layout.size,), that ``setting.frozen`` names; perhaps none."""

    def __init__(self, setting: Setting, parameters: np.ndarray) -> None:
        self._parts = [parameters[start:stop] for start, stop in setting.frozen_spans]
        self._values: list[np.ndarray] = []

    def keep(self) -> None:
        """Before the first step: what they are."""
        self._values = [part.copy() for part in self._parts]

    def put_back(self) -> None:
        """After a mean: what they were."""
        for part, values in zip(self._parts, self._values, strict=True):
            part[:] = values
