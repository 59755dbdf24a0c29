"""The learning rate by step: a warm-up, then constant, in steps, along a cosine, or lower when a score no longer improves."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Learning rate of every optimizer step: W steps of warm-up, then those of torch's schedulers.

        step        1 … W           W + 1, W + 2, …, T;  t = 0 in step W + 1
        constant    peak s / W      peak
        step        peak s / W      peak factor^floor(t / period)                  torch: StepLR
        cosine      peak s / W      peak (1 + cos(pi t / (T - W))) / 2             torch: CosineAnnealingLR(T - W)

    The warm-up is ``LinearLR(start_factor=1/W, total_iters=W - 1)``, and ``SequentialLR`` goes on behind it. No step has rate 0: the
    warm-up begins at 1/W, and a cosine would come to 0 in step T + 1.

    Attributes
    ----------
    peak : float
        Reached in the last step of the warm-up.
    kind : {"constant", "step", "cosine"}
        The cosine is that of Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts.
    warmup : int
        W, steps over which the rate grows linearly (Goyal et al., "Accurate, large minibatch SGD", 2017).
    total : int
        T, steps of the whole run.
    period, factor
        Of "step".
    counts_from_1 : bool
        t = 1 in step W + 1: the count of earlier versions, whose runs go on with it. It drops a step early, and the last
        step of a cosine has rate 0.
    """

    peak: float
    kind: str = "constant"
    warmup: int = 0
    total: int = 1
    period: int = 1
    factor: float = 0.1
    counts_from_1: bool = False

    def __call__(self, step: int) -> float:
        """Rate of step ``step``, counted from 1.

        >>> [round(Schedule(1.0, "cosine", warmup=2, total=6)(step), 3) for step in range(1, 7)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
        >>> [round(Schedule(1.0, "step", period=3)(step), 3) for step in range(1, 8)]
        [1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.01]
        """
        if step <= self.warmup:
            return self.peak * step / self.warmup
        after = step - self.warmup - (not self.counts_from_1)
        if self.kind == "step":
            return self.peak * self.factor ** (after // self.period)
        if self.kind == "cosine":
            part = min(1.0, after / max(1, self.total - self.warmup))
            return self.peak * (1 + math.cos(math.pi * part)) / 2
        return self.peak


@dataclass(eq=False)
class ReducedRate:
    """A rate that somebody lowers while training goes on, as torch's ReduceLROnPlateau does at the end of an epoch.

    Attributes
    ----------
    schedule : Schedule
    part, cut : float
        What the schedule's rate is multiplied by, for want of a better score and after numbers that were not finite; the same on all ranks.
    """

    schedule: Schedule
    part: float = 1.0
    cut: float = 1.0

    def __call__(self, step: int) -> float:
        """Rate of step ``step``, counted from 1."""
        return self.schedule(step) * self.part * self.cut
