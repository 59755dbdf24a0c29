"""Weights keep their bits from one version to the next, on any number of ranks; so do runs that an older version began.

The digests are those of version 4741872; a change that means to change bits says so and writes down new ones. So have two:
a schedule's first step behind the warm-up has the peak, as in torch, and not the second rate (``optimizers/learning_rate.py``);
and an order of blocks begins with any row, so that few blocks are no fixed order (``data/order.py``). Runs that an older
version began keep the rules of their time: the last test has such runs, with a schedule each, a logistic regression whose weight
decays no more than it did, and blocks.
"""

from pathlib import Path

import pytest

from lepton_mpi.options.config import Config
from lepton_mpi.run import checkpoint, checkpoint_folder
from lepton_mpi.run.fit import train
from tests.parallel.together import together

_CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
_DIGITS = {"epochs": 2, "learning_rate": 0.003}
_CASES = [
    ({"optimizer": "adamw", "weight_decay": 0.01}, "4af598412c505d2bb040028cb47b5dd9"),
    ({"optimizer": "sgd", "weight_decay": 0.01}, "2a3863ba6ef70b7fc38b3304ac14bf5f"),
    ({"optimizer": "nesterov", "weight_decay": 0.01}, "b83a435fca818cd61ecd86a0fbb1de79"),
    ({"optimizer": "lion", "weight_decay": 0.01}, "b2fce89576fd87df5bc1e7d65c200d34"),
    ({"optimizer": "adagrad", "weight_decay": 0.01}, "e7404afc966462f56ec5bab07158ec4e"),
    ({"optimizer": "rmsprop", "weight_decay": 0.01}, "7d6cbc464003f2f900af756dc5f46320"),
    ({"dtype": "float64"}, "b7e5f8f59a688bef7e1ae19b595cf3b0"),
    ({"hidden": (32, 16), "activation": "gelu", "dropout": 0.3}, "ecaca9421a3629696140fdfcb11b3299"),
    ({"activation": "tanh", "clip_norm": 0.5}, "4a1e720de2c87b1bf4aa6bd5d6e722b2"),
    (
        {"activation": "silu", "clip_value": 0.01, "schedule": "cosine", "warmup_epochs": 1},
        "49592554112b781deb3c709272425097",
    ),
    (
        {"hidden": (), "shuffle": "blocks", "loader": "streamed", "shuffle_buffer": 20000},
        "be7ed830e8e652076a6227b6643937a6",
    ),
    ({"augment": ("flip", "crop=1", "noise=0.05"), "dropout": 0.2}, "0e311711741870147546c62c1e66cde0"),
    ({"loss": "mse"}, "1ff8fabfe3d329235ee87a80565f9af7"),
    ({"loss": "huber", "activation": "sigmoid", "hidden": (16,)}, "84ae3e894ec87afbd8efef148de5e228"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "digest"),
    _CASES,
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_options_give_the_weights_that_they_gave(world, options, digest):
    """On as many ranks as there are."""
    result = train(Config(**_DIGITS | options, progress="none"), world)
    with together(world):
        assert result["weights_digest"] == digest


@pytest.mark.parametrize(
    ("options", "digest"),
    [
        ({"data": ("digits",), **_DIGITS, "epochs": 30}, "0946d91ca1d25687689c80a4dd994e09"),
        (
            {"data": ("breast_cancer",), "model": "logistic", "learning_rate": 0.003, "global_batch": 32, "epochs": 20},
            "72a106b06ac7896551ceb83cfcee2a45",
        ),
    ],
    ids=["digits", "breast_cancer"],
)  # fmt: skip
def test_recipes_give_the_weights_that_they_gave(world, options, digest):
    """To the end."""
    result = train(Config(**options, progress="none"), world)
    with together(world):
        assert result["weights_digest"] == digest


@pytest.mark.parametrize(
    ("file", "options", "digest"),
    [
        (
            "breast_cancer-step-21.h5",
            {"data": ("breast_cancer",), "model": "logistic", "learning_rate": 0.003, "global_batch": 32},
            "5d473aeaabb340bd77a68d8953bfc7e6",
        ),
        (
            "digits-step-35.h5",
            {**_DIGITS, "hidden": (8,), "dropout": 0.25, "augment": ("noise=0.1",)},
            "b2e791590780582951a65bb8985f4f56",
        ),
        # These two were begun and ended by version 88f08ed.
        (
            "breast_cancer-decay-step-20.h5",
            {
                **{"data": ("breast_cancer",), "model": "logistic", "learning_rate": 0.03, "global_batch": 32},
                **{"optimizer": "adamw", "weight_decay": 0.05},
                **{"schedule": "step", "schedule_epochs": 1, "schedule_factor": 0.5},
            },
            "34c12c1ecd99e803850b25cfb3712689",
        ),
        (
            "digits-blocks-step-24.h5",
            {
                **_DIGITS, "hidden": (8,), "schedule": "cosine", "warmup_epochs": 1,
                **{"shuffle": "blocks", "loader": "streamed", "shuffle_buffer": 20000},
            },
            "ee73151efc828c88bc14c7fc009c253f",
        ),
    ],
)  # fmt: skip
def test_a_run_of_an_older_version_goes_on(world, folder, file, options, digest):
    """From the middle of its second epoch to the end of the third, as that version went on; and so from what it writes there."""
    options = {**options, "epochs": 3, "progress": "none"}
    config = Config(**options, resume=str(_CHECKPOINTS / file), checkpoint=str(folder))
    result = train(config, world)
    with together(world):
        assert result["weights_digest"] == digest
        _, second = checkpoint_folder.newest_first(folder)
        assert checkpoint.read_attributes(second)[0]["arithmetic"] == 1
    again = train(Config(**options, resume=str(second)), world)
    with together(world):
        assert again["weights_digest"] == digest
