"""Numba kernels of a gated recurrent layer: what goes from step to step. NumPy twins: ``tests/reference_layers.py``.

Matrices are by time: row ``step * rows + i`` is row i of the batch in a step, so that a step is a matrix in one piece, and the rows of
all steps are the rows of one product. What does not go from step to step, ``x @ weight`` and the gradients of weights, is such
a product over the whole time, by the kernels of the dense layer. A loop has at most four arrays, so that it is vectorised.
"""

from lepton_mpi.kernels.compiling import inner, kernel
from lepton_mpi.kernels.product_kernels import product
from lepton_mpi.layers.activation_kernels import sigmoid, tanh


@kernel("void(i8, i8, b1, i8[::1], i8[::1])")
def order_by_time(rows, length, is_reversed, there, back):
    """Where rows by time are in (rows, length) and back: ``there[step * rows + i] = i * length + position`` and its inverse.

    Step s is position s, or if ``is_reversed`` the one so far from the end. Shapes int, int, bool, (rows * length,) twice.
    """
    for step in range(length):
        position = length - 1 - step if is_reversed else step
        for i in range(rows):
            there[step * rows + i] = i * length + position
            back[i * length + position] = step * rows + i


@inner
def _step(bias, product_row, gates, candidate, before, after):
    """One row of one step: see ``recur``; ``product_row`` is ``before @ weight``, and is changed."""
    k = before.size
    for j in range(3 * k):
        product_row[j] += bias[j]
    both, of_state = gates[: 2 * k], product_row[: 2 * k]
    for j in range(2 * k):
        both[j], _ = sigmoid(both[j] + of_state[j])
    reset, update, new, of_state = gates[:k], gates[k : 2 * k], gates[2 * k :], product_row[2 * k :]
    for j in range(k):
        candidate[j] = of_state[j]
        new[j], _ = tanh(new[j] + reset[j] * of_state[j])
    one = after.dtype.type(1)
    for j in range(k):
        after[j] = (one - update[j]) * new[j] + update[j] * before[j]


@kernel("void(i8[::1], i8[::1], M, V, M, M, M, M, M)")
def recur(numbers, there, weight, bias, gates, candidates, states, products, out):
    """Every step: ``r, z, n`` in place of ``gates``, and the state after it, ``(1 - z) * n + z * h``; see ``gru.py``.

    Parameters
    ----------
    numbers : int64, shape (at least rows,), filled here with 0, 1, …
    there : as ``order_by_time`` gives it
    weight, bias : weight_hh (k, 3 k), bias_hh (3 k,)
    gates : shape (steps * rows, 3 k)
        With ``x @ weight_ih + bias_ih`` in it.
    candidates : shape (steps * rows, k), filled with ``h @ weight_hn + bias_hn``
    states : shape ((steps + 1) * rows, k), filled with the states before each step and after the last, the first of them 0
    products : scratch, shape (rows, 3 k)
    out : the states after each step, shape (rows * steps, k), or the last, shape (rows, k)
    """
    rows = products.shape[0]
    states[:rows] = 0
    for i in range(rows):
        numbers[i] = i
    for first in range(0, gates.shape[0], max(rows, 1)):
        product(states[first : first + rows], numbers[:rows], weight, products)
        for i in range(rows):
            p = first + i
            _step(bias, products[i], gates[p], candidates[p], states[p], states[p + rows])
    steps = states[rows:]
    last = gates.shape[0] - rows
    for i in range(out.shape[0]):
        if out.shape[0] == gates.shape[0]:
            out[there[i]] = steps[i]
        else:
            out[i] = steps[last + i]


@inner
def _step_gradient(gates, candidate, before, slope, of_state):
    """One row of one step: ``slope``, by the state after it, becomes the part of it that goes to the state before by ``z * h``."""
    k = before.size
    reset, update, new = gates[:k], gates[k : 2 * k], gates[2 * k :]
    one = slope.dtype.type(1)
    for j in range(k):
        z, n, by_h = update[j], new[j], slope[j]
        slope[j] = by_h * z
        update[j] = by_h * (before[j] - n) * (z * (one - z))
        new[j] = by_h * (one - z) * (one - n * n)
    of_candidate = of_state[2 * k :]
    for j in range(k):
        r, by_n = reset[j], new[j]
        of_candidate[j] = by_n * r
        reset[j] = by_n * candidate[j] * (r * (one - r))
    for j in range(2 * k):
        of_state[j] = gates[j]


@inner
def _add(addend, total):
    for j in range(total.size):
        total[j] += addend[j]


@kernel("void(i8[::1], i8[::1], M, M, M, M, M, M, M, M)")
def recur_gradient(
    numbers, there, turned, gates, candidates, states, grad_out, slope, products, of_state
):
    """The gradients by what the gates take from x, in place of ``gates``, and from the state before, ``of_state``.

    Parameters
    ----------
    numbers, there, gates, candidates, states : as ``recur`` left them
    turned : weight_hh transposed, shape (3 k, k)
    grad_out : shape of ``out``
    slope, products : scratch, shape (rows, k)
    of_state : shape (steps * rows, 3 k)
    """
    rows = products.shape[0]
    slope[:] = 0
    for i in range(rows):
        numbers[i] = i
    for back in range(0, gates.shape[0], max(rows, 1)):
        first = gates.shape[0] - rows - back
        for i in range(rows):
            p = first + i
            if grad_out.shape[0] == gates.shape[0]:
                _add(grad_out[there[p]], slope[i])
            elif back == 0:
                _add(grad_out[i], slope[i])
            _step_gradient(gates[p], candidates[p], states[p], slope[i], of_state[p])
        if first > 0:
            product(of_state[first : first + rows], numbers[:rows], turned, products)
            for i in range(rows):
                _add(products[i], slope[i])
