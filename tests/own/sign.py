"""An optimizer of one's own: steps of one size, in the direction of the momentum's sign (signSGD with momentum)."""

from lepton_mpi.kernels.compiling import kernel
from lepton_mpi.optimizers.rule import Rule
from lepton_mpi.optimizers.rule_kernels import RATE, SCALE, SIGNATURE, A


@kernel(SIGNATURE)
def update(parameters, gradient, first, second, decay, numbers):
    """``m = A m + (1 - A) g``, ``w = w - rate sign(m)``; ``first`` is m."""
    scale, rate, fading = numbers[SCALE], numbers[RATE], numbers[A]
    for i in range(parameters.size):
        g = gradient[i] * scale + decay * parameters[i]
        m = g + fading * (first[i] - g)
        first[i] = m
        parameters[i] -= rate if m > 0 else -rate


def sign(settings):
    """Named by ``--optimizer tests/own/sign.py:sign``."""
    return Rule(update, state=("mean_gradient",), fixed={A: settings.momentum})
