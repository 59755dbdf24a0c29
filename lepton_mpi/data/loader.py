"""From names of files to a data set whose rows are ready."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lepton_mpi.data.dataset import DataSet
from lepton_mpi.data.files import hdf5
from lepton_mpi.data.files.array_names import prepare_line
from lepton_mpi.data.files.label_arrays import notes_on_labels, number_apart
from lepton_mpi.data.files.layouts import OpenFile, YKind
from lepton_mpi.data.files.probe import Arrays
from lepton_mpi.data.filling import choose_way, make_rows, shape_of
from lepton_mpi.data.holding_out import hold_out
from lepton_mpi.data.host import Host
from lepton_mpi.data.opening import bases_of, less_bases, open_all
from lepton_mpi.data.rows import Rows
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.data.ways import WayName
from lepton_mpi.errors import DataError

# Of classes, if the highest label is one that may mean none.
_COUNTS_APART = (256, 65536)


@dataclass(frozen=True)
class Wanted:
    """How a data set is to be read.

    Attributes
    ----------
    dtype : np.dtype
        float32 or float64, of the batches.
    held_out : mapping of str to float
        Fractions for ``validation`` and ``test``, used where the files have no such split; not of files of ``prepare``,
        whose rows may depend on each other.
    seed : int
        Decides which rows are held out.
    y_kind : {"auto", "classes", "targets", "tokens"}
        What the rows have to be predicted; "auto" takes floats as targets.
    way : {"auto", "memory", "mapped", "streamed"}
        Where rows are to be; "auto" takes the fastest that the memory of every host allows.
    arrays : (str or None, str or None)
        Names of features and labels in the files, see ``hdf5.open_file``.
    context, stride : int
        Of a text: tokens of a row, 0 for those that the files name; tokens from one row to the next, 0 for as many.
    target_scale : function of the number of targets, optional
        How targets are scaled, in place of what the files say: that of a checkpoint. Raises DataError.
    for_training : bool
        Whether there must be training rows.
    io_retry : float
        Seconds for which a read is tried again if the file system is out of reach.
    """

    dtype: np.dtype
    held_out: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    y_kind: YKind = "auto"
    way: WayName = "auto"
    arrays: Arrays = hdf5.USUAL_NAMES
    context: int = 0
    stride: int = 0
    target_scale: Callable[[int], TargetScale] | None = None
    for_training: bool = True
    io_retry: float = 0.0


def load(names: str | Sequence[str], wanted: Wanted, host: Host) -> DataSet:
    """Make the rows of some files ready, as one data set, and split them. Collective over the world.

    Parameters
    ----------
    names
        Paths, patterns of paths, or names of embedded data sets. Splits of several files follow each other.
    wanted
        How.
    host
        The host's memory and this rank's place in it.

    Raises
    ------
    DataError, ConfigurationError
        On every rank.
    """
    paths = _locate(names, wanted, host)
    with host.agreeing():
        how = wanted.y_kind, wanted.arrays, wanted.context, wanted.stride
        opened = open_all(paths, *how, wanted.io_retry)
        if wanted.target_scale is not None:
            opened = opened.with_targets(wanted.target_scale)
        normalisation = _normalisation(opened.facts, wanted.dtype)
    facts = opened.facts
    bases = bases_of(facts, opened.tables, wanted.dtype)
    tables = {split: less_bases(table, bases) for split, table in opened.tables.items()}
    shape = shape_of(tables, facts.target_count, wanted.dtype)
    way = choose_way(paths, tables, shape, wanted.way, host)
    splits = make_rows(tables, shape, way, host)
    with host.agreeing():
        class_names, on_labels = _class_names(facts, splits)
    if facts.y_kind != "tokens" and facts.has_labels:
        y = next(iter(splits.values())).y
        on_labels += notes_on_labels(y, facts.class_names, opened.is_prepared)
    if "train" not in splits:
        splits["train"] = replace(next(iter(splits.values())), chosen=np.zeros(0, np.int64))
    nothing = dict.fromkeys(("validation", "test"), 0.0)
    hold_out(
        splits, nothing if opened.is_prepared else nothing | dict(wanted.held_out), wanted.seed
    )
    with host.agreeing():
        if splits["train"].row_count == 0 and wanted.for_training:
            why = "all are held out, see --test-split"
            if opened.is_prepared:
                why = "the file has others alone, to be scored"
            raise DataError(f"{paths[0]}: expected rows to train on, got none: {why}")
    counts = {"class_count": len(class_names), "target_count": facts.target_count}
    encodings = replace(facts.encodings, inputs=dict(facts.inputs), **counts)
    if class_names and class_names == facts.offered.texts:
        encodings = replace(encodings, class_names=class_names)
    return DataSet(
        *(tuple(paths), facts.inputs, class_names, wanted.dtype, normalisation, splits),
        *(facts.y_kind, facts.target_scale, way),
        *(_joined(bases[name] for name in facts.normalisation), encodings),
        has_labels=facts.has_labels,
        notes=(*facts.notes, *on_labels),
    )


def _locate(names: str | Sequence[str], wanted: Wanted, host: Host) -> list[Path]:
    """The files, once one rank of each host has had them looked at. Collective. Raises DataError."""
    with host.agreeing():
        paths = hdf5.locate_all([names] if isinstance(names, str) else names)
    # A file system of several hosts may show a new file to some of them earlier.
    host.agree_on("what --data names", [str(path) for path in paths])
    with host.agreeing():
        if host.local_rank == 0:
            hdf5.probe_all(paths, wanted.arrays)
    return paths


def _normalisation(facts: OpenFile, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale of all inputs that are numbers, one behind the other. Raises DataError."""
    pairs = facts.normalisation.values()
    shift, scale = _joined(pair[0] for pair in pairs), _joined(pair[1] for pair in pairs)
    largest = np.finfo(dtype).max
    if not ((np.abs(shift) <= largest) & (np.abs(scale) <= largest)).all():
        raise DataError(
            f"{facts.path}: normalisation: expected numbers within {dtype}, got larger ones"
        )
    return shift, scale


def _joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """float64, one array behind the other; empty if there is none."""
    return np.concatenate([np.zeros(0), *arrays])


def _class_names(
    facts: OpenFile, splits: Mapping[str, Rows]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes, none of targets and tokens; and what the user should know of them. Raises DataError."""
    if facts.y_kind != "classes":
        return (), ()
    names, lowest = facts.class_names, 0
    if not names:
        names = tuple(str(number) for number in range(_class_count(splits)))
        lowest = int(splits["train"].y.min())
    offered, highest = facts.offered, len(names) - 1
    if not offered.texts:
        return names, ()
    first = offered.first_class(lowest, highest)
    if first == 0:
        return offered.texts, (offered.used(),)
    way = f"; from 1 up they are names for {prepare_line(facts.path)}" * (first == 1)
    return names, (offered.unused(lowest, highest) + way,)


def _class_count(splits: Mapping[str, Rows]) -> int:
    """One more than the highest class of the training rows; at least 2. Raises DataError."""
    train = splits["train"]
    count = max(2, int(train.y.max()) + 1)
    there = np.flatnonzero(np.bincount(train.y)) if count in _COUNTS_APART else np.arange(0)
    if (odd := number_apart(there.tolist())) is not None:
        line = prepare_line(train.table.first.path, f"--no-label={odd} --missing drop")
        raise DataError(
            f"{train.table.place_of(int((train.y == odd).argmax()))}: {odd} far from the other classes: a class, or no label? "
            f"{line} leaves these rows out, --no-label none takes it as a class"
        )
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
