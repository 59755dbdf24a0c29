"""NumPy twins of the kernels of language models, as ``reference.py`` has those of the others: float64, no blocks, T x T scores."""

import numpy as np
from scipy.special import expit, log_softmax, logsumexp

from lepton_mpi.layers import attention_kernels as layout


def _double(*arrays):
    return [np.asarray(array, np.float64) for array in arrays]


# -- embedding_kernels.py ------------------------------------------------------------------------------------


def look_up(codes, offsets, weight, out):
    out[:] = weight[(codes + offsets).reshape(-1)]


def look_up_gradient(codes, offsets, grad_out, is_met, grad_weight):
    total, rows = np.zeros(grad_weight.shape), (codes + offsets).reshape(-1)
    np.add.at(total, rows, grad_out)
    grad_weight[:] = total
    is_met[:] = np.isin(np.arange(len(is_met)), rows)
    return len(np.unique(rows))


def add_to_rows(x, table, out):
    out[:] = x + table[: x.shape[1]]


def sum_of_rows(x, out):
    out[:] = 0
    out[: x.shape[1]] = x.astype(np.float64).sum(axis=0)


# -- column_embedding_kernels.py, crossed_linear_kernels.py --------------------------------------------------


def embed_column(codes, column, weight, first, out):
    out[:, first : first + weight.shape[1]] = weight[codes[:, column]]


def embed_column_gradient(codes, column, grad_out, first, is_met, grad_weight):
    total, (values, width) = np.zeros(grad_weight.shape), grad_weight.shape
    np.add.at(total, codes[:, column], grad_out[:, first : first + width])
    grad_weight[:] = total
    is_met[:] = np.isin(np.arange(values), codes[:, column])
    return int(is_met.sum())


def weight_rows(codes, values, members, starts, is_hashed, rows):
    """With Python's own whole numbers; the hash is that of ``counter_random.mix``, from its definition."""
    for i, row in enumerate(codes.tolist()):
        for f, columns in enumerate(members.tolist()):
            number = 0
            for column in columns:
                if column >= 0:
                    number = number * int(values[column]) + row[column]
            if is_hashed[f]:
                number = _mixed(number % 2**64) % int(starts[f + 1] - starts[f])
            rows[i, f] = starts[f] + number


def _mixed(number):
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        number = (number ^ (number >> shift)) * factor % 2**64
    return number ^ (number >> 31)


def sum_weight_rows(rows, weight, out):
    out[:] = weight.astype(np.float64)[rows].sum(axis=1)


def weight_rows_gradient(rows, grad_out, is_met, grad_weight):
    total = np.zeros(grad_weight.shape)
    np.add.at(total, rows, grad_out[:, None])
    grad_weight[:] = total
    is_met[:] = np.isin(np.arange(len(is_met)), rows)
    return int(is_met.sum())


# -- norm_kernels.py -----------------------------------------------------------------------------------------


def normalise(x, weight, bias, epsilon, centred, place, one, total, stats, out):
    x, w = _double(x, weight)
    mean = x.mean(axis=1) * centred
    factor = 1 / np.sqrt(((x - mean[:, None]) ** 2).mean(axis=1) + epsilon)
    stats[:] = np.stack([mean, factor], axis=1)
    out[:] = (x - mean[:, None]) * factor[:, None] * w + (bias if centred else 0)


def normalise_gradient(
    x, grad_out, weight, centred, stats, place, total, work, grad_weight, grad_bias, grad_x
):
    x, slope, w, stats = _double(x, grad_out, weight, stats)
    h, g = (x - stats[:, :1]) * stats[:, 1:], slope * w
    grad_weight[:] = (slope * h).sum(axis=0)
    if centred:
        grad_bias[:] = slope.sum(axis=0)
    if len(grad_x):
        shift = g.mean(axis=1, keepdims=True) * centred
        grad_x[:] = stats[:, 1:] * (g - shift - h * (g * h).mean(axis=1, keepdims=True))


# -- attention_kernels.py ------------------------------------------------------------------------------------


