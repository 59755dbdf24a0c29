"""The last pass: every row that stays goes to rank 0, in the order of the blocks, and into the file."""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lepton_mpi.data.files.file_format import CATEGORY_COLUMNS, ENCODING, SPLITS
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.errors import DataError
from lepton_mpi.prepare.labels import Labels
from lepton_mpi.prepare.normalisation import Normalisation
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.passes import Blocks
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.selection import Selection
from lepton_mpi.prepare.statistics import Moments
from lepton_mpi.prepare.survey import Survey
from lepton_mpi.prepare.transformation import Transformation
from lepton_mpi.prepare.writing import RowWriter, disk_errors, fixed_texts, new_file, write_facts
from lepton_mpi.wording import printable

# Categories that are an input of their own.
_CATEGORIES = "inputs/categories"
_STATISTICS = ("count", "mean", "std", "minimum", "maximum")


class RowSet(NamedTuple):
    """A data set of rows that each split has: its name there, the shape of a row, and its type."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that is decided before the rows are written."""

    options: Options
    source: Source
    found: Survey
    labels: Labels
    chosen: Selection
    fitted: Transformation
    bounds: np.ndarray
    row_shape: tuple[int, ...]
    dtype: np.dtype
    target_scale: TargetScale
    encoding: bytes = b""

    @cached_property
    def y(self) -> np.ndarray:
        """Labels of all rows, as stored; targets in float64, since large ones may differ by little."""
        return self.labels.y

    @property
    def scales_of_targets(self) -> dict[str, np.ndarray]:
        """What the file says of how targets are trained on, by data set; nothing if they are as they are."""
        scale = self.target_scale
        if scale.is_identity:
            return {}
        return {
            "normalisation/target_shift": scale.shift,
            "normalisation/target_scale": scale.scale,
            "normalisation/target_log": scale.log.astype(np.uint8),
        }

    @cached_property
    def row_sets(self) -> list[RowSet]:
        """What each split has, in the order in which it is sent and written."""
        sets = [RowSet("x", self.row_shape, self.dtype)] if self.has_x else []
        if values := self.values:
            codes = np.dtype(np.uint8 if max(values) <= 256 else np.int32)
            sets.append(RowSet(_CATEGORIES, (len(values),), codes))
        of_y = [RowSet("y", self.y.shape[1:], self.y.dtype)] if self.labels.are_there else []
        return [*sets, *of_y]

    @property
    def has_x(self) -> bool:
        """Whether there are numbers: a table may have categories alone."""
        return 0 not in self.row_shape

    @property
    def values(self) -> list[int]:
        """How many there are of each category that is in an input of their own."""
        return [len(self.fitted.categories[feature]) for feature in self.fitted.apart]

    @cached_property
    def texts(self) -> dict[str, tuple[str, ...]]:
        """What is stored as texts, by data set."""
        out: dict[str, tuple[str, ...]] = {}
        columns, fitted = self.source.columns, self.fitted
        widths, place, names = fitted.widths(len(columns)), 0, []
        for feature, name in enumerate(columns):
            texts = fitted.categories.get(feature, ())
            if feature in fitted.one_hot:
                names += [f"{name}={printable(text)}" for text in texts] * bool(widths[feature])
            elif widths[feature]:
                names.append(name)
                if texts:
                    out[f"about/categories/{place}"] = texts
            place += int(widths[feature])
        if names:
            out["about/columns"] = tuple(names)
        if fitted.apart:
            out[CATEGORY_COLUMNS] = tuple(columns[feature] for feature in fitted.apart)
        for place, feature in enumerate(fitted.apart):
            out[f"about/inputs/categories/{place}"] = fitted.categories[feature]
        if self.source.vocabulary:
            out["about/vocabulary"] = self.source.vocabulary
        return out

    @property
    def data_sets(self) -> list[str]:
        """Names of all that the file will have."""
        splits = [split for split, count in self.chosen.counts().items() if count]
        rows = [f"{split}/{rows.name}" for split in splits for rows in self.row_sets]
        of_x = [f"about/statistics/{name}" for name in _STATISTICS]
        of_x += ["normalisation/shift", "normalisation/scale"]
        of_x = of_x if self.has_x else []
        return [
            *rows,
            "about/report",
            "about/encoding",
            *of_x,
            *self.texts,
            *self.scales_of_targets,
        ]


@dataclasses.dataclass(frozen=True)
class Output:
    """The file, an ``h5py.File``, and what writes its rows, by data set. Rank 0 has one, unless it is a dry run."""

    file: Any
    writers: dict[str, RowWriter]


def write_rows(plan: Plan, blocks: Blocks, out: Output | None) -> np.ndarray:
    """Send every row that stays to rank 0, which writes it. Collective.

    Returns the cells filled and clipped in rows that stay, int64 (2, features).
    """
    world, features = blocks.world, int(np.prod(plan.source.row_shape))
    changed = np.zeros((2, features), np.int64)

    def visit(number: int) -> list[np.ndarray]:
        arrays, counts = _rows_of(plan, blocks, number)
        changed[:] += counts
        return arrays

    for numbers, mine in blocks.rounds(visit):
        received = _gathered(plan, numbers, mine, world)
        with world.agreeing(), disk_errors(plan.options.output):
            for number, arrays in zip(numbers, received, strict=False):
                _append(plan, out, number, arrays)
    with world.agreeing(), disk_errors(plan.options.output):
        for writer in out.writers.values() if out else ():
            writer.close()
    total = np.empty_like(changed)
    world.comm.Allreduce(changed, total)
    return total


