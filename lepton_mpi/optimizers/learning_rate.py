"""The learning rate by step: a warm-up, then constant, in steps or along a cosine. Pure."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Learning rate of every optimizer step.

    Attributes
    ----------
    peak : float
        Reached at the end of the warm-up.
    kind : {"constant", "step", "cosine"}
        "step": times ``factor`` every ``period`` steps. "cosine": half a cosine from ``peak`` to 0 at the
        last of ``total`` steps (Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts).
    warmup : int
        Steps over which the rate grows linearly (Goyal et al., "Accurate, large minibatch SGD", 2017).
    """

    peak: float
    kind: str = "constant"
    warmup: int = 0
    total: int = 1
    period: int = 1
    factor: float = 0.1

    def __call__(self, step: int) -> float:
        """Rate of step ``step``, counted from 1.

        >>> [Schedule(1.0, "cosine", warmup=2, total=6)(step) for step in (1, 2, 4, 6)]
        [0.5, 1.0, 0.5, 0.0]
        """
        if step <= self.warmup:
            return self.peak * step / self.warmup
        after = step - self.warmup
        if self.kind == "step":
            return self.peak * self.factor ** (after // self.period)
        if self.kind == "cosine":
            part = min(1.0, after / max(1, self.total - self.warmup))
            return self.peak * (1 + math.cos(math.pi * part)) / 2
        return self.peak
