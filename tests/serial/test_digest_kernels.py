"""The digest that adds up: against its twin, and that no single bit is lost."""

import numpy as np
import pytest

from lepton_mpi.kernels.digest_kernels import digest_of_words
from tests import reference


@pytest.mark.parametrize("count", [0, 1, 2, 31, 64, 1003])
@pytest.mark.parametrize("first", [0, 7, 2**33 + 5])
def test_digest_matches_its_twin_and_adds_up(count, first):
    """Of all, and of two parts."""
    words = np.random.default_rng(count).integers(0, 2**32, count).astype(np.uint32)
    whole = int(digest_of_words(words, first))
    assert whole == reference.digest_of_words(words, first)
    cut = count // 3
    parts = digest_of_words(words[:cut], first), digest_of_words(words[cut:], first + cut)
    assert whole == sum(map(int, parts)) % 2**64


def test_every_flip_changes_it():
    """All bits of some words, those of large multipliers, too."""
    words = np.random.default_rng(1).integers(0, 2**32, 97).astype(np.uint32)
    before = digest_of_words(words, 3)
    for place in range(words.size):
        for bit in range(32):
            words[place] ^= np.uint32(1 << bit)
            assert digest_of_words(words, 3) != before
            words[place] ^= np.uint32(1 << bit)
