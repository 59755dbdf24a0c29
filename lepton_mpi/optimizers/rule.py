"""``Rule``: what an optimizer is made of. Adding one is its kernel, a function that returns its ``Rule``, and a line in ``registry.py``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lepton_mpi.kernels.compiling import Kernel


@dataclass(frozen=True)
class Rule:
    """An element-wise update of parameters.

    Attributes
    ----------
    kernel : Kernel
        Declared as ``@kernel(SIGNATURE)``, called as ``update(parameters, gradient, first, second, decay, numbers)``, see
        ``rule_kernels.py``; the gradient is summed, ``numbers[SCALE]`` makes it the mean.
    state : tuple of str
        Names of the vectors that are kept from step to step, at most two: ``first`` and ``second``, zeros at the beginning.
    fixed : mapping of int to float
        Numbers that are the same in every step, by their place in ``numbers``: A, B, C, D, E, F.
    of_step : callable (step, rate) -> mapping of int to float, optional
        Numbers that depend on the step, which counts from 1, RATE among them if it is not ``rate`` itself.
    decouples_decay : bool
        Whether weight decay acts on the parameters directly: ``decay`` then is times the learning rate.
    """

    kernel: Kernel
    state: tuple[str, ...] = ()
    fixed: Mapping[int, float] = field(default_factory=dict)
    of_step: Callable[[int, float], Mapping[int, float]] | None = None
    decouples_decay: bool = False

    def __post_init__(self) -> None:
        """A step's kernel passes two vectors of state."""
        assert len(self.state) <= 2, self.state
