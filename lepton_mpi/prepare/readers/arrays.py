"""Sources that hold features and labels as arrays: .npy, .npz, IDX, CIFAR, HDF5."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from lepton_mpi.data.files.file_format import SPLITS
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Block, RowPart, Source, Words
from lepton_mpi.prepare.readers.columns import Cells, Roles, block_of

# Names of the features and labels of a split, as people write them; tried in this order.
_SPLIT_PAIRS = (
    ("{split}/x", "{split}/y"),
    ("x_{split}", "y_{split}"),
    ("X_{split}", "y_{split}"),
    ("{split}_images", "{split}_labels"),
    ("{split}_x", "{split}_y"),
    ("{split}_data", "{split}_labels"),
)
_PAIRS = (
    ("x", "y"),
    ("X", "y"),
    ("data", "target"),
    ("images", "labels"),
    ("features", "labels"),
    ("data", "labels"),
    ("data", "label"),
)
SPLIT_ALIASES = {
    "validation": ("validation", "valid", "val"),
    "train": ("train",),
    "test": ("test",),
}


class ArrayPart(RowPart):
    """Rows of a pair of arrays; see ``Part``. ``x`` and ``y`` need a shape, a dtype, and slices of rows."""

    def __init__(
        self,
        name: str,
        split: str | None,
        x: Any,
        y: Any,
        options: Options,
        class_names: tuple[str, ...] = (),
        close: Callable[[], None] = lambda: None,
    ) -> None:
        row_bytes = int(np.prod(x.shape[1:], dtype=np.int64)) * x.dtype.itemsize
        super().__init__(name, split, x.shape[0], row_bytes, options.block)
        self._x, self._y, self._close = x, y, close
        self._class_count, self._is_regression = len(class_names), options.task == "regression"
        if not y.shape:
            raise DataError(f"{name}: expected a label for each row, got a single value")
        if x.shape[0] != y.shape[0]:
            raise DataError(
                f"{name}: expected a label for each of {x.shape[0]} rows, got {y.shape[0]}"
            )

    def close(self) -> None:
        """Let go of the file, which a later ``read`` opens again."""
        self._close()

    @property
    def row_shape(self) -> tuple[int, ...]:
        return tuple(self._x.shape[1:])

    @property
    def target_count(self) -> int:
        """Targets of a row; 1 where labels are classes."""
        return int(np.prod(self._y.shape[1:], dtype=np.int64)) if self._is_regression else 1

    @property
    def dtype(self) -> np.dtype:
        """Of the rows that ``read`` gives."""
        return _native(np.empty((0, 1), self._x.dtype)).dtype

    def read_rows(self, start: int, stop: int) -> Block:
        """Rows [start, stop). Raises DataError."""
        try:
            x, y = np.asarray(self._x[start:stop]), np.asarray(self._y[start:stop])
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(f"{self.name}: rows {start} to {stop - 1}: damaged: {error}") from None
        return Block(_native(x), self._labels(y, start), {}, first_row=start)

    def _labels(self, y: np.ndarray, start: int) -> Words | np.ndarray:
        if y.ndim == 2 and y.shape[1] == 1 and not self._is_regression:
            y = y[:, 0]
        if self._is_regression:
            if y.dtype.kind not in "iufb" or y.ndim > 2:
                raise DataError(
                    f"{self.name}: expected numbers of shape (rows,) or (rows, targets) as targets, got {y.dtype} of "
                    f"shape {y.shape}"
                )
            return y.reshape(len(y), -1).astype(np.float64)
        if y.ndim != 1:
            raise DataError(
                f"{self.name}: expected one label a row, got labels of shape {y.shape[1:]}; --task regression takes "
                "several targets"
            )
        if self._class_count:
            return self._known_classes(y, start)
        return labels_as_words(y, self.name, start)

    def _known_classes(self, y: np.ndarray, start: int) -> np.ndarray:
        wrong = np.flatnonzero((y < 0) | (y >= self._class_count))
        if wrong.size:
            raise DataError(
                f"{self.name}: row {start + wrong[0]}: expected a class from 0 to {self._class_count - 1}, "
                f"got {y[wrong[0]]}"
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


def array_source(parts: list[ArrayPart], format_name: str, **facts: Any) -> Source:
    """A source of these parts. Raises DataError unless their rows have one shape, and as many targets."""
    for part in parts:
        if part.row_shape != parts[0].row_shape:
            raise DataError(
                f"{part.name}: expected rows of shape {parts[0].row_shape} as in {parts[0].name}, got {part.row_shape}"
            )
        if part.target_count != parts[0].target_count:
            raise DataError(
                f"{part.name}: expected targets as many as in {parts[0].name}, {parts[0].target_count} a row, got "
                f"{part.target_count}"
            )
    dtypes = {part.dtype for part in parts}
    compared_as = np.result_type(*dtypes) if len(dtypes) > 1 else None
    return Source(
        tuple(parts), format_name, parts[0].row_shape or (1,), compared_as=compared_as, **facts
    )


def check_features(name: str, x: Any) -> None:
    """Raise DataError unless ``x`` holds numbers, one row a sample."""
    if np.dtype(x.dtype).kind not in "iufb" or len(x.shape) < 1 or 0 in x.shape[1:]:
        raise DataError(
            f"{name}: expected numbers of shape (rows, ...), got {x.dtype} of shape {tuple(x.shape)}"
        )


def find_pairs(
    names: Collection[str], options: Options, where: str
) -> dict[str | None, tuple[str, str]]:
    """Names of features and labels by split; the key None stands for rows that are in no split yet.

    Raises DataError, or ConfigurationError for a name given that is not there.
    """
    if options.x or options.y:
        wanted = (options.x or "x", options.y or "y")
        pairs = _named_pairs(names, *wanted)
        if not pairs:
            there = ", ".join(sorted(names)[:12]) or "nothing"
            raise ConfigurationError(
                f"--x, --y: {where} has no pair {wanted[0]!r} and {wanted[1]!r}; it has {there}"
            )
        return pairs
    for pattern in (*_SPLIT_PAIRS, *_PAIRS):
        pairs = _named_pairs(names, *pattern)
        if "train" in pairs or None in pairs:
            return pairs
    there = ", ".join(sorted(names)[:12]) or "nothing"
    raise DataError(
        f"{where}: expected arrays such as x_train and y_train, or x and y; got {there}; name them by --x and --y"
    )


def _named_pairs(names: Collection[str], x: str, y: str) -> dict[str | None, tuple[str, str]]:
    if "{split}" not in x:
        return {None: (x, y)} if x in names and y in names else {}
    pairs: dict[str | None, tuple[str, str]] = {}
    for split in SPLITS:
        for alias in SPLIT_ALIASES[split]:
            pair = x.replace("{split}", alias), y.replace("{split}", alias)
            if all(name in names for name in pair):
                pairs.setdefault(split, pair)
    return pairs


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
        cells = [
            v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in y.tolist()
        ]
        return Words.of([cell or None for cell in cells])
    raise DataError(f"{name}: expected whole numbers or texts as labels, got {y.dtype}")


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
