"""Each position of a row has a next token: loss in nats per token, perplexity, bits per byte, accuracy.

A token whose ``y`` is negative does not count: its loss is 0, its gradient is 0, and it is in no mean. Such are the first
token of a document, which does not follow from the one before, and what another window had already.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.data.dataset import DataSet
from lepton_mpi.tasks.task import Better, Figures, listed

# Perplexities and losses beyond this are infinite for all that a reader wants to know, and no error.
_NATS_MAX = 700.0


class Tokens:
    """See ``Task``. Sums are int64 (2,): tokens predicted correctly, and the bytes of all that count.

    Parameters
    ----------
    length : int
        Tokens of a row.
    byte_counts : int64, shape (values,), or None
        Bytes of the text that each token stands for; None where the data do not say.
    texts : tuple of str, length values
        Tokens as they are shown.
    dtype : np.dtype
        Of a model's probabilities.
    """

    name, score = "tokens", "loss"
    better: Mapping[str, Better] = {
        **dict.fromkeys(("loss", "perplexity", "bits_per_byte"), "lower"),
        "accuracy": "higher",
    }

    def __init__(
        self, length: int, byte_counts: np.ndarray | None, texts: tuple[str, ...], dtype: np.dtype
    ) -> None:
        self._length, self._byte_counts, self._texts, self._dtype = (
            length,
            byte_counts,
            texts,
            dtype,
        )

    def weight(self, batch: Batch) -> int:
        """Tokens that count."""
        return int(np.count_nonzero(batch.y >= 0))

    def room_for(self, rows: int) -> np.ndarray:
        """The likeliest token at every position, int32 (rows, length)."""
        return np.empty((rows, self._length), np.int32)

    def new_sums(self) -> np.ndarray:
        """int64 (2,)."""
        return np.zeros(2, np.int64)

    def add(self, sums: np.ndarray, batch: Batch, predicted: np.ndarray) -> None:
        """Count a batch."""
        counts = batch.y >= 0
        wanted = batch.y[counts]
        sums[0] += np.count_nonzero(predicted[counts] == wanted)
        if self._byte_counts is not None:
            sums[1] += self._byte_counts[wanted].sum()

    def figures(self, sums: np.ndarray, loss: float, weight: int) -> Figures:
        """``loss`` in nats per token, ``perplexity``, ``accuracy``; ``bits_per_byte`` if bytes are known, else None."""
        correct, byte_count = (int(total) for total in sums)
        bits = loss / math.log(2) / byte_count if byte_count else None
        return {**self._of_training(loss, correct, weight), "bits_per_byte": bits}

    def training_figures(self, loss: float, correct: float, weight: int) -> Figures:
        """``loss`` and ``perplexity``, and ``accuracy`` if the model counts."""
        return self._of_training(loss, correct, weight)

    def _of_training(self, loss: float, correct: float, weight: int) -> Figures:
        nats = loss / weight
        accuracy = {} if math.isnan(correct) else {"accuracy": correct / weight}
        perplexity = math.exp(nats) if nats < _NATS_MAX else math.inf
        return {"loss": nats, "perplexity": perplexity, **accuracy}

    def short(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """``loss`` and ``perplexity``, and ``bits_per_byte`` if bytes are known."""
        names = ("loss", "perplexity", "bits_per_byte")
        return {name: figures[name] for name in names if figures[name] is not None}

    def result(self, figures: Mapping[str, Any]) -> Figures:
        """``test_loss``, ``test_perplexity``, ``test_accuracy`` and ``test_bits_per_byte``."""
        return {f"test_{name}": value for name, value in figures.items()}

    def sentence(self, figures: Mapping[str, Any]) -> str:
        """Figures in one line."""
        bits = figures["bits_per_byte"]
        known = "" if bits is None else f"{bits:.4f} bits per byte, "
        return f"loss {figures['loss']:.4f} nats per token, {known}{listed(figures, ('perplexity', 'accuracy'))}"

    def table(self, figures: Mapping[str, Any]) -> list[str]:
        """Nothing: the line says it all."""
        return []

    def outputs_for(self, rows: int) -> np.ndarray:
        """Probabilities of the token behind each row, shape (rows, values)."""
        return np.empty((rows, len(self._texts)), self._dtype)

    def columns(self, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """The likeliest token behind each row, and its probability."""
        likeliest = outputs.argmax(axis=1)
        return {
            "token": np.array(self._texts)[likeliest],
            "probability": outputs[np.arange(len(outputs)), likeliest],
        }


def make(data: DataSet) -> Tokens:
    """The task of data whose rows are windows of a text."""
    known = data.vocabulary
    byte_counts = np.array([len(token) for token in known], np.int64) if known else None
    texts = tuple(shown(token) for token in known) or tuple(map(str, range(data.output_count)))
    return Tokens(data.feature_shape[0], byte_counts, texts, data.dtype)


def shown(token: bytes) -> str:
    """As a report can print it."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return "0x" + token.hex()
    return text if text.isprintable() and text != " " else repr(text)
