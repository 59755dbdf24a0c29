"""Which data sets of a file are read, and so must be good: the rows that are asked for, and what this program writes itself.

All else is judged by where it is and not by what it is, see ``trust.py``: file names, axis labels and records of other programs
beside the rows are no reason to refuse them, nor a danger, since they are not read.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py

from lepton_mpi.data.files import foreign, trust
from lepton_mpi.data.files.array_names import (
    Pairs,
    candidates,
    find_pairs,
    pattern_of,
    prepare_line,
    unused,
)
from lepton_mpi.data.files.file_format import ENCODING, SPLITS
from lepton_mpi.errors import DataError, LeptonError

# Folders of what this program writes beside rows.
_FOLDERS = ("normalisation/", "vocabulary/", "about/")
_OF_TEXTS = ("tokens", "document_starts")
# An array may be a group of these: a sparse matrix by rows, and categories, as AnnData writes them.
SPARSE, CATEGORIES = ("data", "indices", "indptr"), ("codes", "categories")


@dataclass(frozen=True)
class Used:
    """What is read of a file.

    Attributes
    ----------
    pairs : dict
        Names of features and labels by split, see ``find_pairs``.
    names : tuple of str
        All data sets that are read.
    unused : tuple of str
        Data sets that look as if they were meant to be.
    is_own : bool
        The splits have named inputs, or a text in one piece, as only files of this program do; there are no pairs then.
    """

    pairs: Pairs
    names: tuple[str, ...]
    unused: tuple[str, ...]
    is_own: bool = False


def find_used(file: h5py.File, path: Path, x: str | None = None, y: str | None = None) -> Used:
    """Choose by ``--x`` and ``--y``, or by usual names. Raises DataError without such names, or for a dangerous file.

    Where ``x`` or ``y`` is given, nothing is looked at but what it may mean.
    """
    try:
        names = _data_set_names(file, x, y)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if not (x or y) and _are_own(names):
        return Used({}, _own(names), (), is_own=True)
    try:
        pairs = _to_score(names) or find_pairs(_askable(names), x, y, str(path))
    except LeptonError:
        everything = trust.data_set_names(file)
        if frame := foreign.frame_among(everything):
            raise DataError(f"{path}: {_of_frame(frame, path)}") from None
        pairs = find_pairs(arrays_of(everything), x, y, str(path))  # to say it with all names
    return Used(pairs, _read(names, pairs), tuple(unused(arrays_of(names), pairs)))


def _of_frame(key: str, path: Path) -> str:
    """What to do with a frame of pandas."""
    parquet = f"{path.stem}.parquet"
    return (
        f"expected arrays, got {key}, a frame of pandas: pandas.read_hdf({path.name!r}, {key!r}).to_parquet({parquet!r}) in "
        f"Python, then {prepare_line(parquet, '--label NAME')}"
    )


def check_as_they_are(file: h5py.File, path: Path, used: Used) -> None:
    """Refuse arrays that mean something else than they say; ``prepare`` reads them. Raises DataError."""
    labels = {pair[1] for pair in used.pairs.values()}
    for name in (name for pair in used.pairs.values() for name in pair if name):
        thing = file.get(name)
        came = ""
        if isinstance(thing, h5py.Group):
            came = "a group of arrays"
        elif foreign.is_of_matlab(thing):
            came = "an array of MATLAB, whose dimensions are in reverse order"
        elif trust.is_text(thing.id.get_type()):
            came = "texts"
        elif not foreign.packing_of(thing).is_plain:
            came = "numbers that are packed, or of which some stand for none (_FillValue, scale_factor, valid_range)"
        if came:
            x, y = pattern_of(used.pairs)
            line = prepare_line(path, f"--x {x} --y {y}")
            hint = f": {line}" if came != "texts" or name in labels else ""
            raise DataError(f"{path}: /{name}: expected numbers as they are, got {came}{hint}")


def judged_names(file: h5py.File, x: str | None = None, y: str | None = None) -> tuple[str, ...]:
    """Data sets that must be good before one is read. Raises DataError for a dangerous file.

    Without rows to read, those that this program writes; ``find_used`` says then what is missing.
    """
    names = _data_set_names(file, x, y)
    if not (x or y) and _are_own(names):
        return _own(names)
    try:
        pairs = _to_score(names) or find_pairs(_askable(names), x, y)
    except LeptonError:
        pairs = {}
    return _read(names, pairs)


def _data_set_names(file: h5py.File, x: str | None, y: str | None) -> list[str]:
    only = None
    if x or y:
        only = [name for one in candidates(x, y) for name in (one, *_members(one))]
    return trust.data_set_names(file, only)


def _are_own(names: list[str]) -> bool:
    groups = ("train/inputs/", *(f"{split}/inputs/" for split in _splits_to_score(names)))
    streams = ("train/tokens", *(f"{split}/tokens" for split in _splits_to_score(names)))
    return any(name in streams or name.startswith(groups) for name in names)


def _to_score(names: list[str]) -> Pairs:
    """Of a file with rows to be scored, which ``prepare --like`` makes: those of its splits; else nothing."""
    splits = [split for split in _splits_to_score(names) if f"{split}/x" in names]
    have_labels = any(f"{split}/y" in names for split in splits)
    return {split: (f"{split}/x", f"{split}/y" if have_labels else "") for split in splits}


def _splits_to_score(names: list[str]) -> tuple[str, ...]:
    """All but training, of a file of ``prepare`` without training rows; else nothing."""
    if ENCODING not in names or any(name.startswith("train/") for name in names):
        return ()
    return SPLITS[1:]


def _own(names: list[str]) -> tuple[str, ...]:
    """Of a file of named inputs, or of a text: all that its splits hold."""
    splits = tuple(f"{split}/" for split in SPLITS)
    return tuple(name for name in names if name.startswith((*splits, *_FOLDERS)))


def _beside_rows(names: list[str]) -> list[str]:
    """What this program writes beside rows, and reads."""
    texts = [f"{split}/{name}" for split in SPLITS for name in ("tokens", "document_starts")]
    return [name for name in names if name.startswith(_FOLDERS) or name in texts]


def _askable(names: list[str]) -> list[str]:
    """Arrays, and the data sets that they are made of."""
    return list(dict.fromkeys([*arrays_of(names), *names]))


def _read(names: list[str], pairs: Pairs) -> tuple[str, ...]:
    chosen = {name for pair in pairs.values() for name in pair}
    members = {name for one in chosen for name in (one, *_members(one))}
    return (*(name for name in names if name in members), *_beside_rows(names))


def arrays_of(names: list[str]) -> list[str]:
    """Names of what may be features or labels: data sets, and groups that are one array together.

    >>> arrays_of(["X/data", "X/indices", "X/indptr", "obs/kind/codes", "obs/kind/categories", "#refs#/a", "y"])
    ['X', 'obs/kind', 'y']
    """
    known, found = set(names), {}
    for name in names:
        group, _, last = name.rpartition("/")
        for members in (SPARSE, CATEGORIES):
            if last in members and all(f"{group}/{other}" in known for other in members):
                name = group
        if not name.startswith(("#refs#", "#subsystem#", *_FOLDERS)):
            found[name] = None
    return list(found)


def _members(name: str) -> list[str]:
    """Data sets that may make an array together."""
    group = name.removesuffix("/codes")
    return [f"{group}/{member}" for member in (*SPARSE, *CATEGORIES)]
