"""Texts and tables with categories, trained on all ranks: the bits of a training in which no rank occurs."""

import math
from pathlib import Path

import h5py
import numpy as np
import pytest

from lepton_mpi.batch import Input
from lepton_mpi.commands import evaluate
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.options.config import Config
from lepton_mpi.run.fit import train
from tests.parallel.alone import trained_alone
from tests.parallel.together import check, refused, together

OWN = Path(__file__).parents[1] / "own"
BIGRAM, WIDE = f"{OWN}/bigram.py:Bigram", f"{OWN}/wide_table.py:WideTable"
# A token is followed by the next one three times in four, else by any: entropy 1.0 nats of 2.3.
VALUES = 10


def _tokens(count: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    tokens = np.zeros(count, np.uint8)
    for place in range(1, count):
        follows = generator.random() < 0.75
        tokens[place] = (tokens[place - 1] + 1) % VALUES if follows else generator.integers(VALUES)
    return tokens


def _made(world, folder: Path, name: str, write) -> str:
    with world.agreeing():
        if world.rank == 0:
            with h5py.File(folder / name, "w") as file:
                write(file)
    return str(folder / name)


@pytest.fixture
def text(world, folder):
    """1003 tokens to train on, in three documents, so that steps have different weights."""

    def write(file: h5py.File) -> None:
        for split, count, seed in (("train", 1003, 0), ("validation", 120, 1), ("test", 150, 2)):
            file[f"{split}/tokens"] = _tokens(count, seed)
            file[f"{split}/tokens"].attrs.update({"values": VALUES, "context": 8})
        file["train/document_starts"] = [0, 301, 302]
        file["vocabulary/bytes"] = np.arange(48, 58, dtype=np.uint8)
        file["vocabulary/ends"] = np.arange(1, 11)

    return _made(world, folder, "text.h5", write)


def _config(data: str, **options) -> Config:
    base = {"data": data, "epochs": 3, "progress": "none", "learning_rate": 0.1, "global_batch": 24}
    return Config(**{"model": BIGRAM, "micro_batch": 5, **base, **options})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"global_batch": 7, "micro_batch": 1},
        {"context": 50, "stride": 20, "global_batch": 6, "micro_batch": 2},
        {"optimizer": "sgd", "learning_rate": 1.0, "dtype": "float64", "clip_norm": 0.01},
        {"global_batch": 1000, "micro_batch": 300},
    ],
    ids=["default", "one row", "overlapping", "clipped", "one step"],
)
def test_a_text_has_the_bits_of_a_training_without_ranks(world, text, options):
    """The gradient of a step is divided by the tokens that count, whatever ranks they are on."""
    config = _config(text, **options)
    digest = train(config, world)["weights_digest"]
    with together(world):
        assert digest == trained_alone(config)


@pytest.mark.parametrize("order", ["full", "blocks"])
def test_a_text_on_every_way(world, text, order):
    """In memory, mapped and, in blocks, streamed: the same weights and figures."""
    ways = ("memory", "mapped") if order == "full" else ("memory", "mapped", "streamed")
    options = {"shuffle": order, "shuffle_buffer": 600}
    results = [train(_config(text, loader=way, **options), world) for way in ways]
    with together(world):
        assert len({result["weights_digest"] for result in results}) == 1
        assert len({result["test_loss"] for result in results}) == 1


def test_figures_of_a_text(world, text):
    """They are those of NumPy on all tokens that count, and the model learns what there is to learn."""
    result = train(_config(text, epochs=8), world)
    with together(world):
        table = result["parameters"]["table"].astype(np.float64)
        with h5py.File(text) as file:
            tokens = file["test/tokens"][()].astype(int)
        log_p = table - np.log(np.exp(table).sum(axis=1, keepdims=True))
        nats = -log_p[tokens[:-1], tokens[1:]].mean()
        assert result["test_loss"] == pytest.approx(nats, rel=1e-5)
        assert result["test_perplexity"] == pytest.approx(math.exp(nats), rel=1e-5)
        assert result["test_bits_per_byte"] == pytest.approx(nats / math.log(2), rel=1e-5)
        right = (table.argmax(axis=1)[tokens[:-1]] == tokens[1:]).mean()
        assert result["test_accuracy"] == pytest.approx(right) and right > 0.6
        assert nats < 1.5


