"""What ``--early-stop`` takes. Imports no NumPy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from lepton_mpi.options.kinds import Text


class EarlyStop(NamedTuple):
    """A run ends after ``epochs`` in a row of which none was better than the best before by more than ``delta``."""

    epochs: int
    delta: float = 0.0

    @staticmethod
    def of(text: str) -> EarlyStop:
        """Of ``EPOCHS`` or ``EPOCHS,MIN_DELTA``. Raises ValueError."""
        first, comma, second = text.partition(",")
        found = EarlyStop(int(first), float(second) if comma else 0.0)
        if found.epochs < 1 or not 0 <= found.delta < math.inf:
            raise ValueError
        return found


@dataclass(frozen=True)
class EarlyStopText(Text):
    """A text that ``EarlyStop.of`` takes; a program may give a number, or two."""

    word: str = "EPOCHS[,MIN_DELTA]"
    expected: str = "a number of epochs from 1, or one and a gain of at least 0, as in 5 or 5,0.001"

    def from_text(self, text: str) -> str:
        EarlyStop.of(text)
        return text

    def from_value(self, value: Any) -> str:
        if isinstance(value, (list, tuple)) and len(value) == 2:
            value = f"{value[0]},{value[1]}"
        if type(value) is int:
            value = str(value)
        return super().from_value(value)
