"""What the first passes over a text find, of characters, bytes or BPE, and what the file of tokens is then written from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lepton_mpi.prepare.stream_encoding import StreamEncoding


@dataclass(frozen=True)
class Run:
    """Tokens [start, stop) of input ``number``, which belong to one split."""

    split: str
    number: int
    start: int
    stop: int


@dataclass(frozen=True)
class FoundTokens:
    """The tokens of all inputs.

    Attributes
    ----------
    encoding : StreamEncoding
        What each token stands for.
    runs : tuple of Run
        In the order of the inputs and of their tokens.
    counts : tuple of int
        Tokens of each input.
    documents : tuple of int64 arrays
        Of each input: tokens, ascending, with which a document begins, beside the first.
    read : callable
        Yields the ids of an input, by its number, in arrays of any length.
    facts : dict
        What the report says besides.
    """

    encoding: StreamEncoding
    runs: tuple[Run, ...]
    counts: tuple[int, ...]
    documents: tuple[np.ndarray, ...]
    read: Callable[[int], Iterator[np.ndarray]]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> np.dtype:
        """Of ids in the file."""
        return dtype_for(len(self.encoding.vocabulary))

    def of_split(self, split: str) -> list[Run]:
        """Those that are one behind the other in the stream of a split."""
        return [run for run in self.runs if run.split == split]

    def document_starts(self, split: str) -> np.ndarray:
        """Where documents begin in the stream of a split, each run being one at least: int64, ascending."""
        begin, found = 0, [np.zeros(0, np.int64)]
        for run in self.of_split(split):
            inner = self.documents[run.number]
            inner = inner[(inner > run.start) & (inner < run.stop)]
            found += [np.array([begin], np.int64), inner - run.start + begin]
            begin += run.stop - run.start
        return np.concatenate(found)


def dtype_for(values: int) -> np.dtype:
    """The smallest that holds so many ids."""
    return np.dtype(np.uint8 if values <= 1 << 8 else np.uint16 if values <= 1 << 16 else np.int32)
