"""The update rules: element-wise Numba kernels on slices of the flat vectors.

Every kernel has the same arguments: parameters, gradient and two vectors of state, all of shape (n,), of which
unused ones are empty; the weight decay; and a vector of numbers, by the names below. The gradient is a sum
over rows, SCALE makes it the mean (clipped by its norm, if that is asked for; MEAN is never clipped), and CLIP bounds each element of the mean.
State that fades is 0 once it is smaller than TINY, the smallest normal number: below that it would never come
to 0, since rounding stops the decay, and the update of all that no gradient reaches would be slow for ever.

Kernels loop over ``range(array.size)`` of contiguous slices, and numbers are taken out of their vector before
the loop. A fifth vector in it, a loop over part of a longer array, or Python's check for a division by 0
keeps LLVM from vectorising (measured: Adam 0.4 ns per parameter against 2 to 5). Literals would turn float32
to float64. Each has a NumPy twin in ``tests/reference.py``.
"""

import math
from functools import cache

from lepton_mpi.kernels.compiling import Kernel, inlined, kernel

# Numbers of a step. What those from A on are is told by each kernel.
SCALE, CLIP, RATE, A, B, C, D, E, TINY, MEAN, F, NUMBER_COUNT = range(12)

# In place of a weight decay: the share of an average is never more than 1.
FROZEN = -2.0

# Of every rule: parameters, gradient, first, second, decay, numbers.
SIGNATURE = "void(V, V, V, V, F, V)"


@inlined
def _mean(summed, scale, clip):
    """The mean gradient, clipped; NaN stays NaN."""
    g = summed * scale
    g = -clip if g < -clip else g
    return clip if g > clip else g


@inlined
def _faded(value, tiny):
    """``value``, or 0 if it is subnormal; NaN stays NaN."""
    return tiny - tiny if abs(value) < tiny else value


@inlined
def _mean_square(before, square, beta, rest, least, tiny):
    """``beta before + rest square``, at least ``least square``."""
    v = beta * before + rest * square
    least_v = least * square
    return _faded(least_v if v < least_v else v, tiny)


@kernel(SIGNATURE)
def sgd(parameters, gradient, first, second, decay, numbers):
    """``w = w - rate (g + decay w)``."""
    scale, clip, rate = numbers[SCALE], numbers[CLIP], numbers[RATE]
    for i in range(parameters.size):
        g = _mean(gradient[i], scale, clip) + decay * parameters[i]
        parameters[i] -= rate * g


@kernel(SIGNATURE)
def momentum(parameters, gradient, first, second, decay, numbers):
    """``v = A v - rate (g + decay w)``, ``w = w + v``; ``first`` is v.

    Source: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    """
    scale, clip, rate, mu = numbers[SCALE], numbers[CLIP], numbers[RATE], numbers[A]
    tiny = numbers[TINY]
    for i in range(parameters.size):
        g = _mean(gradient[i], scale, clip) + decay * parameters[i]
        v = _faded(mu * first[i] - rate * g, tiny)
        first[i] = v
        parameters[i] += v


@kernel(SIGNATURE)
def nesterov(parameters, gradient, first, second, decay, numbers):
    """``v = A v - rate (g + decay w)``, ``w = w + A v - rate (g + decay w)``; ``first`` is v.

    Source: Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep
    learning", ICML 2013, with the parameters stored one half-step ahead, where the gradient is taken.
    """
    scale, clip, rate, mu = numbers[SCALE], numbers[CLIP], numbers[RATE], numbers[A]
    tiny = numbers[TINY]
    for i in range(parameters.size):
        g = rate * (_mean(gradient[i], scale, clip) + decay * parameters[i])
        v = _faded(mu * first[i] - g, tiny)
        first[i] = v
        parameters[i] += mu * v - g


def _adam(has_least: bool) -> Kernel:
    """Without and with a least v, whose comparison an update of cached float32 would notice."""

    @kernel(SIGNATURE)
    def adam(parameters, gradient, first, second, decay, numbers):
        """``m = b1 m + (1-b1) g``, ``v = b2 v + (1-b2) g g``, ``w = w - rate m / (sqrt(v) + epsilon)``, g with decay w.

        ``first`` is m, ``second`` v; A is b1, B 1 - b1, C b2, D 1 - b2, E epsilon. The bias corrections are in rate
        and epsilon. The least v is F g g, F = 1 - b2: so it is in any case, but where C is 1 and D 0, a frozen variance.
        Sources: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, end of section 2; frozen: Tang et al.,
        "1-bit Adam", ICML 2021, to which the least v is added here.
        """
        scale, clip, rate, epsilon = numbers[SCALE], numbers[CLIP], numbers[RATE], numbers[E]
        beta_1, rest_1, beta_2, rest_2 = numbers[A], numbers[B], numbers[C], numbers[D]
        least, tiny = numbers[F], numbers[TINY]
        for i in range(parameters.size):
            g = _mean(gradient[i], scale, clip) + decay * parameters[i]
            m = _faded(beta_1 * first[i] + rest_1 * g, tiny)
            if has_least:
                v = _mean_square(second[i], g * g, beta_2, rest_2, least, tiny)
            else:
                v = _faded(beta_2 * second[i] + rest_2 * (g * g), tiny)
            first[i] = m
            second[i] = v
            parameters[i] -= rate * m / (math.sqrt(v) + epsilon)

    return adam


