"""How many epochs follow from the rows, where nobody has chosen them."""

import itertools

import pytest

from lepton_mpi.options.config import Config
from lepton_mpi.run.defaults import epochs_for, settle


def test_the_rule():
    """400 / rows^(1/4) between its limits: fewer epochs and more steps with every row more."""
    assert [epochs_for("mlp", rows) for rows in (10, 256, 4096, 20736, 10**7)] == [
        200,
        100,
        50,
        33,
        30,
    ]
    counts = [2**power for power in range(24)]
    epochs = [epochs_for("logistic", rows) for rows in counts]
    assert epochs == sorted(epochs, reverse=True) and set(epochs) <= set(range(30, 201))
    steps = [e * -(-rows // 64) for e, rows in zip(epochs, counts, strict=True) if rows >= 64]
    assert all(less < more for less, more in itertools.pairwise(steps))


@pytest.mark.parametrize(
    ("options", "is_own", "epochs", "said"),
    [
        ({}, False, 122, "122 epochs for 114 rows (--epochs)"),
        ({"model": "logistic"}, False, 122, "122 epochs for 114 rows (--epochs)"),
        ({"model": "cnn"}, False, 30, "30 epochs (--epochs)"),
        ({}, True, 30, "30 epochs (--epochs)"),
        ({"epochs": 30}, False, 30, ""),
    ],
    ids=str,
)
def test_what_is_chosen_stays_and_the_rule_is_said(options, is_own, epochs, said):
    """Nothing but the epochs becomes another."""
    config = Config(global_batch=7, **options)
    settled, how = settle(config, 114, is_own)
    assert (settled.epoch_count, how) == (epochs, said)
    assert vars(settled) | {"epochs": None} == vars(config) | {"epochs": None}
