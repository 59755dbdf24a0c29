"""Texts by a gpt: what is read and drawn, and that a cache changes nothing but the time."""

import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.models import gpt
from lepton_mpi.models.gpt import Gpt, Shape
from lepton_mpi.models.gpt_options import GptOptions
from lepton_mpi.run import generation
from lepton_mpi.vectors import Layout, Views

WORDS = (b"a", b"b", b"ab", b"", "ä".encode(), b"abba")


def _model(**options) -> tuple[Gpt, Views]:
    chosen = {"layers": 2, "width": 12, "heads": 2} | options
    model = Gpt(Shape(8, 7, **chosen))
    layout = Layout(model.shapes)
    views = layout.views(np.empty(layout.size))
    model.initialise(views, 3)
    for array in views.values():
        array *= 5
    return model, views


def test_a_text_becomes_the_longest_tokens_that_fit():
    assert generation.encode("abbaabä".encode(), WORDS) == [5, 2, 4]
    assert generation.encode(b"", WORDS) == []
    with pytest.raises(DataError, match="expected a text of the 5 tokens known, got 'cab'"):
        generation.encode(b"acab", WORDS)


def test_tokens_are_drawn_by_their_probabilities():
    """Shares of many draws; a temperature squares them; all but the likeliest are left out; at 0 nothing is drawn."""
    p = np.array([0.1, 0.6, 0.0, 0.3], np.float32)
    draws = (np.arange(1000) + 0.5) / 1000

    def shares(temperature: float, top: int) -> np.ndarray:
        chosen = [generation.choose(p, temperature, top, draw) for draw in draws]
        return np.bincount(chosen, minlength=4) / 1000

    np.testing.assert_allclose(shares(1, 0), p, atol=2e-3)
    np.testing.assert_allclose(shares(0.5, 0), p**2 / (p**2).sum(), atol=2e-3)
    np.testing.assert_allclose(shares(1, 2), [0, 2 / 3, 0, 1 / 3], atol=2e-3)
    np.testing.assert_array_equal(shares(0, 0), [0, 1, 0, 0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"positions": "rotary", "shared_heads": 1}], ids=["learned", "rotary"]
)
def test_a_cache_gives_the_probabilities_of_the_whole_text(options):
    """Of as much of it as is kept: the context is 8, and its last half begins the next one."""
    model, parameters = _model(**options)
    writer, tokens = generation.Writer(model, parameters), [1, 5, 0, 3, 3, 2, 6, 1, 4, 0]
    for count, token in enumerate(tokens, 1):
        writer.read(token)
        first = 0 if count <= 8 else 4
        x = np.array([tokens[first:count]], np.int32)
        whole, expected = Gpt(model.shape, x.shape[1]), np.empty((1, 7))
        whole.predict(parameters, Batch(x, np.zeros_like(x)), expected)
        np.testing.assert_allclose(writer.probabilities(), expected[0], rtol=1e-10)


def test_a_text_is_a_function_of_prompt_and_seed():
    model, parameters = _model()

    def text(seed: int, temperature: float = 1.0) -> list[int]:
        writer = generation.Writer(model, parameters)
        return list(generation.generate(writer, [1, 2], 30, temperature, 0, seed))

    assert text(1) == text(1) != text(2)
    assert text(1, 0) == text(2, 0)


def test_initial_weights_are_those_of_gpt_2():
    """Normal, of deviation 0.02 and for the two layers of each block that end in the sum 0.02 / 2; the same for a seed."""
    model = Gpt(Shape(64, 300, 2, 96, 4))
    layout = Layout(model.shapes)
    vectors = [np.empty(layout.size) for _ in range(3)]
    for vector, seed in zip(vectors, (1, 1, 2), strict=True):
        model.initialise(layout.views(vector), seed)
    assert (vectors[0] == vectors[1]).all() and (vectors[0] != vectors[2]).any()
    for name, array in layout.views(vectors[0]).items():
        if array.ndim == 1:
            assert (array == (0 if name.endswith("bias") else 1)).all(), name
            continue
        deviation = 0.01 if name.endswith("out/weight") else 0.02
        assert array.std() == pytest.approx(deviation, rel=0.05), name
        assert abs(array.mean()) < 4 * deviation / array.size**0.5, name
        # As many beyond two deviations as a normal distribution has.
        assert (abs(array) > 2 * deviation).mean() == pytest.approx(0.0455, abs=0.01), name


def test_options_and_data_that_do_not_fit_are_refused():
    for options, message in (
        ({"width": 10}, "--heads: expected a divisor of --width 10, got 4"),
        ({"shared_heads": 3}, "--shared-heads: expected a divisor of --heads 4, got 3"),
        ({"width": 12, "positions": "rotary"}, "--positions rotary: expected heads of an even"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            GptOptions(**options)

    class Data:
        inputs, class_count = {"x": Input("numbers", (4,))}, 3
        outputs_text = "3 classes"

    with pytest.raises(ConfigurationError, match="expected a text in one piece, of tokens, got x"):
        gpt.build({}, Data())
