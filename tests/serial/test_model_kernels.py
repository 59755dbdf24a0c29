"""The models' Numba kernels against their NumPy twins, and their losses at the edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import logsumexp

from lepton_mpi.kernels.product_kernels import right_scratch_size
from lepton_mpi.layers import dense_kernels, loss_kernels
from lepton_mpi.models import logistic_kernels
from tests import reference

DTYPES = [np.float32, np.float64]
ROWS = [1, 2, 7, 64]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["f4", "f8"])
rows_of_batch = pytest.mark.parametrize("rows", ROWS)


def _normal(seed: int, shape: tuple[int, ...], dtype) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _labels(rows: int, classes: int) -> np.ndarray:
    return np.random.default_rng(9).integers(0, classes, rows).astype(np.int32)


def _check(kernel, twin, inputs: tuple, outputs: tuple, terms: int):
    """Call both on copies of ``outputs``; these may differ by ``terms`` roundings of the largest sum."""
    mine, exact = [a.copy() for a in outputs], [a.astype(a.dtype) for a in outputs]
    got, expected = kernel(*inputs, *mine), twin(*inputs, *exact)
    for a, b in zip(mine, exact, strict=True):
        assert not np.isnan(a).any(), "a part of the output was not filled"
        tolerance = (terms + 8) * np.finfo(a.dtype).eps * max(1, np.abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    if expected is not None:
        precision = np.finfo(outputs[0].dtype).eps
        np.testing.assert_allclose(got, expected, rtol=(terms + 8) * precision)


def _empty(*shape, dtype):
    return np.full(shape, np.nan, dtype)


def _dense(x, places, w, b, threaded, out):
    dense_kernels.multiply(x, places, w, threaded, out)
    dense_kernels.add_bias(b, out)


def _dense_relu(x, places, w, b, threaded, out):
    dense_kernels.multiply(x, places, w, threaded, out)
    dense_kernels.add_bias_relu(b, out)


def _dense_gradient(x, places, grad_output, threaded, grad_weight, grad_bias):
    dense_kernels.multiply_left(x, places, grad_output, threaded, grad_weight, 0, len(grad_weight))
    dense_kernels.sum_rows(grad_output, grad_bias)


def _dense_relu_backward(grad_output, weight, activations, threaded, numbers, scratch, grad_input):
    dense_kernels.multiply_right(grad_output, weight, threaded, numbers, scratch, grad_input)
    dense_kernels.relu_backward(activations, grad_input)


@pytest.mark.slow(but_every=8)
@dtypes
@rows_of_batch
@pytest.mark.parametrize(("m", "k"), [(1, 1), (3, 2), (64, 10), (30, 1), (785, 128)])
@pytest.mark.parametrize("threaded", [False, True])
def test_dense_layers_match_their_twins(dtype, rows, m, k, threaded):
    """Forward with and without ReLU, gradient of weights and bias, gradient of the inputs."""
    x, w, b = _normal(1, (rows, m), dtype), _normal(2, (m, k), dtype) / m, _normal(3, (k,), dtype)
    g = _normal(4, (rows, k), dtype)
    out = _empty(rows, k, dtype=dtype)
    places = np.arange(rows) if threaded else np.random.default_rng(6).permutation(rows)
    given = x, places, w, b, threaded
    _check(_dense, reference.dense, given, (out,), m)
    _check(_dense_relu, reference.dense_relu, given, (out,), m)
    outs = _empty(m, k, dtype=dtype), _empty(k, dtype=dtype)
    _check(
        _dense_gradient,
        reference.dense_gradient,
        (x, places, g, threaded),
        outs,
        rows,
    )
    active = np.maximum(_normal(5, (rows, m), dtype), 0)
    scratch = np.empty(right_scratch_size(rows, k, m), dtype)
    inputs = (g, w, active, threaded, np.arange(max(rows, m)), scratch)
    _check(
        _dense_relu_backward,
        reference.dense_relu_backward,
        inputs,
        (_empty(rows, m, dtype=dtype),),
        k,
    )


def test_relu_passes_no_gradient_where_it_is_zero():
    """An activation of exactly 0 stops the gradient."""
    out = _empty(1, 2, dtype=np.float64)
    for threaded in (False, True):
        given = threaded, np.arange(2), np.empty(3)
        _dense_relu_backward(
            np.ones((1, 1)), np.ones((2, 1)), np.array([[0.0, 1e-300]]), *given, out
        )
        assert out.tolist() == [[0, 1]]


@dtypes
@rows_of_batch
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_softmax_kernels_match_their_twins(dtype, rows, classes):
    """Loss, number of correct rows, gradient and predicted classes."""
    logits, labels = 5 * _normal(1, (rows, classes), dtype), _labels(rows, classes)
    mine, exact = logits.copy(), logits.copy()
    loss, correct = loss_kernels.softmax_cross_entropy(mine, labels)
    expected_loss, expected_correct = reference.softmax_cross_entropy(exact, labels)
    tolerance = (classes + 30) * np.finfo(dtype).eps
    np.testing.assert_allclose(mine, exact, rtol=0, atol=tolerance)
    np.testing.assert_allclose(loss, expected_loss, rtol=tolerance)
    assert correct == expected_correct
    predicted, expected = np.full(rows, -1, np.int32), np.full(rows, -1, np.int32)
    loss = loss_kernels.softmax_predict(logits, labels, predicted)
    np.testing.assert_allclose(
        loss, reference.softmax_predict(logits, labels, expected), rtol=tolerance
    )
    np.testing.assert_array_equal(predicted, expected)


@dtypes
@rows_of_batch
@pytest.mark.parametrize("features", [1, 2, 30, 9000])
def test_logistic_kernels_match_their_twins(dtype, rows, features):
    """Loss, number of correct rows, gradient and predicted classes, the two-parameter case included."""
    x, w = _normal(1, (70, features), dtype), _normal(2, (features,), dtype) / dtype(features**0.5)
    places = np.random.default_rng(4).integers(0, 70, rows)
    b, labels = _normal(3, (1,), dtype), _labels(rows, 2)
    vectors = _empty(rows, dtype=dtype), _empty(features, dtype=dtype), _empty(1, dtype=dtype)
    terms = 4 * (rows + features)
    counts = np.array([0.5, 3], dtype)
    given, kernel = (x, places, w, b, labels, counts), logistic_kernels.logistic_gradient
    _check(kernel, reference.logistic_gradient, given, vectors, terms)
    predicted, expected = np.full(rows, -1, np.int32), np.full(rows, -1, np.int32)
    loss = logistic_kernels.logistic_predict(*given, vectors[0].copy(), predicted)
    exact = reference.logistic_predict(*given, None, expected)
    np.testing.assert_allclose(loss, exact, rtol=terms * np.finfo(dtype).eps)
    np.testing.assert_array_equal(predicted, expected)


@dtypes
@pytest.mark.parametrize("top", [1e4, -1e4, 0])
@pytest.mark.parametrize("label", [0, 1])
def test_softmax_loss_is_stable_for_extreme_logits(dtype, top, label):
    """Logits of ±1e4 give the loss that SciPy's logsumexp gives, finite gradients, and no warning."""
    logits, labels = np.array([[top, -top, 0]], dtype), np.array([label], np.int32)
    exact = logsumexp(logits.astype(float)) - float(logits[0, label])
    predicted = np.empty(1, np.int32)
    np.testing.assert_allclose(
        loss_kernels.softmax_predict(logits, labels, predicted), exact, rtol=1e-6
    )
    loss, _ = loss_kernels.softmax_cross_entropy(logits, labels)
    np.testing.assert_allclose(loss, exact, rtol=1e-6, atol=1e-30)
    assert np.isfinite(logits).all() and abs(logits.sum()) < 1e-6


