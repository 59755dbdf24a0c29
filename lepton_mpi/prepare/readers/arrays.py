"""Sources that hold features and labels as arrays: .npy, .npz, IDX, CIFAR, HDF5."""

from collections.abc import Callable, Collection
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lepton_mpi.data.files import label_arrays
from lepton_mpi.data.files.array_names import Pairs, find_pairs, listed, unused
from lepton_mpi.errors import DataError, LeptonError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Block, RowPart, Source, Words
from lepton_mpi.prepare.readers.cells import Cells, block_of
from lepton_mpi.prepare.readers.columns import Roles, no_labels
from lepton_mpi.wording import one_line


@dataclass(frozen=True)
class Pair:
    """Features and labels of some rows.

    Attributes
    ----------
    x, y
        What has a shape, a dtype, and slices of rows; ``y`` None where the labels are elsewhere.
    class_names : tuple of str
        If classes are known: those of y = 0, 1, ….
    categories : tuple of str
        If ``y`` are codes of these texts, -1 for none.
    close
        Lets go of the file, which a later slice opens again.
    """

    x: Any
    y: Any
    class_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    close: Callable[[], None] = lambda: None


class ArrayPart(RowPart):
    """Rows of a pair of arrays; see ``Part``."""

    def __init__(self, name: str, split: str | None, pair: Pair, options: Options) -> None:
        x, y = pair.x, pair.y
        row_bytes = int(np.prod(x.shape[1:], dtype=np.int64)) * x.dtype.itemsize
        super().__init__(name, split, x.shape[0], row_bytes, options.block)
        self._pair, self._is_regression = pair, options.task == "regression"
        if y is not None:
            _check_count(name, x.shape, y.shape)

    def close(self) -> None:
        """Let go of the file, which a later ``read`` opens again."""
        self._pair.close()

    def without_labels(self) -> "ArrayPart":
        """The same rows, whose labels are not looked at."""
        part = copy(self)
        part._pair = replace(self._pair, y=None)
        return part

    @property
    def row_shape(self) -> tuple[int, ...]:
        return tuple(self._pair.x.shape[1:])

    @property
    def label_width(self) -> int:
        """Numbers of a label: targets, or classes of one-hot rows; else 1."""
        return 1 if self._pair.y is None else label_arrays.width(self._pair.y.shape)

    @property
    def has_labels(self) -> bool:
        return self._pair.y is not None

    @property
    def dtype(self) -> np.dtype:
        """Of the rows that ``read`` gives."""
        return _native(np.empty((0, 1), self._pair.x.dtype)).dtype

    def read_rows(self, start: int, stop: int) -> Block:
        """Rows [start, stop). Raises DataError."""
        pair = self._pair
        try:
            x = np.asarray(pair.x[start:stop])
            y = None if pair.y is None else np.asarray(pair.y[start:stop])
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(f"{self.name}: rows {start} to {stop - 1}: damaged: {error}") from None
        # Labels that are elsewhere come by all rows together, see ``Source.labels``.
        labels = np.zeros(len(x), np.int64) if y is None else self._labels(y, start)
        return Block(_native(x), labels, {}, first_row=start)

    def _labels(self, y: np.ndarray, start: int) -> Words | np.ndarray:
        if self._is_regression:
            return targets_of(y, self.name)
        if self._pair.categories:
            return _categories(y.reshape(len(y)), self._pair.categories, self.name, start)
        if self._pair.class_names:
            return self._known_classes(y.reshape(len(y)), start)
        return class_labels(y, self.name, start)

    def _known_classes(self, y: np.ndarray, start: int) -> np.ndarray:
        count = len(self._pair.class_names)
        wrong = np.flatnonzero((y < 0) | (y >= count))
        if wrong.size:
            raise DataError(
                f"{self.name}: row {start + wrong[0]}: expected a class from 0 to {count - 1}, got {y[wrong[0]]}"
            )
        return y.astype(np.int64)


