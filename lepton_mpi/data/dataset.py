"""``DataSet``: everything that training and evaluation need of their files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.chunks import share
from lepton_mpi.data.encodings import Encodings
from lepton_mpi.data.host import Host
from lepton_mpi.data.rows import Rows
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.data.ways import Way

# Of rows that are normalised at a time: they stay in the core's own cache.
_NORMALISED_BYTES = 256 << 10


@dataclass(frozen=True)
class DataSet:
    """The same on every rank.

    Attributes
    ----------
    paths : tuple of Path
    inputs : mapping of str to Input
        What a batch has, in order: ``x`` first if there is one.
    class_names : tuple of str
        Of the classes; empty for targets.
    dtype : np.dtype
        float32 or float64, of the batches.
    normalisation : (shift, scale)
        float64, shape (numbers,): of all inputs that are numbers, one behind the other; of x alone most often.
    splits : mapping of str to Rows
        ``train``, ``validation`` and ``test``.
    y_kind : {"classes", "targets", "tokens"}
        What the rows have to be predicted.
    target_scale : TargetScale
        How the targets in memory are scaled; of none for others.
    way : Way
        Where the rows are.
    bases : float64, shape (numbers,)
        What has been subtracted from numbers when they were read, in the type that they are stored in: see ``Table``.
    encodings : Encodings
        What the numbers stand for, as far as the files say it.
    has_labels : bool
        False for rows to be scored, whose classes are -1, and targets NaN.
    is_normalised : bool
        Whether rows in memory are normalised there.
    notes : tuple of str
        What the user should know of the files.
    """

    paths: tuple[Path, ...]
    inputs: Mapping[str, Input]
    class_names: tuple[str, ...]
    dtype: np.dtype
    normalisation: tuple[np.ndarray, np.ndarray]
    splits: Mapping[str, Rows]
    y_kind: str
    target_scale: TargetScale
    way: Way
    bases: np.ndarray
    encodings: Encodings = field(default_factory=Encodings)
    has_labels: bool = True
    is_normalised: bool = False
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the file, or of the first and how many more."""
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return self.paths[0].name + more

    @property
    def vocabulary(self) -> tuple[bytes, ...]:
        """Of a text: what each token stands for; empty where the files do not say."""
        return self.encodings.vocabulary

    @property
    def category_names(self) -> tuple[str, ...]:
        """Of the columns of the input ``categories``; empty where the files do not say, or have none."""
        return self.encodings.input_columns

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of a row of x, or of the first input."""
        return next(iter(self.inputs.values())).shape

    @property
    def augmented_shape(self) -> tuple[int, ...] | None:
        """Shape of a row of the first input that is numbers, which augmentation changes; None if there is none."""
        shapes = (spec.shape for spec in self.inputs.values() if spec.kind == "numbers")
        return next(shapes, None)

    @property
    def inputs_text(self) -> str:
        """As in ``rows of shape 8x8`` or ``rows of x (5 numbers) and categories (3 categories)``."""
        if list(self.inputs) == ["x"] and self.inputs["x"].kind == "numbers":
            return f"rows of shape {'x'.join(map(str, self.feature_shape)) or '1'}"
        if self.y_kind == "tokens":
            return f"rows of {self.feature_shape[0]} tokens"
        parts = [
            f"{name} ({'x'.join(map(str, spec.shape)) or '1'} {spec.kind})"
            for name, spec in self.inputs.items()
        ]
        return f"rows of {' and '.join(parts)}"

    @property
    def remaining_normalisation(self) -> tuple[np.ndarray, np.ndarray]:
        """Shift and scale, in the type of the batches, for rows as they are in memory."""
        shift, scale = self.normalisation
        if self.is_normalised:
            return np.zeros(shift.shape, self.dtype), np.ones(scale.shape, self.dtype)
        return (shift - self.bases).astype(self.dtype), scale.astype(self.dtype)

    def normalisers(self) -> Iterator[tuple[np.ndarray, np.ndarray] | None]:
        """Shift and scale of each input in turn, for rows as they are in memory; None for codes."""
        start = 0
        for spec in self.inputs.values():
            if spec.kind != "numbers":
                yield None
                continue
            part = slice(start, start + spec.size)
            shift, scale = self.remaining_normalisation
            yield shift[part], scale[part]
            start += spec.size

    @property
    def is_ready(self) -> bool:
        """Whether rows in memory are those of the batches, number by number."""
        shift, scale = self.remaining_normalisation
        return self._is_floats and not shift.any() and bool((scale == 1).all())

    @property
    def _is_floats(self) -> bool:
        """Whether rows are one input, of the batches' own type."""
        dtypes = [part.dtype for rows in self.splits.values() for part in rows.inputs]
        is_one = [spec.kind for spec in self.inputs.values()] == ["numbers"]
        return is_one and all(dtype == self.dtype for dtype in dtypes)

    @property
    def batch_row_bytes(self) -> int:
        """Of all inputs of a row, in a batch."""
        sizes = [
            spec.size * (self.dtype.itemsize if spec.kind == "numbers" else 4)
            for spec in self.inputs.values()
        ]
        return sum(sizes)

    @property
    def target_count(self) -> int:
        """Targets of a row; 0 for others."""
        return self.target_scale.shift.size

    @property
    def class_count(self) -> int | None:
        """Number of classes; None for targets and tokens."""
        return len(self.class_names) or None

    @property
    def token_count(self) -> int | None:
        """Of a text: how many different tokens there are; None for other data."""
        values = self.inputs["tokens"].values if self.y_kind == "tokens" else None
        return values if isinstance(values, int) else None

    @property
    def output_count(self) -> int:
        """Numbers that a model gives for a row: one for each class, or for each target; for each place one for each token."""
        return self.class_count or self.token_count or self.target_count

    @property
    def outputs_text(self) -> str:
        """As in ``10 classes``, ``1 target`` or ``65 different tokens``."""
        if self.y_kind == "tokens":
            return f"{self.output_count} different tokens"
        kind = "classes" if self.class_count else "targets" if self.target_count > 1 else "target"
        return f"{self.output_count} {kind}"


def renormalised(data: DataSet, normalisation: tuple[np.ndarray, np.ndarray]) -> DataSet:
    """The same rows with another shift and scale, each of shape (numbers,)."""
    shift, scale = (values.astype(np.float64) for values in normalisation)
    return replace(data, normalisation=(shift, scale))


def normalised_in_memory(data: DataSet, host: Host) -> DataSet:
    """The same rows, normalised once for all where they lie, if they are floats in memory. Collective over the host."""
    if data.way.name != "memory" or not data._is_floats or data.is_ready:
        return data
    shift, scale = data.remaining_normalisation
    # Splits may be parts of one table.
    for x in {id(rows.x): rows.x for rows in data.splits.values()}.values():
        first, last = share(0, len(x), host.local_size, host.local_rank)
        block_rows = max(1, _NORMALISED_BYTES // max(1, x.strides[0]))
        for start in range(first, last, block_rows):
            block = x[start : min(start + block_rows, last)]
            block -= shift
            block *= scale
    host.host_barrier()
    return replace(data, is_normalised=True)
