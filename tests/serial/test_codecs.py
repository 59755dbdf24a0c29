"""The codecs against their NumPy twins, what they promise of errors and bytes, and what no codec may hide."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lepton_mpi.collectives.compressing.choosing import Speeds, is_faster
from lepton_mpi.collectives.compressing.exchange import payload_memory
from lepton_mpi.collectives.compressing.half_kernels import (
    from_fp16,
    from_fp16_by_words,
    to_fp16,
    to_fp16_by_words,
)
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.kernels.compiling import kernel
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.options import names
from lepton_mpi.strategies.compression import codec_of
from lepton_mpi.strategies.registry import CODECS
from lepton_mpi.strategies.strategy import Setting
from lepton_mpi.vectors import Layout
from tests import reference_codecs

KEY = np.uint64(0x1234_5678_9ABC_DEF0)
# Of every codec of vectors: the twin, bytes of n elements of so many bytes, and where it is of blocks, its levels.
TEXTS = ("fp16", "bf16", "int8", "int4", "sign", "topk:0.1", "topk:0.1,sampled", "randomk:0.1")
BYTES = {
    "fp16": lambda n, size: 2 * n,
    "bf16": lambda n, size: 2 * n,
    "int8": lambda n, size: n + size * -(-n // 1024),
    "int4": lambda n, size: -(-n // 2) + size * -(-n // 1024),
    "sign": lambda n, size: -(-n // 8) + size * -(-n // 1024),
    "topk:0.1": lambda n, size: -(-n // 10) * (size + 4),
    "topk:0.1,sampled": lambda n, size: -(-n // 10) * (size + 4),
    "randomk:0.1": lambda n, size: -(-n // 10) * size,
}
LEVELS = {"int8": 127, "int4": 7}
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
codecs = pytest.mark.parametrize("text", TEXTS)
counts = st.one_of(st.integers(1, 70), st.sampled_from([1023, 1024, 1025, 2048, 3333, 9001]))


def _codec(text: str, dtype):
    name, _, option = text.partition(":")
    return CODECS.find(name)(option, np.dtype(dtype))


def _twin(text: str, y: np.ndarray, key=KEY) -> np.ndarray:
    name, _, option = text.partition(":")
    if not option:
        return getattr(reference_codecs, name)(y, key)
    return getattr(reference_codecs, name)(y, key, -(-y.size // 10))


def _through(codec, x, residual, key=KEY) -> np.ndarray:
    """Encode, with the residual in place, and decode."""
    payload = payload_memory(codec.sent_bytes(x.size))
    out = np.full_like(x, 7)
    codec.encode(x, residual, payload, key)
    codec.decode(payload, out, key, False)
    twice = out.copy()
    codec.decode(payload, twice, key, True)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(twice, out + out)
    return out


@st.composite
def vectors(draw, dtype, special=False) -> np.ndarray:
    """Numbers of several magnitudes, runs of zeros, single large or tiny ones; with ``special`` NaN or an infinity, too."""
    count, generator = draw(counts), np.random.default_rng(draw(st.integers(0, 1 << 32)))
    x = generator.standard_normal(count) * 10.0 ** draw(st.integers(-8, 8))
    x[generator.random(count) < draw(st.sampled_from([0, 0.3, 1]))] = 0
    places = st.integers(0, count - 1)
    values = st.sampled_from([1e-44, -1e-39, 1e5, -6.1e4, 3e38, 0.0, -0.0, 1.0])
    for place in draw(st.lists(places, max_size=5)):
        x[place] = draw(values)
    if special:
        x[draw(places)] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    return x.astype(dtype)


@pytest.mark.slow(but_every=5)
@codecs
@dtypes
@given(data=st.data())
def test_what_is_decoded_has_the_bits_of_the_twin(text, dtype, data):
    """For any vector and any residual; what is left is the rest, with one rounding."""
    x = data.draw(vectors(dtype))
    residual = (x * np.random.default_rng(x.size).uniform(-0.1, 0.1, x.size)).astype(dtype)
    y = x + residual
    found = _through(_codec(text, dtype), x.copy(), residual)
    if text.endswith("sampled"):
        # Which ones follows from a sample: no more than k, and those that were sent are sent whole.
        sent = found != 0
        assert sent.sum() <= -(-x.size // 10)
        np.testing.assert_array_equal(found[sent], y[sent])
        expected = np.where(sent, y, 0)
    else:
        expected = _twin(text, y)
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(residual, y - expected)


@pytest.mark.slow(but_every=5)
@codecs
@dtypes
@given(data=st.data())
def test_nothing_is_lost(text, dtype, data):
    """After several vectors, what was decoded and what is left are the sum of all vectors, to rounding."""
    x = data.draw(hnp.arrays(dtype, st.integers(1, 3000), elements=st.floats(-8, 8, width=32)))
    codec, residual = _codec(text, dtype), np.zeros_like(x)
    total, scale = np.zeros(x.size), 0.0
    for step in range(5):
        total += _through(codec, x, residual, np.uint64(step))
        scale += np.abs(residual).max() + np.abs(x).max()
    bound = 4 * np.finfo(dtype).eps * scale
    np.testing.assert_allclose(total + residual, 5 * x.astype(float), rtol=0, atol=bound)


@pytest.mark.slow(but_every=5)
@codecs
@dtypes
@given(data=st.data())
def test_no_number_and_infinity_stay_visible(text, dtype, data):
    """Wherever they are: what is decoded is not finite."""
    x = data.draw(vectors(dtype, special=True))
    found = _through(_codec(text, dtype), x, np.zeros_like(x))
    assert not np.isfinite(found).all()
    if text in ("fp16", "bf16"):
        np.testing.assert_array_equal(np.isnan(found), np.isnan(x))
        np.testing.assert_array_equal(np.isinf(found), np.isinf(x))


@pytest.mark.slow(but_every=5)
@codecs
@dtypes
@given(data=st.data())
def test_errors_keep_to_their_bounds(text, dtype, data):
    x = data.draw(vectors(dtype))
    error = np.zeros_like(x)
    found = _through(_codec(text, dtype), x, error)
    eps = np.finfo(dtype).eps
    for start in range(0, x.size, 1024):
        part, left = (
            x[start : start + 1024].astype(float),
            error[start : start + 1024].astype(float),
        )
        largest, size = np.abs(part).max(), np.abs(part)
        if text in LEVELS:  # a level, or what is too small for a scale
            bound = largest / LEVELS[text] * (1 + 8 * eps) + 127 * np.finfo(dtype).tiny
            assert (np.abs(left) <= bound).all()
        elif text == "fp16":
            inside = size <= 65504
            bound = np.maximum(size * 2.0**-11, 2.0**-25) * (1 + 2.0**-12)
            assert (np.abs(left) <= bound)[inside].all()
            assert (np.abs(found[start : start + 1024]) <= 65504).all()
        elif text == "bf16":
            inside = size <= 3.38e38
            assert (np.abs(left) <= size * 2.0**-8 * (1 + 2.0**-12) + 1e-40)[inside].all()
        elif (
            text == "sign" and largest < 1e18
        ):  # the squares of larger ones are infinite in float32
            # Of all scales the mean has the least error: n mean^2 less than the vector's own.
            assert (left**2).sum() <= (part**2).sum() * (1 + 64 * eps)
    if text == "topk:0.1":
        assert (np.abs(error) <= np.abs(found[found != 0]).min(initial=np.inf)).all()


@kernel("void(f4[::1], u2[::1], u2[::1])")
def _to_fp16_both_ways(numbers, at_once, by_words):
    for i in range(numbers.size):
        at_once[i], by_words[i] = to_fp16(numbers[i]), to_fp16_by_words(numbers[i])


@kernel("void(u2[::1], f4[::1], f4[::1])")
def _from_fp16_both_ways(codes, at_once, by_words):
    for i in range(codes.size):
        at_once[i], by_words[i] = from_fp16(codes[i]), from_fp16_by_words(codes[i])


_OTHER_PROCESSOR = """
import platform
import numpy as np
from lepton_mpi.collectives.compressing.half_kernels import CONVERTS_FP16, from_fp16, to_fp16
from lepton_mpi.kernels.compiling import kernel
from lepton_mpi.kernels.tile_kernels import ROWS

