"""Byte-level BPE by the library ``tokenizers``: from a text to ids, and a vocabulary made from a stream of texts.

Sennrich et al., 2016 (arXiv:1508.07909), on bytes as in Radford et al., 2019. The library is an extra, imported here alone
and only when a text is encoded: training reads ids, and text is made of ids by the vocabulary, both without it.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, Full, Queue
from typing import Any

import numpy as np

from lepton_mpi.data import tokenizer_facts
from lepton_mpi.errors import DataError, LauncherError
from lepton_mpi.extras import pip_install
from lepton_mpi.wording import one_line

# A pair that occurs once is no pair to learn.
_FREQUENCY_MIN = 2
# Lists of texts that wait for the trainer.
_WAITING_MAX = 4
# Between two looks whether it still works.
_WAIT_SECONDS = 0.2


class BytePairs:
    """A tokenizer, from the content of a ``tokenizer.json`` that ``tokenizer_facts.checked`` has let pass or will.

    Attributes
    ----------
    facts : dict
        The content, as JSON has it.
    vocabulary : tuple of bytes
        What each token stands for, in the order of their ids.

    Raises
    ------
    ValueError
        For content that is no tokenizer of this kind.
    LauncherError
        Without the library.
    """

    def __init__(self, facts: Any) -> None:
        self.facts = tokenizer_facts.checked(facts)
        self.vocabulary = tokenizer_facts.vocabulary_of(self.facts)
        library = _library()
        with _panics():
            self._tokenizer = library.Tokenizer.from_str(json.dumps(self.facts))
        # The library numbers added tokens in their order, whatever the file says.
        added = {token["content"]: token["id"] for token in self.facts["added_tokens"]}
        if self._tokenizer.get_vocab() != self.facts["model"]["vocab"] | added:
            raise ValueError("added_tokens: expected them in the order of their ids, got others")

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, uint32, with nothing before or behind it. Raises ValueError for one that they do not spell."""
        with _panics():
            found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [np.array(one.ids, np.uint32) for one in found]
        for text, numbers in zip(texts, ids, strict=True):
            if self.text_of(numbers) != text.encode():
                raise ValueError(
                    f"expected tokens that spell the text, got others for {one_line(text[:40])!r}: the tokenizer's normalizer "
                    "or an added token changes it"
                )
        return ids

    def text_of(self, ids: np.ndarray) -> bytes:
        """What tokens stand for, one behind the other."""
        return b"".join(map(self.vocabulary.__getitem__, ids.tolist()))


class Training:
    """A vocabulary that is made from texts as they come, by a thread of its own: the library reports no progress.

    The result is a function of the texts alone, however they are cut between a letter or digit and white space.
    Memory grows with the number of different words. A context manager, which gives up what was not finished.

    Parameters
    ----------
    size : int
        Tokens, the 256 bytes and ``added`` among them.
    added : str
        A text that is a token of its own, the first one, and is in no other; empty for none.
    """

    def __init__(self, size: int, added: str = "") -> None:
        library = _library()
        self._texts: Queue[list[str] | None] = Queue(_WAITING_MAX)
        self._failure: ValueError | None = None
        self._tokenizer = library.Tokenizer(library.models.BPE())
        self._tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._tokenizer.decoder = library.decoders.ByteLevel()
        self._trainer = library.trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=_FREQUENCY_MIN,
            special_tokens=[library.AddedToken(added, normalized=False, special=True)]
            * bool(added),
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        self._is_ended = self._is_given_up = False
        self._thread = threading.Thread(target=self._train, daemon=True)

    def __enter__(self) -> "Training":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_given_up = True

    def feed(self, texts: list[str]) -> bool:
        """Give it more texts; False if it has no room for them yet, and they are to be given again."""
        if not self._thread.is_alive():
            return True
        try:
            self._texts.put(texts, timeout=_WAIT_SECONDS)
        except Full:
            return False
        return True

    def end(self) -> bool:
        """Say that there are no more texts, and wait a little; whether the vocabulary is made."""
        self._is_ended = True
        self._thread.join(_WAIT_SECONDS)
        return not self._thread.is_alive()

    def result(self) -> BytePairs:
        """The tokenizer, after ``end`` was true; it may have fewer tokens than it was asked for. Raises DataError."""
        try:
            if self._failure is not None:
                raise self._failure
            return BytePairs(json.loads(self._tokenizer.to_str()))
        except ValueError as error:
            raise DataError(f"a vocabulary cannot be made: {one_line(error)}") from None

    def _train(self) -> None:
        try:
            with _panics():
                self._tokenizer.train_from_iterator(self._given(), self._trainer)
        except ValueError as error:
            self._failure = error

    def _given(self) -> Iterator[str]:
        while not self._is_given_up:
            try:
                yield from self._texts.get(timeout=_WAIT_SECONDS)
            except Empty:
                if self._is_ended:
                    return


def from_json(raw: bytes) -> BytePairs:
    """Of a file ``tokenizer.json``. Raises ValueError and LauncherError as ``BytePairs`` does."""
    try:
        return BytePairs(json.loads(raw))
    except RecursionError as error:
        raise ValueError(one_line(error)) from None


def _library() -> Any:
    """Raises LauncherError if it is not installed."""
    try:
        import tokenizers
    except ImportError:
        raise LauncherError(
            f"tokens of byte-level BPE are made by the library tokenizers: {pip_install('language')}"
        ) from None
    return tokenizers


@contextmanager
def _panics() -> Iterator[None]:
    """A block of calls of the library, all of whose errors become a ValueError: its own are of class Exception or none."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, LauncherError):
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        raise ValueError(one_line(error)) from None
