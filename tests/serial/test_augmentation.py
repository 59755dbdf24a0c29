"""Augmentation: the words of the option, the kernels against their NumPy twins, and what the random numbers depend on."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lepton_mpi.data import augmentation, augmentation_kernels, kernels
from lepton_mpi.data.augmentation import Augmentation, check_words, image_size, parse
from lepton_mpi.data.order import draws
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.kernels import counter_random
from tests import reference

types = pytest.mark.parametrize(
    ("source", "target"), [("u1", "f4"), ("u1", "f8"), ("f4", "f4"), ("f8", "f8")]
)
images = pytest.mark.parametrize(
    ("shape", "crop"),
    [
        ((1, 1), 1),
        ((1, 1, 3), 1),
        ((5, 1), 1),
        ((1, 40), 1),
        ((4, 3, 2), 3),
        ((8, 8), 8),
        ((28, 28), 4),
        ((9, 17, 1), 2),
        ((16, 33, 3), 16),
        ((3, 3, 3), 3),
    ],
    ids=str,
)
# Relative, as derived in the kernels' docstring, and one more for the sum.
ROUNDING = 2.0**-24
NOISE_ERROR = 13 * ROUNDING


def _table(shape: tuple[int, ...], dtype: str, rows: int = 40) -> np.ndarray:
    """Whole numbers from 1 to 255, so that what comes from outside of an image shows."""
    return np.random.default_rng(3).integers(1, 256, (rows, int(np.prod(shape)))).astype(dtype)


def _run(function, table, shape, dtype, asked, places=None, rows=None, draw=7, units=(0.0, 1.0)):
    """What the kernel, or its twin, makes of rows of a table; ``units`` are shift and scale."""
    places = np.arange(len(table)) if places is None else np.asarray(places, np.int64)
    rows = places if rows is None else np.asarray(rows, np.int64)
    shift, scale = (np.broadcast_to(np.asarray(v, dtype), table.shape[1]).copy() for v in units)
    out = np.full((len(places), table.shape[1]), 99, dtype)
    choices = asked.flip, asked.crop, asked.noise
    function(table, places, rows, draw, shift, scale, *image_size(shape), *choices, out)
    return out


def _kernel(*arguments, **keywords):
    return _run(augmentation_kernels.gather_augmented, *arguments, **keywords)


def _twin(*arguments, **keywords):
    return _run(reference.gather_augmented, *arguments, **keywords)


# -- words -------------------------------------------------------------------------------------------------


def test_words_become_what_they_ask_for():
    """In any order, each optional; with and without the rows' shape."""
    asked = Augmentation(flip=True, crop=4, noise=0.05)
    assert check_words(["flip", "crop=4", "noise=0.05"]) == asked
    assert parse(("noise=5e-2", "crop=4", "flip"), (28, 28)) == asked
    assert parse(["flip"], (3, 3, 3)) == Augmentation(flip=True)
    assert parse(["crop=9"], (9, 20, 3)) == Augmentation(crop=9)
    assert parse(["noise=1"], (64,)) == Augmentation(noise=1.0)
    assert check_words([]) is None and parse([], (64,)) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["flp"], "expected flip, crop=PIXELS or noise=DEVIATION, got 'flp', did you mean flip?"),
        (["flip", "spin"], "expected flip, crop=PIXELS or noise=DEVIATION, got 'spin'"),
        ([""], "expected flip, crop=PIXELS or noise=DEVIATION, got ''"),
        (["crop=1", "crop=2"], "expected each word once, got crop twice in 'crop=1 crop=2'"),
        (["flip=1"], "expected flip without a number, got 'flip=1'"),
        *(
            ([word], f"expected crop=PIXELS, a whole number of at least 1, got {word!r}")
            for word in ("crop", "crop=", "crop=0", "crop=-1", "crop=4.5", "crop=x", "crop=²")
        ),
        (
            ["crop=" + "9" * 5000],
            f"expected crop=PIXELS, a whole number of at least 1, got 'crop={'9' * 5000}'",
        ),
        *(
            ([word], f"expected noise=DEVIATION, a finite number above 0, got {word!r}")
            for word in ("noise", "noise=", "noise=0", "noise=-1", "noise=nan", "noise=inf", "noise=1e999", "noise=x")
        ),
    ],
)  # fmt: skip
def test_wrong_words_are_told(words, message):
    """What was expected and what came, whether or not the rows' shape is known."""
    for check in (check_words, lambda words: parse(words, (28, 28))):
        with pytest.raises(ConfigurationError) as error:
            check(words)
        assert str(error.value) == f"--augment: {message}"