class MatrixPart(RowPart):
    """A matrix of numbers taken as a table; see ``Part``."""

    def __init__(
        self, name: str, split: str | None, matrix: Any, roles: Roles, options: Options
    ) -> None:
        row_bytes = matrix.shape[1] * matrix.dtype.itemsize
        super().__init__(name, split, matrix.shape[0], row_bytes, options.block)
        self._matrix, self._roles = matrix, roles

    def read_rows(self, start: int, stop: int) -> Block:
        """Rows [start, stop). Raises DataError."""
        numbers = np.asarray(self._matrix[start:stop])
        words = {
            column: labels_as_words(numbers[:, column], self.name, start, as_text=True)
            for column in self._roles.texts
        }
        return block_of(
            Cells(numbers.astype(np.float64), words, None, start), self._roles, self.name
        )


def array_source(
    parts: list[ArrayPart], format_name: str, options: Options, **facts: Any
) -> Source:
    """A source of these parts. Raises DataError unless their rows have one shape, and labels one width."""
    first = parts[0]
    for part in parts:
        if part.row_shape != first.row_shape:
            raise DataError(
                f"{part.name}: expected rows of shape {first.row_shape} as in {first.name}, got {part.row_shape}"
            )
        if part.label_width != first.label_width:
            raise DataError(
                f"{part.name}: expected labels of {first.label_width} numbers a row as in {first.name}, got "
                f"{part.label_width}"
            )
    if first.label_width > 1 and options.task != "regression":
        notes = f"labels are one-hot rows: class = place of the 1 among {first.label_width}"
        facts |= {"class_names": tuple(map(str, range(first.label_width)))}
        facts |= {"notes": (*facts.get("notes", ()), notes)}
    if not options.labels and not all(part.has_labels for part in parts):
        if any(part.has_labels for part in parts):
            raise DataError("expected labels in all inputs or in none")
        facts |= {"has_labels": False, "notes": (*facts.get("notes", ()), no_labels(()))}
    dtypes = {part.dtype for part in parts}
    compared_as = np.result_type(*dtypes) if len(dtypes) > 1 else None
    return Source(
        tuple(parts), format_name, first.row_shape or (1,), compared_as=compared_as, **facts
    )


def check_features(name: str, x: Any) -> None:
    """Raise DataError unless ``x`` holds numbers, one row a sample."""
    if np.dtype(x.dtype).kind not in "iufb" or len(x.shape) < 1 or 0 in x.shape[1:]:
        raise DataError(
            f"{name}: expected numbers of shape (rows, ...), got {x.dtype} of shape {tuple(x.shape)}"
        )


def pairs_in(names: Collection[str], options: Options, where: str) -> tuple[Pairs, tuple[str, ...]]:
    """Names of features and labels by split, and what the user should know of the choice. Raises DataError."""
    try:
        pairs = find_pairs(names, options.x, "" if options.labels else options.y, where)
    except LeptonError as error:
        pairs = _features_alone(names, options, where, error)
    return pairs, unused_note(unused(names, pairs))


def _features_alone(
    names: Collection[str], options: Options, where: str, error: LeptonError
) -> Pairs:
    """Of rows that may be without labels; else raises what was wrong with both."""
    if not options.may_lack_labels:
        raise error
    try:
        return find_pairs(names, options.x, "", where)
    except LeptonError:
        raise error from None


def rows_first(x: np.ndarray, options: Options) -> np.ndarray:
    """An array in memory with its rows along the first dimension, by ``--rows``."""
    return np.moveaxis(x, -1, 0) if options.rows == "last" else x


def unused_note(names: Collection[str]) -> tuple[str, ...]:
    """A note on arrays that look like rows and are not read; none for none."""
    return (f"not used: {listed(names)}",) if names else ()


