"""What a user sets of an optimizer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

_Options = TypeVar("_Options")


@dataclass(frozen=True)
class Settings:
    """What is the same for all optimizers.

    Attributes
    ----------
    name : str
        In ``registry.py``, or ``FILE.py:NAME``.
    rate : callable (step) -> float
        Learning rate of a step, which counts from 1.
    momentum, weight_decay, clip_value : float
    own : object, optional
        Options that this optimizer alone has; None for their defaults.
    """

    name: str
    rate: Callable[[int], float]
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip_value: float = math.inf
    own: Any = None

    def own_options(self, kind: type[_Options]) -> _Options:
        """``own``, or the defaults of that kind."""
        return kind() if self.own is None else self.own
