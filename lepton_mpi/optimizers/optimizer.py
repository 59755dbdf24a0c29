"""Optimizers: which kernel updates the parameters, with which numbers, and which state it keeps.

The state is one table per optimizer, of shape (states, n). Who holds it decides who updates: all ranks a copy
each, or one table per host, of which every rank updates slices (``strategies/``).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lepton_mpi.kernels.compiling import Kernel
from lepton_mpi.optimizers import rule_kernels as kernels
from lepton_mpi.vectors import Layout

ADAM_BETA_1, ADAM_BETA_2, ADAM_EPSILON = 0.9, 0.999, 1e-8
# Chen et al., section 5: b1 0.9 and b2 0.99.
LION_BETA_1, LION_BETA_2 = 0.9, 0.99
ADAGRAD_EPSILON = 1e-10
RMSPROP_RHO, RMSPROP_EPSILON = 0.99, 1e-8

# By name: the kernel, and the names of the vectors that it keeps.
KINDS: dict[str, tuple[Kernel, tuple[str, ...]]] = {
    "sgd": (kernels.sgd, ()),
    "momentum": (kernels.momentum, ("velocity",)),
    "nesterov": (kernels.nesterov, ("velocity",)),
    "adam": (kernels.adam, ("first_moment", "second_moment")),
    "adamw": (kernels.adamw, ("first_moment", "second_moment")),
    "lion": (kernels.lion, ("first_moment",)),
    "adagrad": (kernels.adagrad, ("squares",)),
    "rmsprop": (kernels.rmsprop, ("squares",)),
}
# Their weight decay acts on the parameters directly, times the learning rate.
_DECOUPLED = ("adamw", "lion")


@dataclass(frozen=True)
class Settings:
    """What a user sets; ``rate`` is the learning rate by step, counted from 1."""

    name: str
    rate: Callable[[int], float]
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip_value: float = math.inf


class Optimizer:
    """One way to update parameters of ``layout``.

    Attributes
    ----------
    state : shape (states, layout.size)
        Given by its owner, who may share it.
    rule, kernel : Kernel
        Of ``rule_kernels.py``, and ``update_regions_by(rule)``.
    bounds, decays, numbers
        Arguments of ``kernel``. Weight decay acts on arrays of two or more dimensions
        only: shrinking a bias or a scale towards 0 regularises nothing (He et al., CVPR 2019, section 3).
    """

    def __init__(
        self, settings: Settings, layout: Layout, dtype: np.dtype, state: np.ndarray
    ) -> None:
        self.settings, self.state = settings, state
        self.rule, self.state_names = kind_of(settings)
        self.kernel = kernels.update_regions_by(self.rule)
        decays = [
            settings.weight_decay if len(shape) >= 2 else 0.0 for shape in layout.shapes.values()
        ]
        starts, decay_of_regions = [0], []
        for (start, stop), decay in zip(layout.bounds, decays, strict=True):
            if start < stop and (not decay_of_regions or decay_of_regions[-1] != decay):
                decay_of_regions.append(decay)
                starts.append(stop)
            elif start < stop:
                starts[-1] = stop
        self.bounds = np.array(starts, np.int64)
        self._decays = np.array(decay_of_regions, dtype)
        self.decays = self._decays.copy()
        self.numbers = np.zeros(kernels.NUMBER_COUNT, dtype)
        for place, number in _fixed_numbers(settings).items():
            self.numbers[place] = number
        self.numbers[kernels.TINY] = np.finfo(dtype).tiny

    @property
    def named_state(self) -> dict[str, np.ndarray]:
        """Every vector of the state under its name."""
        return dict(zip(self.state_names, self.state, strict=True))

    def begin_step(self, step: int, scale: float) -> None:
        """Fix the numbers of step ``step``, counted from 1; ``scale`` makes a summed gradient the mean."""
        name, rate = self.settings.name, self.settings.rate(step)
        if name in _DECOUPLED:
            np.multiply(self._decays, rate, out=self.decays)
        if name in ("adam", "adamw"):
            # The corrections 1 - beta**step are folded into rate and epsilon.
            root = math.sqrt(1 - ADAM_BETA_2**step)
            rate *= root / (1 - ADAM_BETA_1**step)
            self.numbers[kernels.E] = ADAM_EPSILON * root
        self.numbers[kernels.SCALE] = scale
        self.numbers[kernels.RATE] = rate

    def update(self, parameters: np.ndarray, gradient: np.ndarray, start: int, stop: int) -> None:
        """Update elements [start, stop) of ``parameters`` from the same of ``gradient``."""
        self.kernel(
            parameters,
            gradient[start:stop],
            self.state,
            self.bounds,
            self.decays,
            self.numbers,
            start,
            stop,
            0,
        )


def kind_of(settings: Settings) -> tuple[Kernel, tuple[str, ...]]:
    """Kernel and names of the state; "sgd" with momentum is "momentum"."""
    name = "momentum" if settings.name == "sgd" and settings.momentum else settings.name
    return KINDS[name]


def _fixed_numbers(settings: Settings) -> dict[int, float]:
    """Those that are the same in every step."""
    name, numbers = settings.name, {kernels.CLIP: settings.clip_value}
    if name in ("momentum", "nesterov", "sgd"):
        return numbers | {kernels.A: settings.momentum}
    if name in ("adam", "adamw"):
        return numbers | _betas(ADAM_BETA_1, ADAM_BETA_2)
    if name == "lion":
        return numbers | _betas(LION_BETA_1, LION_BETA_2)
    if name == "adagrad":
        return numbers | {kernels.E: ADAGRAD_EPSILON}
    return numbers | _betas(0.0, RMSPROP_RHO) | {kernels.E: RMSPROP_EPSILON}


def _betas(beta_1: float, beta_2: float) -> dict[int, float]:
    return {
        kernels.A: beta_1,
        kernels.B: 1 - beta_1,
        kernels.C: beta_2,
        kernels.D: 1 - beta_2,
    }
