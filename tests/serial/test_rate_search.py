"""``--find-learning-rate``: what follows of a curve, and what is refused."""

import math
from itertools import pairwise

import pytest

from lepton_mpi import fit
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config
from lepton_mpi.reporting import rate_page
from lepton_mpi.run.rate_search import RATE_MAX, RATE_MIN, RangeTest, rate_of


def _of(losses: list[float]) -> RangeTest:
    return RangeTest([rate_of(k, len(losses)) for k in range(len(losses))], losses, losses)


def test_rates_rise_by_one_factor():
    rates = [rate_of(k, 100) for k in range(100)]
    assert rates[0] == RATE_MIN and rates[-1] == pytest.approx(RATE_MAX)
    factors = [b / a for a, b in pairwise(rates)]
    assert max(factors) == pytest.approx(min(factors), rel=1e-12)


def test_the_steepest_descent_and_a_tenth_of_the_minimum():
    """A step of the logistic function around place 30, whose slope is largest there; the least value at 49, then it grows."""
    curve = [3 - 2 / (1 + math.exp((30 - k) / 3)) - 0.001 * k for k in range(50)]
    curve += [curve[-1] + 0.1 * k for k in range(1, 31)]
    found = _of(curve)
    assert (found.steepest, found.minimum) == (30, 49)
    record = found.record()
    assert record["learning_rate"] == rate_of(30, 80)
    assert record["tenth_of_minimum"] == rate_of(49, 80) / 10
    assert any("steepest" in line for line in found.lines()) and all(
        len(line) < 80 for line in found.lines()
    )


@pytest.mark.parametrize(
    "losses",
    [[1.0 + 0.01 * k for k in range(40)], [math.nan] * 10, [1.0] * 5, [1.0] * 40],
    ids=["rises", "no number", "short", "flat"],
)
def test_a_loss_that_never_falls_suggests_nothing(losses):
    found = _of(losses)
    assert found.record()["learning_rate"] is found.record()["tenth_of_minimum"] is None
    assert found.lines()
    rate_page.html_of(found.record())


def test_options_that_make_no_sense_together_are_refused():
    for options, said in (
        ({"find_out": "a.json"}, "--find-out: expected --find-learning-rate"),
        ({"find_learning_rate": True, "find_out": "a.png"}, "ends in .json or .html, got a.png"),
        ({"find_learning_rate": True, "resume": "runs"}, "--initial"),
        ({"find_learning_rate": True, "find_steps": 19}, "a whole number of at least 20"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            Config(**options)


def test_the_page_has_the_curve_and_the_suggestion(tmp_path):
    """And writes over no other file."""
    curve = [3 - 2 / (1 + math.exp((30 - k) / 3)) - 0.001 * k for k in range(50)]
    text = rate_page.html_of(_of(curve).record())
    assert text.count("<svg") == 1 and "://" not in text.replace("http://www.w3.org", "")
    assert f"{rate_of(30, 50):.4g}" in text
    path = tmp_path / "a.html"
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="--find-out: expected a new file"):
        rate_page.check(path)


def test_a_program_gets_no_page(tmp_path):
    """The command draws it: a program would look for it in vain."""
    with pytest.raises(ConfigurationError, match=r"expected a file that ends in \.json"):
        fit(raises=True, find_learning_rate=True, find_out=str(tmp_path / "a.html"))
    assert not list(tmp_path.iterdir())