def _heads(shape, q, q_column, k, k_column, v, v_column):
    """Queries, keys, values (rows, heads, positions, size), scores with -inf for what is not seen."""
    rows, heads, groups, size, length, first, keys, room, causal = (int(n) for n in shape)

    def parts(array, column, count, positions):
        array = np.asarray(array, np.float64)[:, column : column + count * size]
        return array.reshape(rows, positions, count, size).transpose(0, 2, 1, 3)

    shared = heads // groups
    q = parts(q, q_column, heads, length)
    k, v = (
        np.repeat(parts(array, column, shared, room)[:, :, :keys], groups, axis=1)
        for array, column in ((k, k_column), (v, v_column))
    )
    scores = q @ k.swapaxes(2, 3) / np.sqrt(size)
    if causal:
        hidden = np.arange(keys) > first + np.arange(length)[:, None]
        scores[:, :, hidden] = -np.inf
    return q, k, v, scores


def _together(heads):
    rows, count, length, size = heads.shape
    return heads.transpose(0, 2, 1, 3).reshape(rows * length, count * size)


def attention(shape, q, q_column, k, k_column, v, v_column, numbers, scratch, out, log_sums):
    _, _, v, scores = _heads(shape, q, q_column, k, k_column, v, v_column)
    if not scores.size:
        return
    out[:] = _together(np.exp(log_softmax(scores, axis=3)) @ v)
    log_sums[:] = logsumexp(scores, axis=3).reshape(log_sums.shape)


def attention_gradient(shape, x, out, grad_out, log_sums, numbers, scratch, grad):
    heads, groups, size = shape[layout.HEADS], shape[layout.GROUPS], shape[layout.SIZE]
    shared = heads // groups
    columns = 0, heads * size, (heads + shared) * size
    q, k, v, scores = _heads(shape, x, columns[0], x, columns[1], x, columns[2])
    if not scores.size:
        return
    p = np.exp(log_softmax(scores, axis=3))
    slope = grad_out.astype(np.float64).reshape(len(q), -1, heads, size).transpose(0, 2, 1, 3)
    by_p = slope @ v.swapaxes(2, 3)
    s = p * (by_p - (p * by_p).sum(axis=3, keepdims=True)) / np.sqrt(size)

    def added(array):
        rows, _, length, _ = array.shape
        return array.reshape(rows, shared, groups, length, size).sum(axis=2)

    parts = s @ k, added(s.swapaxes(2, 3) @ q), added(p.swapaxes(2, 3) @ slope)
    grad[:] = np.concatenate([_together(part) for part in parts], axis=1)


# -- token_loss_kernels.py -----------------------------------------------------------------------------------


def loss_and_gradient(x, targets, weight, numbers, turned, memory, work, grad_weight, grad_x):
    x, w = _double(x, weight)
    z, counts = x @ w.T, targets >= 0
    slope = np.exp(log_softmax(z, axis=1))
    slope[np.arange(len(x)), targets] -= 1
    slope[~counts] = 0
    grad_weight[:], grad_x[:] = slope.T @ x, slope @ w
    return _loss(z, targets), np.count_nonzero(z.argmax(axis=1)[counts] == targets[counts])


def _loss(z, targets):
    counts = targets >= 0
    return -log_softmax(z, axis=1)[counts, targets[counts]].sum()


def predict_tokens(x, targets, weight, numbers, turned, memory, work, predicted):
    x, w = _double(x, weight)
    predicted[:] = (x @ w.T).argmax(axis=1)
    return _loss(x @ w.T, targets)


def token_probabilities(x, weight, numbers, turned, memory, work, out):
    x, w = _double(x, weight)
    out[:] = np.exp(log_softmax(x @ w.T, axis=1))


# -- gated_kernels.py, rotary_kernels.py ---------------------------------------------------------------------


def swiglu(x, out):
    a, b = np.split(x.astype(np.float64), 2, axis=1)
    out[:] = a * expit(a) * b


def swiglu_gradient(x, grad_out, grad_x):
    a, b = np.split(x.astype(np.float64), 2, axis=1)
    slope = expit(a) * (1 + a * expit(-a))
    grad_x[:] = np.concatenate([grad_out * b * slope, grad_out * a * expit(a)], axis=1)


