"""Speech models end with the same bits on any number of ranks, and learn the embedded words."""

import pytest

from lepton_mpi.options.config import Config
from lepton_mpi.run.fit import train
from tests.parallel.together import together

_AUGMENTED = {"augment": ("crop=1", "noise=0.1"), "learning_rate": 0.01, "epochs": 1}
_CNN = {"model": {"width": 8, "blocks": 2}}
_GRU = {"model": {"width": 20, "layers": 2, "bidirectional": True}}
# Options, and the digest of the weights on any number of ranks.
_CASES = [
    ({"model": "speech_cnn", "own": _CNN, "dropout": 0.3}, "80e88ac54a4e107a0dae97f72a66347c"),
    ({"model": "speech_gru", "own": _GRU, "dropout": 0.3}, "743aef8b3936e99490022041c516ec1b"),
    ({"model": "speech_gru", "own": {"model": {"pooling": "last"}}, "micro_batch": 5, "clip_norm": 1.0}, "e05a85eef2015721c73f3735106bd038"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "digest"), _CASES, ids=lambda v: str(v)[:60])
def test_weights_have_the_same_bits_on_any_number_of_ranks(world, options, digest):
    """On as many as there are, with dropout and augmentation."""
    config = Config(data=("words",), progress="none", **_AUGMENTED, **options)
    result = train(config, world)
    with together(world):
        assert result["weights_digest"] == digest


def test_the_words_are_learned(world):
    """A fifth of the recipe: most of them, which is more than a linear model gets."""
    own = {"model": {"width": 48, "bidirectional": True}}
    config = Config(
        data=("words",), model="speech_gru", own=own, learning_rate=0.01, epochs=8, progress="none"
    )
    result = train(config, world)
    with together(world):
        assert result["test_accuracy"] > 0.8