def _check_count(name: str, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> None:
    if not y_shape:
        raise DataError(f"{name}: expected a label for each row, got a single value")
    if x_shape[0] != y_shape[0]:
        hint = "; --rows last takes the last dimension as rows" * (x_shape[-1] == y_shape[0])
        raise DataError(
            f"{name}: expected a label for each of {x_shape[0]} rows, got {y_shape[0]}{hint}"
        )


def targets_of(y: np.ndarray, name: str) -> np.ndarray:
    """Targets, float64 of shape (rows, targets). Raises DataError."""
    if y.dtype.kind not in "iufb" or not set(y.shape[2:]) <= {1}:
        raise DataError(
            f"{name}: expected numbers of shape (rows,) or (rows, targets) as targets, got {y.dtype} of "
            f"shape {y.shape}"
        )
    return y.reshape(len(y), -1).astype(np.float64)


def class_labels(y: np.ndarray, name: str, start: int) -> Words | np.ndarray:
    """Words of labels of shape (rows,) or (rows, 1, …); int64 of one-hot rows. Raises DataError."""
    width = label_arrays.width(y.shape)
    if width == 1:
        return labels_as_words(y.reshape(len(y)), name, start)
    if y.dtype.kind not in "iufb" or not set(y.shape[2:]) <= {1}:
        raise DataError(
            f"{name}: expected one label a row, or one-hot rows, got {y.dtype} of shape {y.shape[1:]}"
        )
    codes, wrong = label_arrays.classes_of(y.reshape(len(y), width))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{name}: row {start + row}: expected a one-hot label, one 1 among {width} numbers and else 0, got "
            f"{one_line(y[row].reshape(-1)[:12].tolist())}; --task regression takes several targets"
        )
    return codes.astype(np.int64)


def _categories(y: np.ndarray, texts: tuple[str, ...], name: str, start: int) -> Words:
    wrong = np.flatnonzero((y < -1) | (y >= len(texts)))
    if wrong.size:
        raise DataError(
            f"{name}: row {start + wrong[0]}: expected the code of one of {len(texts)} categories, or -1, got "
            f"{y[wrong[0]]}"
        )
    return Words(y.astype(np.int32), texts)


def labels_as_words(y: np.ndarray, name: str, start: int, as_text: bool = False) -> Words:
    """Class of each row as text; NaN is missing. Numbers must be whole unless ``as_text``. Raises DataError."""
    if y.dtype.kind == "f":
        present = ~np.isnan(y)
        odd = np.flatnonzero(present & (y != np.floor(y)))
        if odd.size and not as_text:
            raise DataError(
                f"{name}: row {start + odd[0]}: expected a class, got the number {y[odd[0]]:g}: "
                "say --task regression if it is a target"
            )
        values, inverse = np.unique(y[present], return_inverse=True)
        codes = np.full(len(y), -1, np.int32)
        codes[present] = inverse
        texts = [
            str(int(v)) if v == np.floor(v) and abs(v) < 2**53 else repr(float(v)) for v in values
        ]
        return Words(codes, tuple(texts))
    if y.dtype.kind in "iub":
        values, inverse = np.unique(y, return_inverse=True)
        return Words(inverse.astype(np.int32), tuple(str(int(v)) for v in values))
    if y.dtype.kind in "SUO":
        return Words.of([_text(cell, name, start + row) for row, cell in enumerate(y.tolist())])
    raise DataError(f"{name}: expected whole numbers or texts as labels, got {y.dtype}")


def _text(cell: object, name: str, row: int) -> str | None:
    try:
        return (cell.decode() if isinstance(cell, bytes) else str(cell)) or None
    except UnicodeDecodeError:
        raise DataError(
            f"{name}: row {row}: expected a label in UTF-8, got {cell[:40]!r}"
        ) from None


def _native(x: np.ndarray) -> np.ndarray:
    """Rows of at least one dimension, in this machine's byte order; booleans as uint8, half precision as float32."""
    x = x.reshape(len(x), -1) if x.ndim == 1 else x
    if x.dtype.kind == "b":
        return x.astype(np.uint8)
    if x.dtype == np.float16:
        return x.astype(np.float32)
    if x.dtype.kind == "f" and x.dtype.itemsize > 8:
        return x.astype(np.float64)
    return np.ascontiguousarray(x, x.dtype.newbyteorder("="))