def rotate(x, cosines, sines, first, length, heads, sign, out):
    half = cosines.shape[1]
    positions = first + np.arange(len(x)) % length
    turn = (cosines + 1j * sign * sines)[positions][:, None]
    pairs = x[:, : 2 * half * heads].astype(np.float64).reshape(len(x), heads, 2, half)
    turned = (pairs[:, :, 0] + 1j * pairs[:, :, 1]) * turn
    out[:] = x
    out[:, : 2 * half * heads] = np.stack([turned.real, turned.imag], axis=2).reshape(len(x), -1)


# -- gru_kernels.py ------------------------------------------------------------------------------------------


def order_by_time(rows, length, is_reversed, there, back):
    places = np.arange(rows * length).reshape(rows, length)
    places = places[:, ::-1] if is_reversed else places
    there[:] = places.T.reshape(-1)
    back[there] = np.arange(rows * length)


def recur(numbers, there, weight, bias, gates, candidates, states, products, out):
    (rows, width), k = products.shape, states.shape[1]
    by_time = gates.astype(np.float64).reshape(-1, rows, width) if rows else np.zeros((0, 0, width))
    all_states = [np.zeros((rows, k))]
    for step, of_x in enumerate(by_time):
        before = all_states[-1]
        of_state = before @ weight.astype(np.float64) + bias
        r, z = np.split(expit(of_x[:, : 2 * k] + of_state[:, : 2 * k]), 2, axis=1)
        n = np.tanh(of_x[:, 2 * k :] + r * of_state[:, 2 * k :])
        all_states.append((1 - z) * n + z * before)
        own = slice(step * rows, (step + 1) * rows)
        gates[own], candidates[own] = np.concatenate([r, z, n], axis=1), of_state[:, 2 * k :]
    states[:], numbers[:rows] = np.concatenate(all_states), np.arange(rows)
    if len(out) == len(gates):
        out[there] = states[rows:]
    else:
        out[:] = all_states[-1]


def recur_gradient(
    numbers, there, turned, gates, candidates, states, grad_out, slope, products, of_state
):
    rows, k = slope.shape
    steps = len(gates) // max(rows, 1)
    weight_t, carried = turned.astype(np.float64), np.zeros((rows, k))
    numbers[:rows] = np.arange(rows)
    for step in reversed(range(steps)):
        own = slice(step * rows, (step + 1) * rows)
        r, z, n = np.split(gates[own].astype(np.float64), 3, axis=1)
        if len(grad_out) == len(gates):
            carried = carried + grad_out[there[own]]
        elif step == steps - 1:
            carried = carried + grad_out
        by_n = carried * (1 - z) * (1 - n * n)
        by_z = carried * (states[own] - n) * z * (1 - z)
        by_r = by_n * candidates[own] * r * (1 - r)
        gates[own] = np.concatenate([by_r, by_z, by_n], axis=1)
        of_state[own] = np.concatenate([by_r, by_z, by_n * r], axis=1)
        carried = carried * z + np.concatenate([by_r, by_z, by_n * r], axis=1) @ weight_t


# -- packing_kernels.py --------------------------------------------------------------------------------------


def pack(x, packed):
    """The nearer of the two bfloat16 beside a number, by distances in float64; of two equally near that with the even last bit."""
    x = np.asarray(x, np.float32)
    # Towards 0; the next one is farther from it.
    lower = (x.view(np.uint32) >> 16).astype(np.int64)
    exact = np.abs(np.where(np.isfinite(x), x, 0).astype(np.float64))
    near, far = (_of_bfloat16(lower + more) for more in (0, 1))
    is_up = (exact - near > far - exact) | ((exact - near == far - exact) & (lower % 2 == 1))
    packed[:] = np.where(np.isfinite(x), lower + is_up, lower | np.where(np.isnan(x), 0x40, 0))


def _of_bfloat16(bits):
    """Size by the format's definition, with what would be infinite as the power of 2 that follows."""
    exponent, mantissa = bits >> 7 & 0xFF, (bits & 0x7F) / 128
    normal = np.ldexp(1 + mantissa, exponent - 127)
    return np.where(exponent == 0, np.ldexp(mantissa, -126), normal)


def unpack(packed, out):
    size = _of_bfloat16(packed.astype(np.int64))
    size[(packed & 0x7FFF) == 0x7F80] = np.inf
    size[(packed & 0x7FFF) > 0x7F80] = np.nan
    out[:] = np.where(packed & 0x8000, -size, size)
