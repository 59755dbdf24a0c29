"""A text, token by token: each is drawn from the probabilities that a model gives to those behind what there is."""

import codecs
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lepton_mpi.batch import Batch
from lepton_mpi.data.byte_pairs import BytePairs
from lepton_mpi.data.encodings import Encodings
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.kernels import counter_random
from lepton_mpi.models.gpt import Gpt
from lepton_mpi.vectors import Views
from lepton_mpi.wording import one_line

# Stream of random numbers: one for each token that is drawn.
_DRAWS = 1 << 20


def tokens_of(prompt: str, known: Encodings, origin: str) -> list[int]:
    """The tokens of a prompt, by the tokenizer of the data if they were made by BPE, else by their vocabulary.

    Raises ConfigurationError for a prompt without tokens, DataError for one of others or for a tokenizer in ``origin`` that is
    none, and LauncherError where BPE lacks its library.
    """
    try:
        text = prompt.encode()
    except UnicodeEncodeError:
        raise ConfigurationError("--prompt: expected a text in UTF-8, got other bytes") from None
    if known.tokenizer is None:
        tokens = encode(text, known.vocabulary)
    else:
        try:
            pairs = BytePairs(known.tokenizer)
            if pairs.vocabulary != known.vocabulary:
                raise ValueError("expected the tokens of the vocabulary, got others")
            tokens = pairs.encode([prompt])[0].tolist()
        except ValueError as error:
            raise DataError(f"{origin}: tokenizer: {one_line(error)}") from None
    if not tokens:
        raise ConfigurationError("--prompt: expected a token at least, got none")
    return tokens


def text_of(tokens: Sequence[int], vocabulary: Sequence[bytes]) -> str:
    """What tokens stand for: bytes that are no UTF-8 as U+FFFD, and without a character at the end that is not whole."""
    content = b"".join(vocabulary[token] for token in tokens)
    return codecs.getincrementaldecoder("utf-8")("replace").decode(content)


def encode(text: bytes, vocabulary: Sequence[bytes]) -> list[int]:
    """The tokens of a text, the longest that fits first. Raises DataError for what no token stands for."""
    numbers = {token: number for number, token in enumerate(vocabulary) if token}
    longest, tokens, start = max(map(len, numbers), default=0), [], 0
    while start < len(text):
        fitting = (text[start : start + n] for n in range(longest, 0, -1))
        token = next((piece for piece in fitting if piece in numbers), None)
        if token is None:
            rest = one_line(text[start : start + 12].decode("utf-8", "replace"))
            raise DataError(f"expected a text of the {len(numbers)} tokens known, got {rest!r}")
        tokens.append(numbers[token])
        start += len(token)
    return tokens


def choose(probabilities: NDArray[np.floating], temperature: float, top: int, draw: float) -> int:
    """A token: one of the ``top`` likeliest, 0 for all, by ``probabilities ** (1 / temperature)``; at 0 the likeliest.

    Parameters
    ----------
    probabilities : shape (values,)
    draw : float
        From 0 up to, not including, 1.
    """
    exact = probabilities.astype(np.float64)
    if temperature == 0:
        return int(exact.argmax())
    order = np.argsort(-exact, kind="stable")[: top or None]
    with np.errstate(divide="ignore"):
        logits = np.log(exact[order]) / temperature
    total = np.cumsum(np.exp(logits - logits[0]))
    return int(order[min(np.searchsorted(total, draw * total[-1], "right"), len(order) - 1)])


class Writer:
    """Continues a text by one token after the other, with a cache of keys and values.

    When the model's context is full, the cache begins anew with the last half of it.
    """

    def __init__(self, model: Gpt, parameters: Views) -> None:
        self._model, self._parameters = model, parameters
        self._context = model.shape.context
        dtype = next(iter(parameters.values())).dtype
        self._outputs = np.empty((1, model.shape.vocabulary), dtype)
        self._tokens: list[int] = []
        self._begin()

    def probabilities(self) -> NDArray[np.floating]:
        """Of the token behind what was read, shape (values,); the next ``read`` writes over it."""
        return self._outputs[0]

    def read(self, token: int) -> None:
        """Append a token."""
        if len(self._tokens) == self._context:
            kept = self._tokens[self._context - self._context // 2 :]
            self._begin()
            for old in kept:
                self.read(old)
        self._tokens.append(token)
        x = np.array([[token]], np.int32)
        self._step.predict(self._parameters, Batch(x, np.zeros_like(x)), self._outputs)

    def _begin(self) -> None:
        self._step, self._tokens = self._model.step_by_step(), []


def generate(
    writer: Writer, prompt: Sequence[int], count: int, temperature: float, top: int, seed: int
) -> Iterator[int]:
    """Yield ``count`` tokens behind ``prompt``, which has one at least; a function of the arguments alone."""
    for token in prompt:
        writer.read(token)
    for number in range(count):
        (bits,) = counter_random.bits(seed, _DRAWS, 1, number)
        draw = float(bits >> np.uint64(11)) * 2.0**-53
        token = choose(writer.probabilities(), temperature, top, draw)
        yield token
        writer.read(token)