@pytest.mark.parametrize(
    ("words", "shape", "message"),
    [
        *(
            (
                [word],
                shape,
                f"--augment {word.split('=')[0]}: expected images, rows of shape (height, width) or "
                f"(height, width, channels), got rows of shape {shape}{hint}",
            )
            for word in ("flip", "crop=2")
            for shape, hint in (
                ((64,), ""),
                ((2, 8, 8, 3), ""),
                ((3, 32, 32), ", which has its channels in front"),
                ((1, 28, 28), ", which has its channels in front"),
            )
        ),
        (
            ["crop=9"],
            (20, 8, 3),
            "--augment crop: expected at most 8 pixels, the smaller side of images of shape (20, 8, 3), got 9",
        ),
    ],
)
def test_rows_that_do_not_fit_are_told(words, shape, message):
    """Nothing is mirrored or cropped that has no left and right."""
    with pytest.raises(ConfigurationError) as error:
        parse(words, shape)
    assert str(error.value) == message


def test_words_are_checked_without_numpy():
    """``--help`` and wrong options must not wait for NumPy and Numba."""
    code = f"import sys, {augmentation.__name__}; print({{'numpy', 'numba'}} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "set()\n", ended.stderr


def test_sizes_of_rows():
    """Rows that are no images are one line."""
    assert image_size((28, 20)) == (28, 20, 1)
    assert image_size((32, 30, 3)) == (32, 30, 3)
    assert image_size((64,)) == (1, 64, 1)
    assert image_size((2, 3, 4, 5)) == (1, 120, 1)
    assert image_size(()) == (1, 1, 1)


# -- kernels against their twins -----------------------------------------------------------------------------


@pytest.mark.slow(but_every=5)
@types
@images
@pytest.mark.parametrize("flip", [False, True])
def test_images_are_cropped_and_mirrored_as_by_numpy(source, target, shape, crop, flip):
    """Bit for bit, by numbers that need no rounding; a shift shows that 0 from outside is normalised, too."""
    table, places = _table(shape, source), np.random.default_rng(4).integers(0, 40, 100)
    rows = np.random.default_rng(5).permutation(100)
    units = (np.arange(table.shape[1]) % 7, 0.25)
    for asked in (Augmentation(flip, crop), Augmentation(flip)):
        arguments = (table, shape, target, asked, places, rows, -(2**63), units)
        np.testing.assert_array_equal(_kernel(*arguments), _twin(*arguments))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 1), (4, 2, 3), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("mirrored", [False, True])
def test_no_move_reads_or_writes_outside(monkeypatch, shape, mirrored):
    """All moves there are, up to the image's size, without Numba: kernels check no bounds, NumPy does."""
    for name in ("_clear", "_mirror"):
        monkeypatch.setattr(augmentation_kernels, name, getattr(augmentation_kernels, name).py_func)
    height, width, channels = shape
    source = np.arange(1.0, 1 + height * width * channels)
    padded = np.pad(source.reshape(shape), ((height, height), (width, width), (0, 0)))
    for down in range(-height, height + 1):
        for right in range(-width, width + 1):
            out = np.full(source.size, np.nan)
            with np.errstate(over="ignore"):  # of 0 pixels the last has no place
                augmentation_kernels._move.py_func(source, *shape, down, right, mirrored, out)
            moved = padded[height + down :, width + right :][:height, :width]
            moved = moved[:, ::-1] if mirrored else moved
            np.testing.assert_array_equal(out, moved.reshape(-1))


@types
@images
def test_moved_rows_are_rounded_like_rows_that_lay_so(source, target, shape, crop):
    """Any shift and scale give the bits that ``gather_rows`` makes of the moved rows."""
    table, asked = _table(shape, source), Augmentation(flip=True, crop=crop)
    moved = _twin(table, shape, source, asked)
    units = np.random.default_rng(6).standard_normal((2, table.shape[1])).astype(target)
    exact = np.empty(table.shape, target)
    kernels.gather_rows(moved, np.arange(len(table)), *units, exact)
    assert _kernel(table, shape, target, asked, units=units).tobytes() == exact.tobytes()


@types
@pytest.mark.parametrize("shape", [(64,), (5, 7, 3)], ids=str)
def test_without_augmentation_rows_are_gathered_as_ever(source, target, shape):
    """The same bits as ``gather_rows``, whatever the rows' shape."""
    table, places = _table(shape, source), np.array([3, 0, 39, 3])
    units = np.random.default_rng(6).standard_normal((2, table.shape[1])).astype(target)
    exact = np.empty((4, table.shape[1]), target)
    kernels.gather_rows(table, places, *units, exact)
    got = _kernel(table, shape, target, Augmentation(), places, units=units)
    assert got.tobytes() == exact.tobytes()


