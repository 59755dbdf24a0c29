"""``Optimizer``: a rule with its state and the numbers of a step, for the parameters of a layout.

The state is one table per optimizer, of shape (states, n). Who holds it decides who updates: all ranks a copy
each, or one table per host, of which every rank updates slices (``strategies/``).
"""

from collections.abc import Collection, Mapping

import numpy as np

from lepton_mpi.optimizers import rule_kernels as kernels
from lepton_mpi.optimizers.registry import rule_of
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.vectors import Layout


class Optimizer:
    """One way to update parameters of ``layout``.

    Parameters
    ----------
    settings : Settings
    layout : Layout
    dtype : float32 or float64
    state : shape (states, layout.size)
        Given by its owner, who may share it.
    averaged : mapping of str to float
        Parameters that are not trained: a step moves each by this share of the way to its mean over the step's rows.
    decayed : collection of str, or None
        Parameters that weight decay acts on; None: those of two or more dimensions. Shrinking a bias or a scale towards 0
        regularises nothing (He et al., CVPR 2019, section 3).
    frozen : collection of str
        Parameters that stay as they are, and whose state stays 0.

    Attributes
    ----------
    rule : Rule
    kernel : Kernel
        ``rule_kernels.update_regions_by(rule.kernel)``.
    bounds, decays, numbers
        Arguments of ``kernel``.
    """

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        dtype: np.dtype,
        state: np.ndarray,
        averaged: Mapping[str, float] | None = None,
        decayed: Collection[str] | None = None,
        frozen: Collection[str] = (),
    ) -> None:
        self.settings, self.state, self.rule = settings, state, rule_of(settings)
        self.kernel = kernels.update_regions_by(self.rule.kernel)
        decay = _decays(layout, settings.weight_decay, averaged or {}, decayed)
        decay |= dict.fromkeys(frozen, kernels.FROZEN)
        bounds, decays = _regions(layout, list(decay.values()))
        self.bounds, self._decays = np.array(bounds, np.int64), np.array(decays, dtype)
        self.decays, self._decaying = self._decays.copy(), self._decays > 0
        self.numbers = np.zeros(kernels.NUMBER_COUNT, dtype)
        self.numbers[kernels.CLIP] = settings.clip_value
        for place, number in self.rule.fixed.items():
            self.numbers[place] = number
        self.numbers[kernels.TINY] = np.finfo(dtype).tiny

    @property
    def named_state(self) -> dict[str, np.ndarray]:
        """Every vector of the state under its name."""
        return dict(zip(self.rule.state, self.state, strict=True))

    def begin_step(self, step: int, scale: float, mean_scale: float | None = None) -> None:
        """Fix the numbers of step ``step``, counted from 1.

        ``scale`` makes a summed gradient the mean, or less where its norm is clipped; ``mean_scale``, the same unless it is
        given, makes a sum the mean in any case.
        """
        numbers, rate = self.numbers, self.settings.rate(step)
        numbers[kernels.SCALE], numbers[kernels.RATE] = scale, rate
        numbers[kernels.MEAN] = scale if mean_scale is None else mean_scale
        if self.rule.decouples_decay:
            np.multiply(self._decays, rate, out=self.decays, where=self._decaying)
        if self.rule.of_step:
            for place, number in self.rule.of_step(step, rate).items():
                numbers[place] = number

    def update(self, parameters: np.ndarray, gradient: np.ndarray, start: int, stop: int) -> None:
        """Update elements [start, stop) of ``parameters`` from the same of ``gradient``."""
        self.kernel(
            *(parameters, gradient[start:stop], self.state),
            *(self.bounds, self.decays, self.numbers, start, stop, 0),
        )


def _decays(
    layout: Layout,
    weight_decay: float,
    averaged: Mapping[str, float],
    decayed: Collection[str] | None,
) -> dict[str, float]:
    """Of each parameter its weight decay, or minus the share by which it moves."""
    if decayed is None:
        decayed = [name for name, shape in layout.shapes.items() if len(shape) >= 2]
    return {
        name: -averaged[name] if name in averaged else weight_decay if name in decayed else 0.0
        for name in layout.shapes
    }


def _regions(layout: Layout, decay_of_each: list[float]) -> tuple[list[int], list[float]]:
    """Bounds of regions that are updated alike, one more than regions, and what ``_decays`` says of each."""
    bounds, decays = [0], []
    for decay, (start, stop) in zip(decay_of_each, layout.bounds, strict=True):
        if start == stop:
            continue
        if not decays or decays[-1] != decay:
            decays.append(decay)
            bounds.append(stop)
        else:
            bounds[-1] = stop
    return bounds, decays