def test_the_line_of_an_epoch(world, text, capsys):
    """Says nats and perplexity, for training and validation; the end says bits per byte."""
    capsys.readouterr()
    train(_config(text, epochs=1, progress="plain"), world)
    said = capsys.readouterr().out
    with together(world):
        if world.rank == 0:
            assert (
                "1003 train" not in said
                and "126 train, 15 validation, 19 test rows of 8 tokens" in said
            )
            (line,) = [line for line in said.splitlines() if line.startswith("epoch")]
            for word in ("loss", "perplexity", "accuracy", "val_loss", "val_perplexity"):
                assert f" {word} " in line
            assert " nats per token, " in said and " bits per byte, " in said


@pytest.mark.slow
def test_a_resumed_text_ends_like_one_that_never_stopped(world, text, folder):
    """From the middle of an epoch; and on another text of the same length it does not go on."""
    config = _config(text, checkpoint=str(folder / "runs"), checkpoint_steps=4, epochs=2)
    whole = train(config, world)["weights_digest"]
    first = train(
        _config(text, checkpoint=str(folder / "first"), checkpoint_steps=4, epochs=1), world
    )
    middle = sorted((folder / "first").glob("*.h5"))[0]
    rest = train(_config(text, resume=str(middle), epochs=2), world)
    check(world, rest["weights_digest"] == whole and first["weights_digest"] != whole)

    def write(file: h5py.File) -> None:
        with h5py.File(text) as before:
            for split in ("train", "validation", "test"):
                before.copy(split, file)
            before.copy("vocabulary", file)
        file["train/tokens"][5] = (file["train/tokens"][5] + 1) % VALUES

    other = _made(world, folder, "other.h5", write)
    with refused(
        world, DataError, "expected the rows in the order in which training began", "y_digest"
    ):
        train(_config(other, resume=str(middle), epochs=2), world)


def test_a_checkpoint_of_a_text_is_evaluated(world, text, folder, capsys):
    result = train(_config(text, checkpoint=str(folder / "runs")), world)
    path = Path(world.comm.bcast(result["checkpoint"]))
    capsys.readouterr()
    evaluate.evaluate_checkpoint(path, None, "test", world, BIGRAM)
    printed = capsys.readouterr().out
    with together(world):
        expected = f"test of text.h5: loss {result['test_loss']:.4f} nats per token, "
        assert printed.startswith(expected) == (world.rank == 0)


def test_a_text_needs_a_model_of_tokens(world, text):
    with refused(world, ConfigurationError, "--model mlp: expected rows", "got tokens"):
        train(_config(text, model="mlp"), world)


# -- tables with categories ----------------------------------------------------------------------------


@pytest.fixture
def cars(world, folder):
    """230 rows of two numbers and two categories, of which the class is a function."""

    def write(file: h5py.File) -> None:
        generator = np.random.default_rng(3)
        x, y = generator.standard_normal((230, 2)).astype(np.float32), None
        codes = np.stack([generator.integers(0, 3, 230), generator.integers(0, 4, 230)], axis=1)
        y = (x[:, 0] + (codes[:, 0] == 1) - (codes[:, 1] == 2) > 0).astype(np.int32)
        for split, rows in (("train", slice(0, 180)), ("test", slice(180, 230))):
            file[f"{split}/x"], file[f"{split}/y"] = x[rows], y[rows]
            file[f"{split}/inputs/categories"] = codes[rows].astype(np.uint8)
            file[f"{split}/inputs/categories"].attrs.update(
                {"kind": "categories", "values": [3, 4]}
            )

    return _made(world, folder, "cars.h5", write)


@pytest.mark.parametrize("way", ["memory", "mapped"])
def test_a_table_has_the_bits_of_a_training_without_ranks(world, cars, way):
    config = _config(cars, model=WIDE, loader=way, epochs=8)
    result = train(config, world)
    with together(world):
        assert result["weights_digest"] == trained_alone(config)
        assert result["test_accuracy"] > 0.85


def test_categories_are_not_passed_over(world, cars):
    """A model that reads x alone is refused before the first step, with the way on where that is its file's matter."""
    with refused(world, ConfigurationError, "--model mlp: expected rows", "got x, categories"):
        train(_config(cars, model="mlp"), world)

    words = "reads x: expected data with no other inputs, got also categories", "--categories codes"
    with refused(world, ConfigurationError, "model OfNumbers", *words):
        train(_config(cars), world, OfNumbers())


class OfNumbers:
    """Never called."""

    def __init__(self) -> None:
        self.shapes, self.inputs = {"w": (2, 2)}, {"x": Input("numbers", (2,))}

    def loss_and_gradient(self, parameters, batch, gradient):
        """Nothing."""
        raise AssertionError("was called")