def _splits_in(plan: Plan, number: int) -> list[tuple[str, np.ndarray]]:
    """Splits that get rows of a block, and which: positions in all rows, repeated as they are written."""
    start, stop = plan.bounds[number], plan.bounds[number + 1]
    rows = np.repeat(np.arange(start, stop), plan.chosen.repeats[start:stop])
    splits = plan.chosen.splits[rows]
    found = [(name, rows[splits == i]) for i, name in enumerate(SPLITS)]
    return [(name, of_split) for name, of_split in found if of_split.size]


def _rows_of(plan: Plan, blocks: Blocks, number: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The row sets of each split of a block, as stored, and the cells changed."""
    block, name = blocks.read(number), blocks.places[number][0].name
    encoded = plan.fitted.encoded(block)
    start = plan.bounds[number]
    sets = {rows.name: rows for rows in plan.row_sets}
    whole = {"x": plan.fitted.finished(encoded)} if plan.has_x else {}
    if plan.values:
        whole[_CATEGORIES] = plan.fitted.codes(encoded)
    arrays = []
    for _, rows in _splits_in(plan, number):
        for key, values in whole.items():
            chosen = _as_dtype(values[rows - start], sets[key].dtype, name)
            arrays.append(chosen.reshape(-1, *sets[key].shape))
        if plan.labels.are_there:
            arrays.append(np.ascontiguousarray(plan.y[rows]))
    stays = plan.chosen.repeats[start : start + len(encoded)] > 0
    return arrays, plan.fitted.counts(encoded[stays])


def _as_dtype(x: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        out = np.ascontiguousarray(x, dtype)
        wrong = out != x if dtype == np.uint8 else ~np.isfinite(out) if dtype.kind == "f" else None
    if wrong is not None and wrong.any():
        value = x[wrong].reshape(-1)[0]
        raise DataError(f"{name}: expected numbers that --dtype {dtype} can hold, got {value}")
    return out


def _gathered(
    plan: Plan, numbers: range, mine: list[np.ndarray] | None, world: Any
) -> list[list[np.ndarray]]:
    """On rank 0 the arrays of all blocks of a round, received in the order of the blocks. Collective."""
    if plan.options.dry_run:
        return []
    if world.rank > 0:
        for array in mine or ():
            world.comm.Send(array, 0)
        return []
    received = [mine]
    for sender, number in enumerate(numbers[1:], start=1):
        arrays = []
        for _, rows in _splits_in(plan, number):
            arrays += [np.empty((len(rows), *of.shape), of.dtype) for of in plan.row_sets]
        for array in arrays:
            world.comm.Recv(array, sender)
        received.append(arrays)
    return received


def _append(plan: Plan, out: Output, number: int, arrays: list[np.ndarray]) -> None:
    places = [
        f"{split}/{rows.name}" for split, _ in _splits_in(plan, number) for rows in plan.row_sets
    ]
    for place, array in zip(places, arrays, strict=True):
        out.writers[place].append(array)


# -- the file ----------------------------------------------------------------------------------------


@contextmanager
def output(plan: Plan, world: Any) -> Iterator[Output | None]:
    """The file on rank 0, whole at the end of the block or not there; None elsewhere, and in a dry run. Collective."""
    with ExitStack() as stack:
        out = None
        with world.agreeing():
            if world.rank == 0 and not plan.options.dry_run:
                out = _open_output(plan, stack)
        yield out
        with world.agreeing():
            stack.close()


def _open_output(plan: Plan, stack: ExitStack) -> Output:
    path = Path(plan.options.output)
    file = stack.enter_context(new_file(path))
    writers, storage = {}, (plan.options.layout, plan.options.compress)
    for split, count in plan.chosen.counts().items():
        for rows in plan.row_sets if count else ():
            place = f"{split}/{rows.name}"
            with disk_errors(path):
                shape = (count, *rows.shape)
                writers[place] = RowWriter(file, place, shape, rows.dtype, *storage)
                if rows.name == _CATEGORIES:
                    writers[place].describe("categories", plan.values)
    return Output(file, writers)


def write_everything_else(
    plan: Plan, facts: dict[str, Any], moments: Moments, normaliser: Normalisation, out: Output
) -> None:
    """What the file holds besides its rows. One rank calls it."""
    arrays = plan.scales_of_targets
    arrays[ENCODING] = np.frombuffer(plan.encoding, np.uint8)
    if plan.has_x:
        shift, scale = normaliser.of_rows(plan.row_shape)
        arrays |= {"normalisation/shift": shift, "normalisation/scale": scale}
        arrays |= {f"about/statistics/{name}": getattr(moments, name) for name in _STATISTICS}
    arrays |= {name: fixed_texts(texts) for name, texts in plan.texts.items()}
    version = 2 if plan.values else 1
    with disk_errors(plan.options.output):
        write_facts(out.file, facts, arrays, plan.labels.class_names, version)