@types
@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (64,), (131,), (28, 28), (7, 5, 3)], ids=str)
@pytest.mark.parametrize("noise", [1.0, 0.05, 1e-3])
def test_noise_is_added_as_by_numpy(source, target, shape, noise):
    """To the roundings of the noise, and one of the sum."""
    table, asked = _table(shape, source), Augmentation(noise=noise)
    got, exact = _kernel(table, shape, target, asked), _twin(table, shape, "f8", asked)
    error = NOISE_ERROR * abs(exact - table) + np.finfo(target).eps * abs(exact)
    assert (abs(got - exact) <= error).all()
    assert (got != table).mean() > 0.9


@types
def test_all_of_it_together(source, target):
    """Moved, mirrored, normalised, then noise: as by NumPy."""
    shape, asked = (12, 10, 3), Augmentation(flip=True, crop=3, noise=0.5)
    table, units = _table(shape, source), (128.0, 1 / 64)
    still = _twin(table, shape, "f8", Augmentation(flip=True, crop=3), units=units)
    got = _kernel(table, shape, target, asked, units=units)
    exact = _twin(table, shape, "f8", asked, units=units)
    error = NOISE_ERROR * abs(exact - still) + np.finfo(target).eps * abs(exact)
    assert (abs(got - exact) <= error).all()


# -- what it depends on ------------------------------------------------------------------------------------


@given(st.data())
def test_a_row_does_not_depend_on_how_batches_are_cut(data):
    """Nor on the order of the rows, nor on where in a table they lie."""
    dtype = data.draw(st.sampled_from(["f4", "f8"]))
    shape = data.draw(st.sampled_from([(1,), (65,), (8, 8), (5, 7, 3)]))
    crop = data.draw(st.integers(0, 5)) if len(shape) > 1 else 0
    asked = Augmentation(len(shape) > 1, crop, data.draw(st.sampled_from([0.0, 0.3])))
    draw = data.draw(st.integers(-(2**63), 2**63 - 1))
    table = _table(shape, dtype, 12)
    rows = np.array(data.draw(st.lists(st.integers(0, 2**40), min_size=12, max_size=12)))
    whole = _kernel(table, shape, dtype, asked, np.arange(12), rows, draw)
    order = np.array(data.draw(st.permutations(range(12))))
    cuts = sorted(data.draw(st.lists(st.integers(0, 12), max_size=4)))
    for part in np.split(order, cuts):
        got = _kernel(table[order], shape, dtype, asked, np.argsort(order)[part], rows[part], draw)
        assert got.tobytes() == whole[part].tobytes()


@pytest.mark.parametrize(
    "asked", [Augmentation(crop=8), Augmentation(noise=1.0)], ids=["crop", "noise"]
)
def test_other_steps_and_other_rows_are_augmented_otherwise(asked):
    """So the same row looks different in the next epoch, whose steps have other draws."""
    table = np.repeat(_table((8, 8), "f4", 1), 200, axis=0)
    first, later = (_kernel(table, (8, 8), "f4", asked, draw=draw) for draw in draws(0, 5, 2))
    # Of 289 places of a crop, each is as likely as the others; 8 * 8 moves by noise never agree.
    assert (first == later).all(axis=1).sum() < 10
    assert len(np.unique(first, axis=0)) > 100


def test_dropout_has_other_numbers():
    """The word behind the draw is no layer's number: the first 5000 of a row are not among those of 200 layers."""
    draw = np.array(draws(0, 0, 1)).astype(np.uint64)
    ours = counter_random.chain(draw, augmentation_kernels.PURPOSE)
    keys = [counter_random.chain(draw, layer) for layer in range(200)]
    drawn = [counter_random.numbers(counter_random.chain(key, 0), 5000) for key in [ours, *keys]]
    assert np.unique(np.concatenate(drawn)).size == 201 * 5000


# -- distributions -----------------------------------------------------------------------------------------


def test_places_and_sides_are_equally_likely():
    """Chi-square over the 25 places of a crop by 2, times 2 sides, is within 5 standard deviations of its mean."""
    count, centre = 50_000, 3
    table = np.repeat(np.arange(1, 50, dtype=np.uint8)[None], count, axis=0)
    moved = _kernel(table, (7, 7), "f4", Augmentation(flip=True, crop=2)).reshape(count, 7, 7)
    down, right = np.divmod(moved[:, centre, centre].astype(int) - 1 - 8 * centre, 7)
    down, right = np.where(right > 3, down + 1, down), np.where(right > 3, right - 7, right)
    mirrored = moved[:, centre, centre + 1] < moved[:, centre, centre]
    cells = ((down + 2) * 5 + right + 2) * 2 + mirrored
    counts = np.bincount(cells, minlength=50)
    assert counts.size == 50
    chi_square = ((counts - count / 50) ** 2 / (count / 50)).sum()
    assert abs(chi_square - 49) < 5 * np.sqrt(2 * 49)


