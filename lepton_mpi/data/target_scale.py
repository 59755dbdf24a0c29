"""How targets are scaled for training, and figures and predictions scaled back: steps of an optimizer are of one size, targets
of a regression may be prices or probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class TargetScale:
    """A target ``y`` is trained on as ``(y - shift) * scale``, where ``log`` is set as ``(log(1 + y) - shift) * scale``.

    Attributes
    ----------
    shift, scale : float64, shape (targets,)
    log : bool, shape (targets,)
    """

    shift: np.ndarray
    scale: np.ndarray
    log: np.ndarray

    @staticmethod
    def identity(count: int) -> "TargetScale":
        """Targets as they are."""
        return TargetScale(np.zeros(count), np.ones(count), np.zeros(count, bool))

    @property
    def is_identity(self) -> bool:
        return not self.shift.any() and bool((self.scale == 1).all()) and not self.log.any()

    def scaled(self, y: np.ndarray) -> np.ndarray:
        """Targets as they are trained on; float64 (rows, targets), not finite where ``log`` takes no such number."""
        out = y.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            out[:, self.log] = np.log1p(out[:, self.log])
        return (out - self.shift) * self.scale

    def unscaled(self, y: np.ndarray) -> np.ndarray:
        """Targets or predictions as people know them; float64 (rows, targets)."""
        out = y.astype(np.float64) / self.scale + self.shift
        with np.errstate(over="ignore"):
            out[:, self.log] = np.expm1(out[:, self.log])
        return out

    def equals(self, other: "TargetScale") -> bool:
        """Whether both do the same."""
        pairs = zip(
            (self.shift, self.scale, self.log), (other.shift, other.scale, other.log), strict=True
        )
        return all(np.array_equal(mine, theirs) for mine, theirs in pairs)

    def as_json(self) -> dict[str, list[Any]]:
        """What ``from_json`` takes, to the last bit."""
        return {name: getattr(self, name).tolist() for name in ("shift", "scale", "log")}

    @staticmethod
    def from_json(values: Mapping[str, Sequence[Any]]) -> "TargetScale":
        """Raises KeyError, TypeError or ValueError for what ``as_json`` has not made."""
        shift, scale = (np.array(values[name], np.float64) for name in ("shift", "scale"))
        log = np.array(values["log"], bool)
        one_shape = shift.ndim == 1 and shift.shape == scale.shape == log.shape
        if not one_shape or not (np.isfinite(shift) & np.isfinite(scale) & (scale != 0)).all():
            raise ValueError(f"expected a shift, a scale and a log for each target, got {values}")
        return TargetScale(shift, scale, log)
