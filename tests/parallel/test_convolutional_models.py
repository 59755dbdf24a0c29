"""Convolutional models end with the same bits on any number of ranks, running statistics among them."""

import numpy as np
import pytest

from lepton_mpi.options.config import Config
from lepton_mpi.run.fit import train
from tests.parallel.together import together

_AUGMENTED = {"augment": ("crop=1", "noise=0.05"), "learning_rate": 0.01, "epochs": 1}
# Options, and the digest of the weights on any number of ranks.
_CASES = [
    ({"model": "cnn", "dropout": 0.3}, "ea749389c8de63fc759fd63568c3a5fd"),
    ({"model": "resnet8"}, "f9f506c05a07d9696e747e56c94e6260"),
    ({"model": "resnet8", "own": {"model": {"norm": "group"}}, "micro_batch": 5}, "4e4271ce77e1439081087d597556865f"),
    ({"model": "resnet18", "own": {"model": {"width": 4}}, "global_batch": 200, "clip_norm": 1.0}, "732ef9aefa23cae2304396fd8b6f4354"),
    ({"model": "resnet8", "activations": "bfloat16"}, "a2b8727f7e0c83b8b43c5cbf7b4dfe37"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "digest"), _CASES, ids=lambda v: str(v)[:60])
def test_weights_have_the_same_bits_on_any_number_of_ranks(world, options, digest):
    """On as many as there are, with dropout and augmentation."""
    config = Config(data=("digits",), progress="none", **_AUGMENTED, **options)
    result = train(config, world)
    with together(world):
        assert result["weights_digest"] == digest


@pytest.mark.parametrize("activations", ["dtype", "bfloat16"])
def test_the_recipe_learns_the_digits(world, activations):
    """A tenth of it, with rounded activations, too; the running statistics have left where they began."""
    config = Config(
        data=("digits",),
        model="resnet8",
        learning_rate=0.005,
        epochs=4,
        progress="none",
        activations=activations,
    )
    result = train(config, world)
    moved = [a for name, a in result["parameters"].items() if name.endswith("running_mean")]
    with together(world):
        assert result["test_accuracy"] > 0.95
        assert all(np.abs(a).max() > 0.01 for a in moved) and len(moved) == 9
