"""Opens the files of a data set and makes their rows ready: in the host's memory, mapped, or to be streamed.

In memory all ranks of a host fill one table together, each its part of the file, and all read from it afterwards: any
row of an epoch's order can be gathered by any rank, and the host holds one copy. Classes and targets are always so.
"""

import resource
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from lepton_mpi.chunks import share
from lepton_mpi.data import augmentation_kernels, order, shuffle_kernels
from lepton_mpi.data import kernels as row_kernels
from lepton_mpi.data.batches import Rows
from lepton_mpi.data.files import hdf5
from lepton_mpi.data.files.checksum_kernels import fletcher32
from lepton_mpi.data.files.stored_rows import StoredFile, StoredRows
from lepton_mpi.data.order import BlockShuffle, FullShuffle, MicroBatches
from lepton_mpi.data.tables import BLOCK_BYTES, Table, check_finite
from lepton_mpi.data.ways import Way, WayName, choose
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.kernels.compiling import Kernel

# Shorter runs are read at a fraction of the speed from disks and file servers.
_BLOCK_BYTES_MIN = 128 << 10
# Of a row, on each rank, while it is found out which are held out; the order of an epoch takes less.
_ORDER_BYTES = 32
# Of rows that are normalised at a time: they stay in the core's own cache.
_NORMALISED_BYTES = 256 << 10
# What MPI, Python and the libraries have open.
_OTHER_OPEN_FILES = 200


@dataclass(frozen=True)
class DataSet:
    """Everything that training needs of its files; the same on every rank.

    Rows have classes, which have names, or else targets, which are counted. ``way`` is where they are. Those in
    memory are normalised there if ``is_normalised``.
    """

    paths: tuple[Path, ...]
    feature_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    normalisation: tuple[np.ndarray, np.ndarray]
    splits: dict[str, Rows]
    target_count: int
    way: Way
    is_normalised: bool = False

    @property
    def name(self) -> str:
        """Of the file, or of the first and how many more."""
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return self.paths[0].name + more

    @property
    def remaining_normalisation(self) -> tuple[np.ndarray, np.ndarray]:
        """Shift and scale, in the type of the batches, for rows as they are in memory."""
        shift, scale = self.normalisation
        return (np.zeros_like(shift), np.ones_like(scale)) if self.is_normalised else (shift, scale)

    @property
    def is_ready(self) -> bool:
        """Whether rows in memory are those of the batches, number by number."""
        shift, scale = self.remaining_normalisation
        is_same_type = all(rows.dtype == shift.dtype for rows in self.splits.values())
        return is_same_type and not shift.any() and bool((scale == 1).all())

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64, of the batches."""
        return self.normalisation[0].dtype

    @property
    def y_kind(self) -> str:
        """What rows have to be predicted: classes or targets."""
        return "targets" if self.target_count else "classes"

    @property
    def class_count(self) -> int | None:
        """Number of classes; None for targets."""
        return len(self.class_names) or None

    @property
    def output_count(self) -> int:
        """Numbers that a model gives for a row: one for each class, or for each target."""
        return self.class_count or self.target_count

    @property
    def outputs_text(self) -> str:
        """As in ``10 classes`` or ``1 target``."""
        kind = "classes" if self.class_count else "targets" if self.target_count > 1 else "target"
        return f"{self.output_count} {kind}"


def kernels(augments: bool) -> list[Kernel]:
    """What reading, checking and shuffling rows call; ``augments`` if rows are changed at random."""
    changing = [augmentation_kernels.gather_augmented] if augments else []
    return [
        *(shuffle_kernels.sort_buckets, shuffle_kernels.count_numbers),
        *(shuffle_kernels.place_numbers, fletcher32, row_kernels.all_finite),
        *(row_kernels.gather_rows, row_kernels.gather_labels, row_kernels.gather_targets),
        *changing,
    ]


class Host(Protocol):
    """What data need of the world: this host's memory, this rank's place in it, agreement, and where time is booked."""

    local_rank: int
    local_size: int
    clock: Any  # of watchdog.py

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype, name: str = "") -> np.ndarray:
        """Array shared by the ranks of this host."""

    def agreeing(self) -> AbstractContextManager:
        """A block in which an error of one rank is raised on all of them."""

    def agree_on(self, what: str, value: Any) -> None:
        """Raise an error on every rank unless all ranks hold the same ``value``."""

    def host_barrier(self) -> None:
        """Wait for all ranks of this host."""

    def least(self, value: int) -> int:
        """The least of all ranks' numbers."""

    def memory_available(self) -> int:
        """Bytes of memory that this host has free for this job."""


