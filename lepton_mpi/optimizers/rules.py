"""The built-in optimizers: their kernels with their numbers. Each is called with ``Settings`` and returns a ``Rule``."""

import math

from lepton_mpi.optimizers import rule_kernels as kernels
from lepton_mpi.optimizers.rule import Rule
from lepton_mpi.optimizers.rule_options import (
    AdagradOptions,
    AdamOptions,
    LionOptions,
    RmspropOptions,
)
from lepton_mpi.optimizers.settings import Settings

_MOMENTS = "first_moment", "second_moment"


def sgd(settings: Settings) -> Rule:
    """Gradient descent; with ``settings.momentum`` Polyak's."""
    return momentum(settings) if settings.momentum else Rule(kernels.sgd)


def momentum(settings: Settings) -> Rule:
    """Polyak's momentum. The learning rate is inside of the velocity, as in Keras; torch has it outside."""
    return Rule(kernels.momentum, ("velocity",), {kernels.A: settings.momentum})


def nesterov(settings: Settings) -> Rule:
    """Nesterov's momentum, the learning rate inside of the velocity, as in Keras; torch has it outside."""
    return Rule(kernels.nesterov, ("velocity",), {kernels.A: settings.momentum})


def adam(settings: Settings) -> Rule:
    """Adam, weight decay a part of the gradient."""
    return _adam(settings, kernels.adam)


def adamw(settings: Settings) -> Rule:
    """Adam, weight decay apart from it."""
    return _adam(settings, kernels.adamw, decouples_decay=True)


def lion(settings: Settings) -> Rule:
    """Lion, weight decay apart from the gradient."""
    own = settings.own_options(LionOptions)
    fixed = _betas(own.beta_1, own.beta_2)
    return Rule(kernels.lion, ("first_moment",), fixed, decouples_decay=True)


def adagrad(settings: Settings) -> Rule:
    """Adagrad with a diagonal matrix."""
    own = settings.own_options(AdagradOptions)
    return Rule(kernels.adagrad, ("squares",), {kernels.E: own.epsilon})


def rmsprop(settings: Settings) -> Rule:
    """RMSprop, not centred, without momentum."""
    own = settings.own_options(RmspropOptions)
    return Rule(kernels.rmsprop, ("squares",), _betas(0.0, own.rho) | {kernels.E: own.epsilon})


def _adam(settings: Settings, kernel: kernels.Kernel, decouples_decay: bool = False) -> Rule:
    own = settings.own_options(AdamOptions)

    last = own.freeze_variance_after or math.inf
    if own.freeze_variance_after:
        kernel = {kernels.adam: kernels.adam_least, kernels.adamw: kernels.adamw_least}[kernel]

    def of_step(step: int, rate: float) -> dict[int, float]:
        """The corrections 1 - beta**step are folded into rate and epsilon; that of a frozen variance is its last step's."""
        root = math.sqrt(1 - own.beta_2 ** min(step, last))
        corrected = rate * (root / (1 - own.beta_1**step))
        is_frozen = step > last
        return {
            kernels.RATE: corrected,
            kernels.E: own.epsilon * root,
            kernels.C: 1.0 if is_frozen else own.beta_2,
            kernels.D: 0.0 if is_frozen else 1 - own.beta_2,
        }

    fixed = _betas(own.beta_1, own.beta_2) | {kernels.F: 1 - own.beta_2}
    return Rule(kernel, _MOMENTS, fixed, of_step, decouples_decay)


def _betas(beta_1: float, beta_2: float) -> dict[int, float]:
    return {
        kernels.A: beta_1,
        kernels.B: 1 - beta_1,
        kernels.C: beta_2,
        kernels.D: 1 - beta_2,
    }
