"""How the rows of a read become one array of a batch: one class for each kind of input, and for ``y``.

Each has memory of its own, which the next batch overwrites. Kernels check no bounds: whoever calls asserts the count.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.data.augmentation import Augmentation, image_size
from lepton_mpi.data.augmentation_kernels import gather_augmented
from lepton_mpi.data.kernels import (
    gather_codes,
    gather_labels,
    gather_rows,
    gather_targets,
    gather_windows,
)
from lepton_mpi.data.rows import Read
from lepton_mpi.errors import DataError


class InputGatherer(Protocol):
    """Makes one input of a batch.

    Attributes
    ----------
    row_bytes : int
        Of a row in a batch.
    """

    row_bytes: int

    def gather(self, memory: np.ndarray, read: Read, draw: int | None) -> np.ndarray:
        """The rows of ``read``, of which ``memory`` holds this input: shape (rows, *row shape).

        ``draw`` is that of the step, for what is random in training; None for rows as they are.
        """


class Numbers:
    """Floats or bytes, normalised; augmented in training, if that is asked for.

    Parameters
    ----------
    spec : Input
    normaliser : (shift, scale), shape (features,)
        Their type is that of the batches.
    rows_max : int
    augmentation : Augmentation or None
    """

    def __init__(
        self,
        spec: Input,
        normaliser: tuple[np.ndarray, np.ndarray],
        rows_max: int,
        augmentation: Augmentation | None,
    ) -> None:
        self._shape, self._normaliser, self._changes = spec.shape, normaliser, None
        self._is_flat = len(spec.shape) == 1
        if augmentation:
            size = image_size(spec.shape)
            self._changes = *size, augmentation.flip, augmentation.crop, augmentation.noise
        self._out = np.empty((rows_max, normaliser[0].size), normaliser[0].dtype)
        self.row_bytes = normaliser[0].nbytes

    def gather(self, memory: np.ndarray, read: Read, draw: int | None) -> np.ndarray:
        """See ``InputGatherer``."""
        shift, scale = self._normaliser
        if draw is None or self._changes is None:
            gather_rows(memory, read.places, shift, scale, self._out)
        else:
            changes = *self._changes, self._out
            gather_augmented(memory, read.places, read.numbers, draw, shift, scale, *changes)
        count = read.places.size
        rows = self._out[:count]
        return rows if self._is_flat else rows.reshape(count, *self._shape)


class Codes:
    """Tokens or categories, int32 in a batch."""

    def __init__(self, spec: Input, rows_max: int) -> None:
        self._shape, self._out = spec.shape, np.empty((rows_max, spec.size), np.int32)
        self.row_bytes = spec.size * 4

    def gather(self, memory: np.ndarray, read: Read, draw: int | None) -> np.ndarray:
        """See ``InputGatherer``; nothing is random."""
        gather_codes(memory, read.places, self._out)
        count = read.places.size
        return self._out[:count].reshape(count, *self._shape)


class Tokens:
    """Windows of a text, int32 (rows, length), and their next tokens in the same pass."""

    def __init__(self, spec: Input, rows_max: int, label: str) -> None:
        shape = rows_max, spec.size
        self._values, self._label = spec.values, label
        self._x, self.next = np.empty(shape, np.int32), np.empty(shape, np.int32)
        self.row_bytes = 2 * spec.size * 4

    def gather(self, memory: np.ndarray, read: Read, draw: int | None) -> np.ndarray:
        """See ``InputGatherer``. Raises DataError for a token that there is not, which a mapped file may have."""
        windows = read.windows
        assert windows is not None
        starts, skipped = windows.place(read.numbers)
        about = starts, skipped, windows.documents
        row = gather_windows(memory, read.places, *about, self._values, self._x, self.next)
        if row >= 0:
            raise DataError(
                f"{self._label}: expected tokens from 0 to {self._values - 1} in the {self._x.shape[1] + 1} from {starts[row]} "
                "on, got others"
            )
        return self._x[: read.places.size]


class NextTokens:
    """``y`` of a text: the next token at every place, -1 where it does not count; int32 (rows, length)."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def gather(self, read: Read) -> np.ndarray:
        """Of the rows that the tokens were gathered of last."""
        return self._tokens.next[: read.numbers.size]


class Answers:
    """``y``: classes, int32 (rows,), or targets, of the batches' type (rows, targets)."""

    def __init__(self, target_count: int, dtype: np.dtype, rows_max: int) -> None:
        has_targets = target_count > 0
        self._gather: Callable = gather_targets if has_targets else gather_labels
        shape, of = ((rows_max, target_count), dtype) if has_targets else ((rows_max,), np.int32)
        self._out = np.empty(shape, of)

    def gather(self, read: Read) -> np.ndarray:
        """Of the rows of a read."""
        if read.classes is not None:
            return read.classes
        self._gather(read.y, read.numbers, self._out)
        return self._out[: read.numbers.size]