@pytest.mark.parametrize("flip", [False, True])
def test_half_of_the_images_are_mirrored(flip):
    """Within 5 standard deviations, and none where it is not asked for."""
    table = np.repeat(np.array([[1, 2]], np.uint8), 40_000, axis=0)
    moved = _kernel(table, (1, 2), "f4", Augmentation(flip))
    mirrored = (moved == [2, 1]).all(axis=1)
    assert (mirrored | (moved == [1, 2]).all(axis=1)).all()
    assert abs(mirrored.sum() - 20_000) < 5 * 100 if flip else not mirrored.any()


def _noise(shape: tuple[int, int]) -> np.ndarray:
    return _kernel(np.zeros(shape, "f4"), shape[1:], "f4", Augmentation(noise=1.0)).astype("f8")


@pytest.mark.parametrize("shape", [(1, 10**6), (10**6, 1), (10**4, 101)], ids=str)
def test_noise_is_normal(shape):
    """Moments, tails and the largest distance of the distributions are within 5 standard errors, or 1 in 10**6.

    The standard errors are those of 10**6 exactly normal numbers: the mean of the powers 1 to 4 varies by
    1, 2, 15 and 96, and those beyond t are a binomial count.
    """
    x = _noise(shape).ravel()
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - mean) < 5 * np.sqrt(variance / x.size), power
    for t in (0.5, 1, 2, 3, 4):
        p = stats.norm.sf(t)
        for beyond in (x > t, x < -t):
            assert abs(beyond.sum() - x.size * p) < 5 * np.sqrt(x.size * p * (1 - p)), t
    assert stats.kstest(x, "norm").pvalue > 1e-6


def test_noise_of_neighbours_is_independent():
    """Of values of a row, of both of a pair, of rows, and of their squares: correlations within 5 standard errors."""
    x = _noise((10**4, 100))
    for a, b in ((x[:, 1:], x[:, :-1]), (x[:, :50], x[:, 50:]), (x[1:], x[:-1])):
        for power in (1, 2):
            correlation = np.corrcoef(a.ravel() ** power, b.ravel() ** power)[0, 1]
            assert abs(correlation) < 5 / np.sqrt(a.size)


def test_noise_reaches_far_and_is_finite_at_the_ends():
    """The bits with the largest distance, the smallest, and every quarter of the circle."""
    high = np.array([0, 1, 2**31 - 1], np.int32)
    distances = [augmentation_kernels._distance(value) for value in high]
    exact = np.sqrt(-2 * np.log((high + np.array([0.5, 0.5, 1])) * 2.0**-31))
    np.testing.assert_allclose(distances, exact, rtol=NOISE_ERROR)
    assert distances[2] == 0
    low = np.array([-(2**31), 2**31 - 4, 0], np.int32)[:, None] + np.arange(4, dtype=np.int32)
    points = np.array([[augmentation_kernels._direction(bits) for bits in four] for four in low])
    np.testing.assert_allclose((points**2).sum(axis=2), 1, rtol=NOISE_ERROR)
    np.testing.assert_allclose(points[2], [[1, 0], [0, 1], [-1, 0], [0, -1]], atol=1e-9)


# -- bits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_neither_vectors_nor_what_is_left_of_them_differ(dtype):
    """Value k of the first half of a row is the same for rows of any length."""
    long = np.zeros(2000, dtype)
    augmentation_kernels.add_noise(np.uint64(9), 1.0, long)
    for size in range(1, 140):
        short = np.zeros(size, dtype)
        augmentation_kernels.add_noise(np.uint64(9), 1.0, short)
        half = (size + 1) // 2
        assert short[:half].tobytes() == long[:half].tobytes()
        assert short[half:].tobytes() == long[1000 : 1000 + size - half].tobytes()


def test_float64_rows_have_the_same_noise():
    """Noise of float32, exactly, where it is not scaled."""
    single, double = np.zeros(999, "f4"), np.zeros(999, "f8")
    for out in (single, double):
        augmentation_kernels.add_noise(np.uint64(2**64 - 1), 1.0, out)
    np.testing.assert_array_equal(single, double)


def test_bits_never_change_between_versions_and_machines():
    """Frozen: runs that are continued elsewhere depend on them."""
    table = (np.arange(50 * 300) % 251).astype(np.uint8).reshape(50, 300)
    asked = Augmentation(flip=True, crop=4, noise=0.1)
    got = _kernel(table, (10, 10, 3), "f4", asked, draw=11, units=(100.0, 1 / 128))
    assert hashlib.sha256(got.astype("<f4").tobytes()).hexdigest()[:16] == "2e5e48eeb59b04c7"