def load(
    names: str | Sequence[str],
    dtype: np.dtype,
    held_out: dict[str, float],
    seed: int,
    host: Host,
    y_kind: hdf5.YKind = "auto",
    way: WayName = "auto",
) -> DataSet:
    """Make the rows of some files ready, as one data set, and split them. Collective over the world.

    Parameters
    ----------
    names
        Paths, patterns of paths, or names of embedded data sets. Splits of several files follow each other.
    dtype
        float32 or float64, of the batches.
    held_out
        Fractions for ``validation`` and ``test``, used where the files have no such split; not of files of ``prepare``,
        whose rows may depend on each other.
    seed
        Decides which rows are held out.
    host
        The host's memory and this rank's place in it.
    y_kind
        Whether rows have classes or targets; "auto" takes floats as targets.
    way
        Where rows are to be; "auto" takes the fastest that the memory of every host allows.

    Raises
    ------
    DataError, ConfigurationError
        On every rank.
    """
    with host.agreeing():
        paths = hdf5.locate_all([names] if isinstance(names, str) else names)
    # A file system of several hosts may show a new file to some of them earlier.
    host.agree_on("what --data names", [str(path) for path in paths])
    with host.agreeing():
        if host.local_rank == 0:
            hdf5.probe_all(paths)
    with host.agreeing():
        first, tables = _open(paths, y_kind)
    is_bytes = all(table.is_bytes for table in tables.values())
    shape = _Shape(
        int(np.prod(first.feature_shape, dtype=np.int64)),
        np.dtype(np.uint8) if is_bytes else dtype,
        first.target_count,
        dtype if first.target_count else np.dtype(np.int32),
    )
    chosen = _choose_way(paths, tables, shape, way, host)
    splits = _make_rows(tables, shape, chosen, host)
    with host.agreeing():
        class_names = first.class_names
        if not shape.targets and not class_names:
            class_names = tuple(str(number) for number in range(_class_count(splits)))
    _hold_out(splits, dict.fromkeys(held_out, 0.0) if first.is_prepared else held_out, seed)
    with host.agreeing():
        if splits["train"].row_count == 0:
            raise DataError(
                f"{paths[0]}: expected rows to train on, got none: all are held out, see --test-split"
            )
        normalisation = _normalisation(first, dtype)
    return DataSet(
        *(tuple(paths), first.feature_shape, class_names),
        *(normalisation, splits, shape.targets, chosen),
    )


def renormalised(data: DataSet, normalisation: tuple[np.ndarray, np.ndarray]) -> DataSet:
    """The same rows with another shift and scale, each of shape (features,)."""
    return replace(data, normalisation=normalisation)


def normalised_in_memory(data: DataSet, host: Host) -> DataSet:
    """The same rows, normalised once for all where they lie, if they are floats in memory. Collective over the host."""
    shift, scale = data.normalisation
    is_float = all(rows.dtype == shift.dtype for rows in data.splits.values())
    if data.way.name != "memory" or not is_float or data.is_ready:
        return data
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


