"""Which epoch is the best, by hand; and what the options take."""

import math

import pytest

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.options.config import Config
from lepton_mpi.options.early_stop import EarlyStop
from lepton_mpi.run.best import Best


def _followed(values, is_lower=True, delta=0.0) -> Best:
    best = Best("loss")
    for epoch, value in enumerate(values, 1):
        best = best.after(value, epoch, is_lower, delta)
    return best


@pytest.mark.parametrize(
    ("values", "is_lower", "delta", "epoch", "waited"),
    [
        ([3, 2, 1], True, 0.0, 3, 0),
        ([3, 2, 2], True, 0.0, 2, 1),  # of equal ones the first
        ([1, 2, 3], False, 0.0, 3, 0),
        ([3, 2.9, 2.8, 2.4], True, 0.5, 4, 0),  # small gains add up to one that counts
        ([3, 2.9, 2.8, 2.6], True, 0.5, 4, 3),  # the best, and yet not better enough
        ([math.nan, 2, math.nan], True, 0.0, 2, 1),
        ([math.nan, math.nan], True, 0.0, 0, 2),
        ([], True, 0.0, 0, 0),
    ],
)
def test_the_best_of_some_epochs(values, is_lower, delta, epoch, waited):
    """The value is the best of all; waiting counts from the last gain above the delta."""
    best = _followed(values, is_lower, delta)
    assert (best.epoch, best.waited) == (epoch, waited)
    if epoch:
        assert best.value == values[epoch - 1]


def test_it_goes_through_a_checkpoint():
    """NaN included."""
    for best in (Best("loss"), _followed([3, 2, 2.5])):
        read = Best.of(best.attribute(), None)
        assert str(read) == str(best)
    assert Best.of({}, None) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"score": 1}', '{"score": "loss", "epoch": "1"}']
)
def test_an_attribute_of_anybody_is_refused(text):
    """In one line."""
    with pytest.raises(DataError, match="attribute best"):
        Best.of({"best": text}, None)


def test_what_early_stop_takes():
    """A text, a number or two; anything else is refused with an example."""
    assert EarlyStop.of("5") == (5, 0.0)
    assert EarlyStop.of("5,0.001") == (5, 0.001)
    for value in (5, "5", (5, 0.001), "5,0.001", [5, 0]):
        assert EarlyStop.of(Config(early_stop=value).early_stop).epochs == 5
    for value in ("0", "x", "5,", "5,-1", "5,inf", "5,1,2", 0, True, 1.5):
        with pytest.raises(ConfigurationError, match="--early-stop: expected a number of epochs"):
            Config(early_stop=value)


def test_options_that_need_another():
    """Each says which."""
    with pytest.raises(ConfigurationError, match=r"--keep-best.*--checkpoint"):
        Config(keep_best="loss").check_together()
    with pytest.raises(ConfigurationError, match=r"--restore-best.*--keep-best auto"):
        Config(restore_best=True, checkpoint="runs").check_together()


def test_the_rate_falls_as_torch_has_it():
    """ReduceLROnPlateau(patience=2, factor=0.5, threshold=0), whose rates after each epoch these are."""
    values = [5, 4, 4.5, 4.5, 4.5, 4.5, 4.5, 4.5, 3, 3, 3, 3]
    expected = [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.125]
    best, parts = Best("loss"), []
    for epoch, value in enumerate(values, 1):
        best = best.after(value, epoch, True, 0.0).reduced(2, 0.5)
        parts.append(best.part)
    assert parts == expected
