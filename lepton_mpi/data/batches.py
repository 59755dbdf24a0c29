"""From reads to batches: the rows of a read, gathered, converted and normalised into one place."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.data.augmentation import Augmentation
from lepton_mpi.data.dataset import DataSet
from lepton_mpi.data.gathering import Answers, Codes, InputGatherer, NextTokens, Numbers, Tokens
from lepton_mpi.data.rows import Read

# They should still be in the core's own cache when the last of them is used.
_TOGETHER_BYTES = 256 << 10
_new = tuple.__new__


class BatchReader:
    """Gathers rows into a batch of its own, which the next call overwrites.

    Parameters
    ----------
    data : DataSet
    rows_max : int
        Longest batch that will be asked for.
    augmentation : Augmentation, optional
        What ``read_for_training`` does to the first input that is numbers.
    in_place : bool
        Whether rows for training need not be gathered if they can be used as they lie.

    Attributes
    ----------
    rows_max : int
    is_in_place : bool
        Whether they can, and are.
    """

    def __init__(
        self,
        data: DataSet,
        rows_max: int,
        augmentation: Augmentation | None = None,
        in_place: bool = False,
    ) -> None:
        self.is_in_place = in_place and not augmentation and data.is_ready
        self.rows_max = rows_max
        self._inputs, answers = _gatherers(data, rows_max, augmentation)
        self._gather_x, self._gather_y = self._inputs[0].gather, answers.gather
        # A batch of x alone has no mapping, which would cost as much as gathering a short row.
        self._names = None if list(data.inputs) == ["x"] else tuple(data.inputs)

    @property
    def row_bytes(self) -> int:
        """Of a row that has been gathered."""
        return sum(part.row_bytes for part in self._inputs)

    @property
    def rows_together(self) -> int:
        """Rows of several micro-batches that are worth gathering by one call."""
        if self.is_in_place:
            return self.rows_max
        return min(self.rows_max, _TOGETHER_BYTES // self.row_bytes)

    def read(self, read: Read) -> Batch:
        """The rows as they are."""
        return self._gathered(read, None, 0)

    def read_for_training(self, read: Read, draw: int) -> Batch:
        """The rows as they are trained on in the step of ``draw``: augmented, if that is asked for."""
        if self._names is not None:
            return self._gathered(read, draw, draw)
        # What ``_gathered`` does for x alone, without a call more: calls cost as much as short rows.
        assert read.places.size <= self.rows_max, (read.places.size, self.rows_max)
        x, y = self._gather_x(read.x, read, draw), self._gather_y(read)
        return _new(Batch, (x, y, read.numbers, draw, None, None))

    def read_y(self, read: Read) -> np.ndarray:
        """Classes or targets alone."""
        assert read.places.size <= self.rows_max, (read.places.size, self.rows_max)
        return self._gather_y(read)

    def _gathered(self, read: Read, draw: int | None, draw_of_step: int) -> Batch:
        """Every input, by name if there are others than ``x``; ``draw`` as in ``InputGatherer``."""
        assert read.places.size <= self.rows_max, (read.places.size, self.rows_max)
        x, y = self._gather_x(read.x, read, draw), self._gather_y(read)
        if self._names is None:
            return Batch(x, y, read.numbers, draw_of_step)
        others = zip(self._inputs[1:], read.more, strict=True)
        arrays = [x, *(part.gather(memory, read, draw) for part, memory in others)]
        named = dict(zip(self._names, arrays, strict=True))
        return Batch(x, y, read.numbers, draw_of_step, None, named)


def _gatherers(
    data: DataSet, rows_max: int, augmentation: Augmentation | None
) -> tuple[list[InputGatherer], Answers | NextTokens]:
    """Of every input, and of ``y``."""
    if data.y_kind == "tokens":
        tokens = Tokens(data.inputs["tokens"], rows_max, f"{data.paths[0]}: tokens")
        return [tokens], NextTokens(tokens)
    inputs: list[InputGatherer] = []
    for spec, normaliser in zip(data.inputs.values(), data.normalisers(), strict=True):
        if normaliser is None:
            inputs.append(Codes(spec, rows_max))
            continue
        inputs.append(Numbers(spec, normaliser, rows_max, augmentation))
        augmentation = None
    return inputs, Answers(data.target_count, data.dtype, rows_max)


class TrainingReads(Protocol):
    """What a ``MicroBatchReader`` takes micro-batches from."""

    def __iter__(self) -> Iterator[tuple[Read, list[tuple[int, int]]]]:
        """Yield (read, cuts); see ``reads.TrainingReads``."""


class MicroBatchReader:
    """This rank's micro-batches in turn, of which several are gathered by one call: calls cost as much as short rows.

    Parameters
    ----------
    reads : iterable of (read, cuts)
        See ``reads.TrainingReads``.
    reader : BatchReader
    """

    def __init__(self, reads: TrainingReads, reader: BatchReader) -> None:
        self._reads, self._reader = iter(reads), reader
        self._parts: list[Batch] = []
        self._next = 0

    def next(self, draw: int) -> Batch:
        """The next micro-batch, of the step of ``draw``. It holds until the next call."""
        if self._next == len(self._parts):
            read, cuts = next(self._reads)
            if self._reader.is_in_place:
                x, places, _, numbers, y, _, _ = read
                if y is None:
                    y = self._reader.read_y(read)
                if len(cuts) == 1:
                    # As Batch(…), in half the time.
                    return _new(Batch, (x, y, numbers, draw, places, None))
                self._parts = [Batch(x, y[i:j], numbers[i:j], draw, places[i:j]) for i, j in cuts]
            else:
                batch = self._reader.read_for_training(read, draw)
                self._parts = [batch] if len(cuts) == 1 else [batch.part(i, j) for i, j in cuts]
            self._next = 0
        self._next += 1
        return self._parts[self._next - 1]
