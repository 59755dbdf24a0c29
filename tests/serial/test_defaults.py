"""Which options follow from the data, where nobody has chosen them."""

import itertools

import pytest

from lepton_mpi.options import sources
from lepton_mpi.options.by_rule import EARLIER
from lepton_mpi.options.config import OPTIONS, Config
from lepton_mpi.run.defaults import Facts, epochs_for, rule, settle, with_earlier

_TABLE = Facts(114, 4, 3, "3 classes")


def test_the_rule():
    """400 / rows^(1/4) between its limits: fewer epochs and more steps with every row more."""
    assert [epochs_for(rows) for rows in (10, 256, 4096, 20736, 10**7)] == [200, 100, 50, 33, 30]
    counts = [2**power for power in range(24)]
    epochs = [epochs_for(rows) for rows in counts]
    assert epochs == sorted(epochs, reverse=True) and set(epochs) <= set(range(30, 201))
    steps = [e * -(-rows // 64) for e, rows in zip(epochs, counts, strict=True) if rows >= 64]
    assert all(less < more for less, more in itertools.pairwise(steps))


def test_small_tables_and_many_classes():
    """What does not fall under them has what earlier versions took."""
    for facts, expected in (
        (Facts(199, 4, 3, ""), {"global_batch": 32}),
        (Facts(200, 4, 3, ""), {}),
        (Facts(5000, 4, 0, ""), {}),
        (Facts(5000, 4, 64, ""), {}),
        (Facts(5000, 4, 100, ""), {"hidden": (256,)}),
        (Facts(5000, 4, 3000, ""), {"hidden": (1024,)}),
    ):
        assert rule(facts) == {**EARLIER, "epochs": epochs_for(facts.rows), **expected}


@pytest.mark.parametrize("model", ["mlp", "logistic"])
def test_the_head_names_each_option_that_was_derived(model):
    """As it would be typed; logistic has no widths to speak of."""
    settled, derived = settle(Config(model=model), _TABLE, False)
    expected = rule(_TABLE)
    assert {name: getattr(settled, name) for name in EARLIER} == expected
    shown = "--hidden 128 " if model == "mlp" else ""
    assert str(derived) == (
        f"{shown}--epochs 122 --global-batch 32 --learning-rate 0.001, by rule from 114 rows, 4 features, 3 classes; "
        "an option that is given counts instead"
    )


def test_what_is_chosen_stays():
    """Each alone, and all of them, of which nothing is said."""
    chosen = {"hidden": (), "epochs": 3, "global_batch": 7, "learning_rate": 0.5}
    for name, value in chosen.items():
        config = Config(**{name: value})
        settled, derived = settle(config, _TABLE, False)
        assert getattr(settled, name) == value and set(derived.values) == EARLIER.keys() - {name}
    config = Config(**chosen)
    settled, derived = settle(config, _TABLE, False)
    assert settled == config and not derived.values


@pytest.mark.parametrize(("model", "is_own"), [("cnn", False), ("gpt", False), ("mlp", True)])
def test_other_models_keep_what_earlier_versions_took(model, is_own):
    settled, derived = settle(Config(model=model), _TABLE, is_own)
    assert {name: getattr(settled, name) for name in EARLIER} == EARLIER
    assert derived.values == {name: v for name, v in EARLIER.items() if name != "hidden"}
    assert "for any data" in str(derived)


def test_a_checkpoint_without_a_value_is_of_an_earlier_version():
    assert with_earlier(Config(epochs=7)) == Config(**{**EARLIER, "epochs": 7})


@pytest.mark.parametrize("name", sorted(EARLIER))
def test_auto_is_a_value_that_can_be_typed(name):
    """On the command line, where it takes back what a file says, and in a program."""
    option = OPTIONS[name]
    assert option.shown_default() == "auto"
    chosen = sources.from_command_line(["--data", "x", option.flag, "8", option.flag, "auto"])
    assert getattr(chosen.config, name) is None
    for value in (None, "auto"):
        assert getattr(sources.from_program({"data": "x", name: value}).config, name) is None