@dtypes
@given(data=st.data())
def test_softmax_loss_does_not_depend_on_a_common_shift(dtype, data):
    """Adding 4096 to all logits of a row, which is exact here, changes neither loss nor gradient by a bit."""
    eighths = hnp.arrays(np.int16, (3, 4), elements=st.integers(-80, 80))
    logits = data.draw(eighths).astype(dtype) / 8
    labels, shifted = np.array([0, 1, 3], np.int32), logits + dtype(4096)
    np.testing.assert_array_equal(shifted - dtype(4096), logits)
    predicted = np.empty(3, np.int32)
    assert loss_kernels.softmax_predict(logits, labels, predicted) == loss_kernels.softmax_predict(
        shifted, labels, predicted
    )
    loss, shifted_loss = (
        loss_kernels.softmax_cross_entropy(logits, labels),
        loss_kernels.softmax_cross_entropy(shifted, labels),
    )
    np.testing.assert_array_equal(logits, shifted)
    assert loss == shifted_loss


@dtypes
@pytest.mark.parametrize("z", [1e4, -1e4, 800, -800, 0, 1e-30])
@pytest.mark.parametrize("label", [0, 1])
def test_logistic_loss_is_stable_for_extreme_logits(dtype, z, label):
    """Logits of ±1e4 with labels of both classes give the exact loss and gradient, and no warning."""
    x, w, b = np.ones((1, 1), dtype), np.array([z], dtype), np.zeros(1, dtype)
    difference, grad_weight, grad_bias = np.empty(1, dtype), np.empty(1, dtype), np.empty(1, dtype)
    labels = np.array([label], np.int32)
    given = x, np.zeros(1, np.int64), w, b, labels, np.ones(2, dtype)
    loss, correct = logistic_kernels.logistic_gradient(*given, difference, grad_weight, grad_bias)
    exact = np.logaddexp(0, -z if label else z)
    np.testing.assert_allclose(loss, exact, rtol=1e-6)
    p = 0.5 * (1 + np.tanh(z / 2))
    np.testing.assert_allclose([difference[0], grad_weight[0], grad_bias[0]], p - label, atol=1e-7)
    assert correct == ((z > 0) == (label == 1))


@dtypes
def test_ties_go_to_the_first_class(dtype):
    """Equal logits predict the lowest class, as NumPy's argmax does."""
    predicted, labels = np.empty(2, np.int32), np.array([1, 0], np.int32)
    loss_kernels.softmax_predict(np.zeros((2, 3), dtype), labels, predicted)
    assert predicted.tolist() == [0, 0]
    assert loss_kernels.softmax_cross_entropy(np.zeros((2, 3), dtype), labels)[1] == 1
