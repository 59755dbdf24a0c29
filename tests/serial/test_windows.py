"""Rows that are windows of a text: which tokens, which of them count, how much a row and a step weigh."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_mpi.data import kernels
from lepton_mpi.data.windows import Windows
from tests import reference


def _counted(windows: Windows) -> list[list[int]]:
    """Positions of the next tokens that count, row by row, by a loop over all of them."""
    rows, base = [], 0
    for tokens in windows.token_counts:
        last, seen, natural = base + tokens - 1 - windows.length, 0, base
        while last >= base:
            start = min(natural, last)
            # Only a row that is moved back leaves out what the row before it had.
            skip = seen if start < natural else 0
            positions = range(start + 1, start + windows.length + 1)
            rows.append([p for p in positions if p >= skip and p not in set(windows.documents)])
            seen = start + windows.length + 1
            if start == last:
                break
            natural += windows.stride
        base += tokens
    return rows


texts = st.builds(
    lambda counts, length, stride, seed, documents: Windows(
        tuple(counts),
        length,
        stride,
        np.unique(np.random.default_rng(seed).integers(0, sum(counts) + 1, documents)),
    ),
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(0, 99),
    st.integers(0, 12),
)


@given(texts)
def test_rows_count_what_a_loop_counts(windows):
    """Starts, weights and the number of rows, of any files, lengths, strides and documents."""
    exact = _counted(windows)
    numbers = np.arange(windows.row_count)
    assert len(exact) == windows.row_count == sum(windows.counts)
    starts, skipped = windows.place(numbers)
    assert windows.weights(numbers).tolist() == [len(row) for row in exact]
    for row, start, skip in zip(exact, starts, skipped, strict=True):
        inside = range(start + 1 + skip, start + 1 + windows.length)
        assert row == [p for p in inside if p not in set(windows.documents)]
    ends = np.cumsum(windows.token_counts)
    for start in starts:  # within one file
        assert np.searchsorted(ends, start, "right") == np.searchsorted(
            ends, start + windows.length
        )
    if windows.is_even:
        assert set(windows.weights(numbers)) <= {windows.length}


@given(texts)
def test_without_gaps_every_token_counts_once(windows):
    """With rows that do not overlap, all but the first of a stream, and those with which documents begin."""
    windows = Windows(windows.token_counts, windows.length, windows.length, windows.documents)
    counted = [position for row in _counted(windows) for position in row]
    expected, base = [], 0
    for tokens in windows.token_counts:
        if tokens > windows.length:
            expected += range(base + 1, base + tokens)
        base += tokens
    documents = set(windows.documents.tolist())
    assert counted == [position for position in expected if position not in documents]
    assert windows.weights(np.arange(windows.row_count)).sum() == len(counted)


@pytest.mark.parametrize(
    ("tokens", "length", "starts", "weights"),
    [
        (10, 4, [0, 4, 5], [4, 4, 1]),
        (9, 4, [0, 4], [4, 4]),
        (5, 4, [0], [4]),
        (4, 4, [], []),
        (0, 4, [], []),
        (2, 1, [0], [1]),
        (4, 1, [0, 1, 2], [1, 1, 1]),
    ],
)
def test_windows_at_the_end(tokens, length, starts, weights):
    """The last row is moved back to end with the stream; a stream that is too short has none."""
    windows = Windows((tokens,), length, length)
    numbers = np.arange(windows.row_count)
    assert windows.place(numbers)[0].tolist() == starts
    assert windows.weights(numbers).tolist() == weights
    assert windows.is_even == (len(set(weights)) <= 1)


def test_a_thousand_million_tokens_take_no_list():
    """What is asked for of some rows is computed for them alone."""
    windows = Windows((10**9,), 1024, 1024)
    assert windows.row_count == 976_563
    assert windows.place(np.array([0, 976_562]))[0].tolist() == [0, 10**9 - 1025]
    assert not windows.is_even and windows.weights(np.array([976_562])).tolist() == [511]


@settings(max_examples=60)
@given(
    windows=texts,
    source=st.sampled_from(["u1", "u2", "i4"]),
    seed=st.integers(0, 99),
    wrong=st.booleans(),
)
def test_the_kernel_that_gathers_windows_matches_its_twin(windows, source, seed, wrong):
    """Tokens, next tokens, and -1 where they do not count; a token that there is not is told by its row."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, 200, sum(windows.token_counts)).astype(source)
    rows = windows.row_count
    numbers = generator.integers(0, max(rows, 1), min(rows, 7))
    if wrong and tokens.size:
        tokens[generator.integers(tokens.size)] = -1 if source == "i4" else 200
    starts, skipped = windows.place(numbers)
    filled = []
    for gather in (kernels.gather_windows, reference.gather_windows):
        x, y = (np.full((8, windows.length), -7, np.int32) for _ in range(2))
        row = gather(tokens, starts, starts, skipped, windows.documents, 200, x, y)
        filled.append((row, x, y))
    (mine, x, y), (exact, twin_x, twin_y) = filled
    assert mine == exact
    if exact < 0:
        np.testing.assert_array_equal(x, twin_x)
        np.testing.assert_array_equal(y, twin_y)
        assert (y[: len(numbers)] >= 0).sum() == windows.weights(numbers).sum()
