"""``--recompute``: every network that options make computes the same bits in less memory."""

import re

import numpy as np
import pytest

from lepton_mpi.options.config import OPTIONS
from tests.serial.built_networks import MODELS, network_of, step_of

# Long enough, in equal parts, that what is kept of one in so many of them is less than all of it.
SMALLER = {"gpt": 1, "tcn": 1, "resnet20": 2, "resnet32": 3}


def _step(name: str, recompute: int, frozen: tuple[str, ...] = ()) -> tuple[bytes, list[str]]:
    """Bits of loss and gradient, and what was planned."""
    network, facts = network_of(name, recompute=recompute)
    network.freeze(frozen)
    sums, gradient = step_of(network, facts)
    lines = network.memory_lines(256, np.dtype(np.float32))
    return repr(sums).encode() + gradient.tobytes(), lines


def _arena_mib(lines: list[str]) -> float:
    size, unit = re.search(r"arrays in ([\d.]+) (KiB|MiB)", lines[-1]).groups()
    return float(size) / (1024 if unit == "KiB" else 1)


def test_every_network_has_the_option():
    """Those that the option's help names are the ones that are tested."""
    assert set(OPTIONS["recompute"].of[1:]) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_the_bits_are_the_same(name):
    """And deep networks need less memory, by the plan."""
    whole, kept = _step(name, 0)
    for every in (1, 2, 3):
        again, fewer = _step(name, every)
        assert again == whole
        if SMALLER.get(name) == every:
            assert _arena_mib(fewer) < 0.75 * _arena_mib(kept)


@pytest.mark.parametrize("name", MODELS)
def test_the_bits_are_the_same_where_a_part_is_frozen(name):
    """The first half of the parameters, without their statistics; what is before all that is trained has no backward pass."""
    shapes = list(network_of(name)[0].shapes)
    frozen = tuple(key for key in shapes[: len(shapes) // 2] if "running" not in key)
    whole, _ = _step(name, 0, frozen)
    for every in (1, 2):
        again, _ = _step(name, every, frozen)
        assert again == whole
