"""What ``benchmarks/saves.py`` decides without ranks: numbers of parameters, and which rows are no good."""

import argparse

import pytest

from benchmarks.saves import count_of, find_problems

_ROW = {
    "parameters": 10**8,
    "ranks": 2,
    "way": "async",
    "bytes": 12 * 10**8,
    "ratio": 1.1,
    "wrong": 0,
}


@pytest.mark.parametrize(
    ("text", "count"), [("100M", 10**8), ("5k", 5000), ("7", 7), ("1G", 10**9)]
)
def test_numbers(text, count):
    assert count_of(text) == count


@pytest.mark.parametrize("text", ["", "M", "1.5M", "-3", "0", "many"])
def test_other_texts_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number such as 5000 or 100M"):
        count_of(text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"ratio": 1.3}, ["pause of at most 1.2 copies, got 1.30"]),
        ({"ratio": float("nan")}, ["pause of at most 1.2 copies, got nan"]),
        ({"ratio": 9.0, "way": "at once"}, []),
        ({"ratio": 9.0, "bytes": 10**6}, []),
        ({"wrong": 2}, ["2 vectors of the file differ"]),
    ],
)
def test_what_is_a_problem(change, said):
    """A pause longer than promised, of a size that counts; any other bit."""
    found = list(find_problems([_ROW | change]))
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))
