"""Which data sets of a file are rows to learn from: the layouts accepted, and what is checked of their descriptions.

A split is one or several inputs, data sets of shape (rows, …), and ``y``, the class of each row or its targets.
A file holds groups ``train``, and if present ``validation`` and ``test``, each with ``x``, with a group ``inputs`` of named
inputs, or with both, and with ``y``; or else each with ``tokens``, a text in one piece, of which a row is a window.
Files of other programs have one input under one of the names of ``array_names.py``, such as ``x_train`` and ``y_train``; or
``x`` and ``y``, all rows, to be split at random; or under the names that are given. Which of them are read is in ``Used``.

``file_format.py`` says what each of them holds. Nothing of the rows is read here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import numpy as np

from lepton_mpi.batch import Input, Kind
from lepton_mpi.data.encodings import Encodings, target_count_of
from lepton_mpi.data.files import label_arrays, named, texts
from lepton_mpi.data.files.array_names import prepare_line
from lepton_mpi.data.files.class_names import NOTHING, Offered, offered_by
from lepton_mpi.data.files.file_format import ENCODING, SPLITS, check_version, is_prepared
from lepton_mpi.data.files.normalisers import normalisation_of, target_scale_of
from lepton_mpi.data.files.stored import chunk_count
from lepton_mpi.data.files.used import Used, check_as_they_are
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.errors import DataError
from lepton_mpi.wording import one_line

# What is asked for, and what a file has.
YKind = Literal["auto", "classes", "targets", "tokens"]
_VALUES_MAX = 2**31 - 1
# From so many on it takes seconds to find them.
_MANY_CHUNKS = 100_000


@dataclass(frozen=True)
class Source:
    """One split of an open file: its name, its data sets, its number of rows.

    Attributes
    ----------
    inputs : dict of str to h5py.Dataset
        ``x`` first; of a text ``tokens`` alone, which is flat.
    y : h5py.Dataset or None
        None for a text, and for rows to be scored.
    document_starts : h5py.Dataset or None
        Of a text: where its documents begin, if it says so.
    """

    split: str
    inputs: dict[str, h5py.Dataset]
    y: h5py.Dataset | None
    document_starts: h5py.Dataset | None = None

    @property
    def row_count(self) -> int:
        """Rows; of a text its tokens."""
        return next(iter(self.inputs.values())).shape[0]

    @property
    def is_text(self) -> bool:
        tokens = self.inputs.get("tokens")
        return self.y is None and tokens is not None and tokens.name == f"/{self.split}/tokens"


@dataclass(frozen=True)
class OpenFile:
    """What ``describe`` found.

    Attributes
    ----------
    sources : dict of str to Source
        By split.
    inputs : dict of str to Input
        Equal in all splits; of a text, ``tokens`` with the shape ().
    normalisation : dict of str to (shift, scale)
        Of inputs that are numbers, float64 of shape (features,).
    y_kind : {"classes", "targets", "tokens"}
    target_count : int
        Targets of a row, 0 where there are none.
    target_scale : TargetScale
        Of none, where there are none.
    is_prepared : bool
        Whether ``prepare`` wrote the file, so that it has all splits that it is to have.
    notes : tuple of str
        What the user should know of the choice.
    context : int
        Of a text: tokens of a row, if nobody asks for others; 0 where the file does not say.
    encodings : Encodings
        What the numbers stand for, as far as the file says it.
    offered : Offered
        What may be names of the classes, where the attribute ``classes`` does not name them.
    """

    path: Path
    file: h5py.File
    sources: dict[str, Source]
    inputs: dict[str, Input]
    normalisation: dict[str, tuple[np.ndarray, np.ndarray]]
    class_names: tuple[str, ...]
    y_kind: str
    target_count: int
    target_scale: TargetScale
    is_prepared: bool
    notes: tuple[str, ...] = ()
    context: int = 0
    encodings: Encodings = field(default_factory=Encodings)
    offered: Offered = NOTHING

    @property
    def has_labels(self) -> bool:
        """False for rows to be scored."""
        return self.y_kind == "tokens" or next(iter(self.sources.values())).y is not None


@dataclass(frozen=True)
class _Names:
    """Names of the data sets of a split: of its inputs by name, and of ``y``."""

    inputs: dict[str, str]
    y: str | None

    @property
    def is_text(self) -> bool:
        place = next(iter(self.inputs.values()))
        return self.y is None and place.endswith("/tokens") and "/inputs/" not in place


def describe(file: h5py.File, path: Path, y_kind: YKind, used: Used) -> OpenFile:
    """What a file says of itself, if it is all that it should be; ``y_kind`` is what ``y`` must be. Raises DataError."""
    check_version(file.attrs, path)
    check_as_they_are(file, path, used)
    found, class_names = _find(file, path, used), _class_names(file, path)
    kind = _kind_of_y(file, path, found, class_names, y_kind)
    sources = {
        split: _source(file, path, split, names_of, kind) for split, names_of in found.items()
    }
    train = next(iter(sources.values()))
    inputs = {name: _input(path, train, data_set) for name, data_set in train.inputs.items()}
    names, target_count = named.names_of(file, path), 0
    if kind == "targets" and train.y is not None:
        target_count = prod(train.y.shape[1:])
    elif kind == "targets":
        target_count = target_count_of(names.get("prepared", b""))
    for source in sources.values():
        _check_like_train(path, source, train, inputs)
    names["class_names"] = class_names if kind == "classes" else ()
    names["input_columns"] = named.category_columns(file, path, inputs) if used.is_own else ()
    width = 1 if train.y is None else label_arrays.width(train.y.shape)
    offered = NOTHING
    if kind == "classes" and not class_names and train.y is not None:
        offered = offered_by(file, train.y.name)
        if width > 1:
            class_names = tuple(map(str, range(width)))
    normalisation = {
        name: normalisation_of(
            *(file, path, name, inputs[name].shape),
            all(source.inputs[name].dtype == np.uint8 for source in sources.values()),
        )
        for name in inputs
        if inputs[name].kind == "numbers"
    }
    context = 0
    if kind == "tokens":
        context = texts.context(path, train.inputs["tokens"])
        names["vocabulary"] = texts.vocabulary(file, path, inputs["tokens"])
    return OpenFile(
        *(path, file, sources, inputs, normalisation),
        *(class_names if kind == "classes" else (), kind, target_count),
        *(target_scale_of(file, path, target_count), is_prepared(file.attrs)),
        notes=_notes(used, train, kind, path, offered),
        context=context,
        encodings=Encodings(**names),
        offered=offered,
    )


# -- where they are ------------------------------------------------------------------------------------


def _find(file: h5py.File, path: Path, used: Used) -> dict[str, _Names]:
    """Names of the data sets of each split that the file has. Raises DataError."""
    if used.is_own:
        found = {split: names for split in SPLITS if (names := _in_group(file, path, split))}
    else:
        found = {
            split or "train": _Names({"x": x}, y or None) for split, (x, y) in used.pairs.items()
        }
    if "train" not in found and not (found and ENCODING in file):
        raise DataError(f"{path}: expected rows to train on, got those of {', '.join(found)} alone")
    return found  # the training rows first, but for rows that prepare has made to be scored


def _notes(used: Used, train: Source, y_kind: str, path: Path, offered: Offered) -> tuple[str, ...]:
    """What was chosen among others, or is not as most files have it."""
    notes, y = [], train.y
    first = next(iter(train.inputs.values()))
    if (count := chunk_count(first.id)) > _MANY_CHUNKS:
        notes.append(
            f"{first.name}: {count} chunks of {first.chunks[0]} rows, slow to start: {prepare_line(path)} makes larger ones"
        )
    if unused := [name for name in used.unused if name != offered.where]:
        read = ", ".join(f"{x} and {y}" for x, y in used.pairs.values()) or "inputs"
        notes.append(f"read {read}; not used: {', '.join(unused[:12])}")
    if y is not None and y_kind == "classes" and label_arrays.width(y.shape) > 1:
        notes.append(f"{y.name}: one-hot rows, the class is the place of the 1")
    return tuple(notes)


def _in_group(file: h5py.File, path: Path, split: str) -> _Names | None:
    """Of a split that has a group; None where it has nothing that is read."""
    has_x, has_y, has_tokens = (f"{split}/{name}" in file for name in ("x", "y", "tokens"))
    group = file.get(f"{split}/inputs")
    if not isinstance(group, h5py.Group):  # a data set of this name is none of ours
        if not has_x and not has_y:
            return _Names({"tokens": f"{split}/tokens"}, None) if has_tokens else None
        return _Names({"x": f"{split}/x"}, f"{split}/y")
    if "x" in group or not len(group):
        raise DataError(
            f"{path}: {split}/inputs: expected a group of inputs, one at least, and x beside it, not in it"
        )
    inputs = {"x": f"{split}/x"} if has_x else {}
    inputs |= {name: f"{split}/inputs/{name}" for name in sorted(group)}
    is_to_score = ENCODING in file and not any(f"{other}/y" in file for other in SPLITS)
    return _Names(inputs, None if is_to_score else f"{split}/y")


def _class_names(file: h5py.File, path: Path) -> tuple[str, ...]:
    names = file.attrs.get("classes", ())
    listed = isinstance(names, tuple) or (isinstance(names, np.ndarray) and names.ndim == 1)
    texts = [name.decode() if isinstance(name, bytes) else name for name in names] if listed else []
    if not listed or not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise DataError(
            f"{path}: attribute classes: expected a list of printable texts, got {one_line(names)}"
        )
    return tuple(map(str, texts))


def _kind_of_y(
    file: h5py.File,
    path: Path,
    found: Mapping[str, _Names],
    class_names: tuple[str, ...],
    wanted: YKind,
) -> str:
    """What ``y`` are, the same for all splits. Floats without names of classes are targets, if nobody says more."""
    names = next(iter(found.values()))
    y = names.y
    if names.is_text:
        if wanted == "targets":
            raise DataError(
                f"{path}: expected numbers to predict, got a text, which has next tokens"
            )
        return "tokens"
    if wanted == "tokens":
        raise DataError(f"{path}: expected train/tokens, a text in one piece, got {y or 'rows'}")
    if wanted != "auto":
        return wanted
    if y is None:
        return "classes" if class_names else "targets"
    kind = getattr(file.get(y), "dtype", np.dtype(int)).kind
    return "targets" if kind == "f" and not class_names else "classes"


def _source(file: h5py.File, path: Path, split: str, names: _Names, y_kind: str) -> Source:
    if (y_kind == "tokens") != names.is_text:
        raise DataError(f"{path}: {split}: expected a text in one piece in every split or in none")
    if names.is_text:
        stream = texts.stream(file, path, names.inputs["tokens"])
        return Source(split, {"tokens": stream}, None, texts.document_starts(file, path, split))
    first = next(iter(names.inputs.values()))
    wanted = [*names.inputs.values(), *([names.y] if names.y else [])]
    for name in wanted:
        if not isinstance(file.get(name), h5py.Dataset):
            raise DataError(
                f"{path}: {name}: expected a data set beside {first if name != first else names.y}"
            )
    inputs = {name: file[place] for name, place in names.inputs.items()}
    y = file[names.y] if names.y else None
    for data_set in inputs.values():
        _check_numbers(path, data_set)
    if y is not None:
        _check_y(path, y, y_kind)
    rows, name = inputs[next(iter(inputs))].shape[0], inputs[next(iter(inputs))].name
    for data_set in (file[name] for name in wanted):
        if data_set.shape[0] != rows:
            raise DataError(
                f"{path}: {data_set.name}: expected {rows} rows as in {name}, got {data_set.shape[0]}"
            )
    return Source(split, inputs, y)


# -- what they are -------------------------------------------------------------------------------------


def _check_numbers(path: Path, data_set: h5py.Dataset) -> None:
    if data_set.dtype.kind not in "iufb" or data_set.ndim < 1:
        raise DataError(
            f"{path}: {data_set.name}: expected numbers of shape (rows, ...), got {data_set.dtype} of shape "
            f"{data_set.shape}"
        )
    if 0 in data_set.shape[1:]:
        raise DataError(
            f"{path}: {data_set.name}: expected at least one number in a row, got shape {data_set.shape}"
        )


def _check_y(path: Path, y: h5py.Dataset, y_kind: str) -> None:
    is_numbers = y.dtype.kind in "iufb" and y.ndim >= 1 and 0 not in y.shape[1:]
    if y_kind == "classes":
        expected = "whole numbers of shape (rows,), or one-hot rows"
        hint = "; --loss mse takes them as numbers to predict" if is_numbers else ""
        is_good = is_numbers and y.shape[1:].count(1) >= y.ndim - 2
    else:
        expected, hint = "numbers of shape (rows,) or (rows, targets)", ""
        is_good = is_numbers and set(y.shape[2:]) <= {1}
    if not is_good:
        raise DataError(
            f"{path}: {y.name}: expected {expected}, got {y.dtype} of shape {y.shape}{hint}"
        )


def _input(path: Path, source: Source, data_set: h5py.Dataset) -> Input:
    """What a data set says that its numbers are."""
    kind: Kind = "tokens" if source.is_text else _kind(path, data_set)
    shape = data_set.shape[1:]
    if kind == "numbers":
        return Input(kind, shape)
    if data_set.dtype.kind not in "iub":
        raise DataError(
            f"{path}: {data_set.name}: expected whole numbers, the codes of {kind}, got {data_set.dtype}"
        )
    return Input(kind, shape, _values(path, data_set, kind, prod(shape)))


def _kind(path: Path, data_set: h5py.Dataset) -> Kind:
    value: Any = data_set.attrs.get("kind", "numbers")
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    if not isinstance(text, str) or text not in get_args(Kind):
        raise DataError(
            f"{path}: {data_set.name}: attribute kind: expected {', '.join(get_args(Kind))}, got {one_line(value)}"
        )
    return text


def _values(path: Path, data_set: h5py.Dataset, kind: str, size: int) -> int | tuple[int, ...]:
    """How many codes there are: one number, or one for each element of a row."""
    are_bytes = kind == "tokens" and data_set.dtype == np.uint8
    value = data_set.attrs.get("values", 256 if are_bytes else None)
    numbers = np.asarray(value) if isinstance(value, int | np.integer | np.ndarray) else None
    is_good = numbers is not None and numbers.dtype.kind in "iu" and numbers.shape in ((), (size,))
    if is_good and kind == "tokens" and numbers.ndim:
        is_good = False
    if not is_good or ((numbers < 1) | (numbers > _VALUES_MAX)).any():
        more = f", or {size} such numbers" if kind == "categories" else ""
        raise DataError(
            f"{path}: {data_set.name}: attribute values: expected how many {kind} there are, a whole number from 1 up"
            f"{more}, got {one_line(value)}"
        )
    return int(numbers) if numbers.ndim == 0 else tuple(map(int, numbers))


def _check_like_train(
    path: Path, source: Source, train: Source, inputs: Mapping[str, Input]
) -> None:
    """Refuse a split whose rows are of another kind than those of training."""
    if source.inputs.keys() != train.inputs.keys():
        raise DataError(
            f"{path}: {source.split}: expected inputs {', '.join(train.inputs)} as in {train.split}, got "
            f"{', '.join(source.inputs)}"
        )
    width = 1 if train.y is None else label_arrays.width(train.y.shape)
    if source.y is not None and label_arrays.width(source.y.shape) != width:
        raise DataError(
            f"{path}: {source.y.name}: expected labels of {width} numbers as in {train.y.name}, got shape {source.y.shape}"
        )
    for name, data_set in source.inputs.items():
        if data_set.shape[1:] != inputs[name].shape:
            raise DataError(
                f"{path}: {data_set.name}: expected rows of shape {inputs[name].shape} as in "
                f"{train.inputs[name].name}, got {data_set.shape[1:]}"
            )
        mine = _input(path, source, data_set)
        if mine != inputs[name]:
            raise DataError(
                f"{path}: {data_set.name}: expected {inputs[name].kind} with values {inputs[name].values} as in "
                f"{train.inputs[name].name}, got {mine.kind} with values {mine.values}"
            )


# -- normalisation -------------------------------------------------------------------------------------