def training_order(
    data: DataSet, micro_batches: MicroBatches, seed: int, kind: str, window_bytes: int
) -> FullShuffle | BlockShuffle:
    """The order of the training rows.

    Parameters
    ----------
    kind : {"auto", "full", "blocks"}
        auto: blocks where rows are streamed, else full.
    window_bytes
        Memory of one window of each micro-batch's stream, all together.

    Raises
    ------
    ConfigurationError
        For the full shuffle of rows that are streamed.
    """
    rows = data.splits["train"]
    if kind == "auto":
        kind = "blocks" if data.way.name == "streamed" else "full"
    if kind == "full":
        if data.way.name == "streamed":
            raise ConfigurationError(
                f"--shuffle full: expected rows in memory or mapped, got streamed ({data.way.reason}); take "
                "--shuffle blocks"
            )
        return FullShuffle(rows.row_count, rows.chosen, micro_batches, seed)
    window_bytes //= micro_batches.count
    # Some blocks in a window, so that neighbours in the file come apart.
    blocks = rows.table.blocks(min(BLOCK_BYTES, max(_BLOCK_BYTES_MIN, window_bytes // 8)))
    if rows.chosen is not None:
        blocks = np.unique(np.searchsorted(rows.chosen, blocks))
    window_rows = window_bytes // max(1, rows.features * rows.dtype.itemsize)
    return BlockShuffle(rows.chosen, blocks, micro_batches, seed, window_rows)


def _open(paths: list[Path], y_kind: hdf5.YKind) -> tuple[hdf5.OpenFile, dict[str, Table]]:
    """What the files say of themselves, all alike, and tables by split of those that have some of its rows."""
    _allow_open_files(len(paths))
    found: list[hdf5.OpenFile] = []
    parts: dict[str, tuple[list[StoredRows], list[StoredRows]]] = {}
    for path in paths:
        with hdf5.open_file(path, y_kind) as opened:
            stays_open = StoredFile(path, opened.file)
            for split, source in opened.sources.items():
                x, y = parts.setdefault(split, ([], []))
                x.append(StoredRows(stays_open, source.x))
                y.append(StoredRows(stays_open, source.y))
        found.append(opened)
    hdf5.check_alike(found)
    tables = {split: Table(x, y, len(found[0].class_names)) for split, (x, y) in parts.items()}
    if tables["train"].row_count == 0:
        stored = tables["train"].x[0]
        raise DataError(f"{stored.path}: {stored.name}: expected rows to train on, got none")
    return replace(found[0], is_prepared=any(file.is_prepared for file in found)), tables


class _Shape(NamedTuple):
    """Features of a row, their type, targets of a row (0: classes), and the type of ``y``, in memory."""

    features: int
    dtype: np.dtype
    targets: int
    y_dtype: np.dtype


def _choose_way(
    paths: list[Path], tables: dict[str, Table], shape: _Shape, wanted: WayName, host: Host
) -> Way:
    """The same on every rank of every host. Collective."""
    rows = sum(table.row_count for table in tables.values())
    why_not = _why_not_mapped(tables, shape.dtype)
    # Each rank shuffles numbers of all rows, if they are not streamed.
    available = host.least(max(0, host.memory_available() - _ORDER_BYTES * rows * host.local_size))
    chosen = choose(wanted, rows * shape.features * shape.dtype.itemsize, why_not, available)
    with host.agreeing():
        if chosen.name == "mapped" and why_not:
            raise ConfigurationError(f"--loader mapped: {paths[0]}: {why_not}")
    return chosen


def _make_rows(tables: dict[str, Table], shape: _Shape, way: Way, host: Host) -> dict[str, Rows]:
    """Rows of every table, filled as far as they are kept in memory. Collective over the host."""
    splits = {}
    for split, table in tables.items():
        of_y = (table.row_count, shape.targets) if shape.targets else (table.row_count,)
        y, x = host.host_array(of_y, shape.y_dtype, "rows"), None
        if way.name == "memory":
            x = host.host_array((table.row_count, shape.features), shape.dtype, "rows")
        elif way.name == "mapped":
            x = _map(table, shape.features)
        splits[split] = Rows(table, shape.features, shape.dtype, y, x)
    with host.agreeing():
        for rows in splits.values():
            _fill(rows, host, is_mapped=way.name == "mapped")
    host.host_barrier()
    return splits


def _normalisation(first: hdf5.OpenFile, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale in the type of the batches. Raises DataError."""
    with np.errstate(over="ignore"):
        shift, scale = (np.asarray(values, dtype) for values in first.normalisation)
    if not (np.isfinite(shift).all() and np.isfinite(scale).all()):
        raise DataError(
            f"{first.path}: normalisation: expected numbers within {dtype}, got larger ones"
        )
    return shift, scale


def _allow_open_files(count: int) -> None:
    """Raise this process's limit of open files, if it must be and can be. Raises DataError."""
    wanted = count + _OTHER_OPEN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise DataError(
            f"{count} files: expected at most {max(0, hard - _OTHER_OPEN_FILES)}, since a process may open {hard} here: put "
            "them together, or ask for more (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _why_not_mapped(tables: dict[str, Table], row_dtype: np.dtype) -> str:
    """Why kernels cannot read the rows where they lie in the file; empty if they can."""
    for table in tables.values():
        if len(table.x) > 1:
            return f"expected one file, got {len(table.x)}"
        (stored,) = table.x
        if stored.row_count and stored.map_offset is None:
            return f"{stored.name}: expected rows in one piece, as prepare --layout contiguous writes them, got chunks"
        if stored.dtype != row_dtype:
            return f"{stored.name}: expected {row_dtype} as in memory, got {stored.dtype}"
        if (stored.map_offset or 0) % row_dtype.itemsize:
            return f"{stored.name}: expected rows from a multiple of {row_dtype.itemsize} bytes"
    return ""


def _map(table: Table, features: int) -> np.ndarray:
    """Rows of a table where the system has them in memory, or reads them when they are touched."""
    (stored,) = table.x
    if table.row_count == 0:
        return np.zeros((0, features), stored.dtype)
    shape = (table.row_count, features)
    return stored.mapped(shape)


def _fill(rows: Rows, host: Host, is_mapped: bool) -> None:
    """This rank's part of what is kept in memory; rows that are mapped are looked at. Raises DataError."""
    blocks = rows.table.blocks()
    first, last = share(0, len(blocks) - 1, host.local_size, host.local_rank)
    for start, stop in zip(blocks[first:last], blocks[first + 1 : last + 1], strict=True):
        host.clock.enter("start")  # progress, for the time limit, which is not one for all the data
        rows.table.read_y(start, stop, rows.y[start:stop])
        if rows.x is None:
            continue
        part = rows.x[start:stop]
        if not is_mapped:
            rows.table.read_x(start, stop, part)
        elif part.dtype.kind == "f":
            check_finite(rows.table.x[0], start, part)


def _hold_out(splits: dict[str, Rows], held_out: dict[str, float], seed: int) -> None:
    """Make the splits that are missing of training rows."""
    for purpose in ("test", "validation"):
        if purpose not in splits:
            train = splits["train"]
            kept, out = order.hold_out(train.row_count, held_out[purpose], seed, purpose)
            before = train.indices
            if out.size:  # else all rows still count, which takes no list of them
                splits["train"] = replace(train, chosen=before[kept])
            splits[purpose] = replace(train, chosen=before[out])


def _class_count(splits: dict[str, Rows]) -> int:
    """One more than the highest class of the training rows; at least 2."""
    train = splits["train"]
    count = max(2, int(train.y.max()) + 1)
    if count > max(2, train.y.size):
        raise DataError(
            f"{train.table.place_of(int(train.y.argmax()))}: expected fewer classes than the {train.y.size} rows, "
            f"got class {count - 1}"
        )
    for split in ("validation", "test"):
        rows = splits.get(split)
        if rows is not None and rows.y.max(initial=0) >= count:
            raise DataError(
                f"{rows.table.place_of(int(rows.y.argmax()))}: expected a class of {train.table.y[0].name}, from 0 to "
                f"{count - 1}, got {rows.y.max()}"
            )
    return count