@kernel("void(f4[::1], u2[::1], f4[::1])")
def both_ways(numbers, codes, back):
    for i in range(numbers.size):
        codes[i] = to_fp16(numbers[i])
        back[i] = from_fp16(codes[i])

numbers = np.array([1, -2.5, 65504, 1e-7, 0.1], np.float32)
codes, back = np.zeros(5, np.uint16), np.zeros(5, np.float32)
both_ways(numbers, codes, back)
assert (codes == numbers.astype(np.float16).view(np.uint16)).all()
assert (back == numbers.astype(np.float16)).all()
print(CONVERTS_FP16 and platform.machine() == "x86_64", ROWS)
"""


@pytest.mark.slow(but_every=2)
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"NUMBA_CPU_NAME": "generic"}, "False 6"),
        ({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+sse4.2,-f16c,-avx512f"}, "False 6"),
    ],
)
def test_kernels_for_another_processor_use_its_instructions(tmp_path, asked, said):
    """As a cluster of several kinds of hosts asks for; the bits stay."""
    program = tmp_path / "program.py"
    program.write_text(_OTHER_PROCESSOR)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)} | asked
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert (done.returncode, done.stdout.strip()) == (0, said), done.stderr


def test_processors_with_and_without_fp16_agree():
    """Of each of the codes, of the floats around each and half way to the next, and of NaN, infinity, 0 of both signs."""
    codes = np.arange(1 << 16, dtype=np.uint16)
    exact = codes.view(np.float16).astype(np.float32)
    at_once, by_words = np.zeros((2, codes.size), np.float32)
    _from_fp16_both_ways(codes, at_once, by_words)
    np.testing.assert_array_equal(at_once, exact)
    np.testing.assert_array_equal(by_words, exact)
    np.testing.assert_array_equal(np.signbit(at_once), np.signbit(by_words))

    finite = exact[np.abs(exact) < 65504]
    next_ones = np.nextafter(finite.astype(np.float16), np.float16(np.inf)).astype(np.float32)
    half_way = (finite + next_ones) / 2
    around = [np.nextafter(finite, np.float32(side)) for side in (-np.inf, np.inf)]
    special = np.array([np.nan, -np.nan, np.inf, -np.inf, 0, -0.0, 1e-45, -1e-45], np.float32)
    numbers = np.concatenate([exact, half_way, *around, special])
    found, twin = np.zeros((2, numbers.size), np.uint16)
    _to_fp16_both_ways(numbers, found, twin)
    np.testing.assert_array_equal(found, twin)
    known = ~np.isnan(numbers)
    np.testing.assert_array_equal(found[known], numbers[known].astype(np.float16).view(np.uint16))


@dtypes
@pytest.mark.parametrize("text", LEVELS)
def test_stochastic_rounding_has_no_bias(text, dtype):
    """The mean over 4096 keys is the number, within 6 standard deviations of a level; on every call the same bits."""
    x = np.linspace(-1, 1, 64).astype(dtype)
    codec, runs = _codec(text, dtype), 4096
    total = np.zeros(x.size)
    for run in range(runs):
        total += _through(codec, x, np.zeros_like(x), np.uint64(run))
    bound = 6 * 0.5 / LEVELS[text] / np.sqrt(runs)
    np.testing.assert_allclose(total / runs, x, rtol=0, atol=bound)
    again = [_through(codec, x, np.zeros_like(x), KEY).tobytes() for _ in range(2)]
    assert again[0] == again[1] != _through(codec, x, np.zeros_like(x), np.uint64(0)).tobytes()


@codecs
@dtypes
def test_zeros_cost_no_error(text, dtype):
    residual = np.zeros(2500, dtype)
    assert not _through(_codec(text, dtype), np.zeros(2500, dtype), residual).any()
    assert not residual.any()


@codecs
@dtypes
@given(count=st.integers(0, 5000))
def test_bytes_are_those_of_the_formula(text, dtype, count):
    size = np.dtype(dtype).itemsize
    assert _codec(text, dtype).sent_bytes(count) == BYTES[text](count, size)


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
@dtypes
@given(data=st.data())
@settings(max_examples=30)
def test_the_largest_are_chosen_exactly(dtype, share, data):
    """Also of many equal ones, of which the first are taken."""
    values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 1 + 2.0**-23, 1e-40])
    x = data.draw(hnp.arrays(dtype, st.integers(1, 400), elements=values))
    found = _through(_codec(f"topk:{share}", dtype), x, np.zeros_like(x))
    k = min(x.size, int(np.ceil(np.round(share * x.size, 6))))
    np.testing.assert_array_equal(found, reference_codecs.topk(x, KEY, k))


@dtypes
def test_a_sample_finds_about_the_largest(dtype):
    """Of 200 000 normal numbers at least 60 % of the share is sent, none of which is below two thirds of the exact threshold."""
    x = np.random.default_rng(1).standard_normal(200_000).astype(dtype)
    found = _through(_codec("topk:0.01,sampled", dtype), x, np.zeros_like(x))
    exact = reference_codecs.topk(x, KEY, 2000)
    assert 1200 <= np.count_nonzero(found) <= 2000
    assert np.abs(found[found != 0]).min() >= np.abs(exact[exact != 0]).min() * 2 / 3


def test_random_elements_are_all_chosen_in_turn():
    """Each about as often as any other."""
    x, chosen = np.ones(1000, np.float32), np.zeros(1000)
    codec = _codec("randomk:0.1", np.float32)
    for step in range(2000):
        chosen += _through(codec, x, np.zeros_like(x), np.uint64(step)) != 0
    assert chosen.sum() == 2000 * 100
    assert (np.abs(chosen - 200) < 6 * np.sqrt(200 * 0.9)).all()


# -- options -----------------------------------------------------------------------------------------------


def _setting(text: str) -> Setting:
    layout = Layout({"w": (3, 4)})
    common = None, layout, np.dtype(np.float32), 1, Settings("sgd", lambda step: 1.0)
    return Setting(*common, compress=text)


@pytest.mark.parametrize("name", names.CODECS)
def test_every_codec_is_called_as_it_was_asked_for(name):
    """Also by its name alone, where it has no option."""
    option = {"topk": ":0.01", "randomk": ":0.5", "powersgd": ":2"}.get(name, "")
    found = codec_of(_setting(name + option))
    assert found is None if name == "none" else found.name == name + option


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("topk", "expected topk:SHARE or topk:SHARE,sampled, with a share above 0"),
        ("topk:0", "got topk:0"),
        ("topk:1.5", "got topk:1.5"),
        ("topk:nan", "got topk:nan"),
        ("topk:0.1,often", "expected topk:SHARE"),
        ("randomk:all", "expected randomk:SHARE"),
        ("powersgd", "expected powersgd:RANK, with a rank from 1 to 1024"),
        ("powersgd:0", "got powersgd:0"),
        ("powersgd:2.5", "got powersgd:2.5"),
        ("int8:4", "expected int8 alone, got int8:4"),
        ("none:1", "expected none alone"),
        ("auto:none", "expected auto, or auto: and a codec of vectors"),
        ("auto:powersgd:2", "got auto:powersgd:2"),
        ("int9", "did you mean int"),
    ],
)
def test_wrong_options_are_refused(text, words):
    with pytest.raises(ConfigurationError, match="--compress") as caught:
        codec_of(_setting(text))
    assert words in str(caught.value)


def test_auto_takes_the_codec_where_it_saves_time():
    """By numbers that can be worked out: 1 MB on 2 hosts with one lane each takes 8 ms at 1 Gbit/s, and int8 a quarter."""
    codec, count = _codec("int8", np.float32), 250_000
    slow = Speeds(1e-4, 8e-9, 1 / 10e9, 1 / 20e9, "")
    assert is_faster(slow, codec, count, 2, 1)
    assert not is_faster(replace(slow, encode=1 / 0.1e9), codec, count, 2, 1)
    # Saved: 0.75 of the wire's time, and of 3 hosts 1.0; worked: 1 / 8 + 2 / 40 ns a byte, of 3 hosts 1.33 / 8 + 2 / 40.
    # Equal at 0.234 ns a byte of the wire, and at 0.217.
    for beta, hosts, faster in (
        *((0.26e-9, 2, True), (0.22e-9, 2, False)),
        *((0.24e-9, 3, True), (0.20e-9, 3, False)),
    ):
        speeds = Speeds(0, beta, 1 / 8e9, 1 / 40e9, "")
        assert is_faster(speeds, codec, count, hosts, 1) is faster
    assert not is_faster(slow, _codec("topk:0.6", np.float32), count, 2, 1)


def test_a_codec_of_ones_own(tmp_path):
    """Named by its file."""
    file = tmp_path / "half.py"
    file.write_text("from lepton_mpi.collectives.compressing.half import Fp16\n")
    assert codec_of(_setting(f"{file}:Fp16")).name == "fp16"