def _adamw(has_least: bool) -> Kernel:
    @kernel(SIGNATURE)
    def adamw(parameters, gradient, first, second, decay, numbers):
        """Adam, and the decay apart from it: ``w = w - decay w - rate m / (sqrt(v) + epsilon)``.

        ``decay`` is weight decay times learning rate; the rest is as in ``adam``.
        Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.
        """
        scale, clip, rate, epsilon = numbers[SCALE], numbers[CLIP], numbers[RATE], numbers[E]
        beta_1, rest_1, beta_2, rest_2 = numbers[A], numbers[B], numbers[C], numbers[D]
        least, tiny = numbers[F], numbers[TINY]
        for i in range(parameters.size):
            g = _mean(gradient[i], scale, clip)
            m = _faded(beta_1 * first[i] + rest_1 * g, tiny)
            if has_least:
                v = _mean_square(second[i], g * g, beta_2, rest_2, least, tiny)
            else:
                v = _faded(beta_2 * second[i] + rest_2 * (g * g), tiny)
            first[i] = m
            second[i] = v
            w = parameters[i] - decay * parameters[i]
            parameters[i] = w - rate * m / (math.sqrt(v) + epsilon)

    return adamw


adam, adam_least = _adam(False), _adam(True)
adamw, adamw_least = _adamw(False), _adamw(True)


@kernel(SIGNATURE)
def lion(parameters, gradient, first, second, decay, numbers):
    """``w = w - decay w - rate sign(b1 m + (1-b1) g)``, then ``m = b2 m + (1-b2) g``; ``first`` is m.

    A is b1, B 1 - b1, C b2, D 1 - b2; ``decay`` is weight decay times learning rate.
    Source: Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023, program 1.
    """
    scale, clip, rate = numbers[SCALE], numbers[CLIP], numbers[RATE]
    beta_1, rest_1, beta_2, rest_2 = numbers[A], numbers[B], numbers[C], numbers[D]
    tiny = numbers[TINY]
    zero = scale - scale
    for i in range(parameters.size):
        g = _mean(gradient[i], scale, clip)
        direction = beta_1 * first[i] + rest_1 * g
        # What is left is 0, or not a number and to be seen.
        step = rate if direction > zero else (-rate if direction < zero else direction)
        first[i] = _faded(beta_2 * first[i] + rest_2 * g, tiny)
        parameters[i] = parameters[i] - decay * parameters[i] - step


@kernel(SIGNATURE)
def adagrad(parameters, gradient, first, second, decay, numbers):
    """``s = s + g g``, ``w = w - rate g / (sqrt(s) + epsilon)``, g with decay w; ``first`` is s, E epsilon.

    Source: Duchi, Hazan and Singer, "Adaptive subgradient methods", JMLR 12, 2011, with a diagonal matrix.
    """
    scale, clip, rate, epsilon = numbers[SCALE], numbers[CLIP], numbers[RATE], numbers[E]
    for i in range(parameters.size):
        g = _mean(gradient[i], scale, clip) + decay * parameters[i]
        s = first[i] + g * g
        first[i] = s
        parameters[i] -= rate * g / (math.sqrt(s) + epsilon)


@kernel(SIGNATURE)
def rmsprop(parameters, gradient, first, second, decay, numbers):
    """``s = rho s + (1-rho) g g``, ``w = w - rate g / (sqrt(s) + epsilon)``, g with decay w; ``first`` is s.

    C is rho, D 1 - rho, E epsilon.
    Source: Tieleman and Hinton, "Lecture 6.5: rmsprop", Neural networks for machine learning, 2012.
    """
    scale, clip, rate, epsilon = numbers[SCALE], numbers[CLIP], numbers[RATE], numbers[E]
    rho, rest, tiny = numbers[C], numbers[D], numbers[TINY]
    for i in range(parameters.size):
        g = _mean(gradient[i], scale, clip) + decay * parameters[i]
        s = _faded(rho * first[i] + rest * (g * g), tiny)
        first[i] = s
        parameters[i] -= rate * g / (math.sqrt(s) + epsilon)


@kernel("void(V, V, F, V)")
def average(parameters, summed, share, numbers):
    """``w = w + share (mean - w)``: a running average of what the rows of a step have on average; MEAN makes a sum the mean."""
    scale = numbers[MEAN]
    for i in range(parameters.size):
        parameters[i] += share * (summed[i] * scale - parameters[i])


@cache
def update_regions_by(rule: Kernel) -> Kernel:
    """A kernel that updates regions with a weight decay each by one of the rules.

    All rules in one kernel would all be compiled, and take 3 s more in ``strategies/step_kernels.py``.
    """

    @kernel("void(V, V, M, i8[::1], V, V, i8, i8, i8)")
    def update_regions(parameters, gradient, state, bounds, decays, numbers, start, stop, origin):
        """Update elements [start, stop) of the parameters from as many of ``gradient``.

        parameters : those from element ``origin`` on; state : (states, n); region r, elements [bounds[r], bounds[r + 1]), has weight decay ``decays[r]``,
        or where that is negative is no parameter but an ``average``, of which it is minus the share, or ``FROZEN``: nothing changes.
        """
        none = parameters[:0]
        zero = numbers[SCALE] - numbers[SCALE]
        region = 0
        while start < stop:
            while bounds[region + 1] <= start:
                region += 1
            end = min(stop, bounds[region + 1])
            first = state[0][start:end] if state.shape[0] > 0 else none
            second = state[1][start:end] if state.shape[0] > 1 else none
            mean = gradient[: end - start]
            some = parameters[start - origin : end - origin]
            if decays[region] < FROZEN + 1:
                pass
            elif decays[region] < zero:
                average(some, mean, -decays[region], numbers)
            else:
                rule(some, mean, first, second, decays[region], numbers)
            gradient = gradient[end - start :]
            start = end

    return update_regions
