"""Pass 1: what is in the source. Every rank ends with the same ``Survey``.

A column of a table is numbers or texts; one that has both is refused by the place of its first odd cell, because
whichever is the mistake, guessing would change the data silently.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lepton_mpi.data.files.array_names import split_of_word
from lepton_mpi.errors import DataError, same_on_all_ranks
from lepton_mpi.prepare.categories import categories_of, check_units
from lepton_mpi.prepare.known_categories import (
    Unknown,
    are_unknown,
    codes_for,
    together,
    unknown_cells,
)
from lepton_mpi.prepare.odd_columns import (
    Numbered,
    counting_columns,
    counting_in,
    different_in,
)
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.passes import Blocks
from lepton_mpi.prepare.readers import Block, Source, Words
from lepton_mpi.prepare.row_hashes import hashes_of_rows


@dataclass(frozen=True)
class BlockFacts:
    """What the survey keeps of a block. Arrays are of shape (rows, …) or (features,)."""

    name: str
    split: str | None
    missing: np.ndarray  # bool (rows,): some feature is missing
    missing_cells: np.ndarray  # int64 (features,)
    number_cells: np.ndarray  # int64 (features,), of tables
    words: dict[int, tuple[str, ...]]
    first_text: dict[int, tuple[str, str, int]]  # feature: place, text, rows from it to the end
    first_missing: tuple[int, str] | None  # (feature, place)
    hashes: np.ndarray  # uint64 (rows, 2)
    y: Words | np.ndarray
    group: Words | None
    split_cells: Words | None
    first_row_without_label: str | None
    dtype: np.dtype
    fits: tuple[bool, bool]  # every number unchanged as uint8, as float32
    counting: dict[
        int, tuple[float, float]
    ]  # first and last of features that rise by 1 from row to row
    units: dict[
        str, dict[str, tuple[str, str]]
    ]  # of numbers in texts: by column and unit the first
    different: dict[int, np.ndarray]  # features of whole numbers, no two of them equal
    unknown: dict[int, Unknown]  # of features that are categories in the file of --like
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """Facts about the whole source.

    Attributes
    ----------
    row_counts : list of int
        Of each block.
    row_splits : list of str or None
        Of each block: the split that its input says.
    missing, label_missing : bool, shape (rows,)
    missing_cells : int64, shape (features,)
    categories : dict of int to tuple of str
        Of the features of a table that are categories: their texts, sorted; a text's place is its code.
    hashes : uint64, shape (rows, 2)
    y : Words, int64 (rows,) or float64 (rows, targets)
    group, split_cells : Words or None
    dtype : np.dtype
        The smallest that holds all features unchanged.
    first_missing : (str, str) or None
        Place and name of the first missing cell.
    counting : tuple of int
        Features that rise by 1 from row to row.
    numbered : tuple of int
        Other features that are different in every row, as ids are.
    notes : tuple of str
        What happened to some rows, with how many they are.
    unknown : dict of int to Unknown
        Of features that are categories in the file of --like: cells that are none of them, taken as missing.
    """

    row_counts: list[int]
    row_splits: list[str | None]
    sources: list[tuple[str, str | None, int]]
    missing: np.ndarray
    missing_cells: np.ndarray
    categories: dict[int, tuple[str, ...]]
    hashes: np.ndarray
    y: Words | np.ndarray
    label_missing: np.ndarray
    group: Words | None
    split_cells: Words | None
    dtype: np.dtype
    first_missing: tuple[str, str] | None
    first_row_without_label: str | None
    counting: tuple[int, ...] = ()
    numbered: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    unknown: dict[int, Unknown] = dataclasses.field(default_factory=dict)

    @property
    def row_count(self) -> int:
        return len(self.missing)


def survey(source: Source, blocks: Blocks, options: Options) -> Survey:
    """Look at every block. Collective. Raises DataError on every rank."""
    facts, numbered = [], Numbered()
    for fact in blocks.all_results(lambda number: _look(blocks, number, source, options)):
        if len(fact.missing):
            numbered.add(fact.name, fact.different)
        facts.append(dataclasses.replace(fact, different={}))
    with same_on_all_ranks():
        return _together(facts, numbered.columns(), source)


def _look(blocks: Blocks, number: int, source: Source, options: Options) -> BlockFacts:
    block, (part, _) = blocks.read(number), blocks.places[number]
    x = block.flat
    _check_finite(block, x, part.name, source)
    _check_split_cells(block, part.name, options)
    _check_group_cells(block, part.name, options)
    holes = np.isnan(x) if x.dtype.kind == "f" else np.zeros((len(x), 1), bool)
    numbers = (~holes).sum(axis=0)
    for feature, words in block.words.items():
        holes[:, feature] &= words.codes < 0
    missing = holes.any(axis=1)
    if block.group is not None:
        missing |= block.group.codes < 0
    first = np.argwhere(holes)[0] if holes.any() else None
    without = _label_missing(block.y)
    return BlockFacts(
        name=part.name,
        split=part.split,
        missing=missing,
        missing_cells=holes.sum(axis=0),
        number_cells=numbers,
        words={feature: words.texts for feature, words in block.words.items()},
        first_text=_first_texts(block),
        first_missing=None
        if first is None
        else (int(first[1]), f"{part.name}: {block.place(first[0])}"),
        hashes=_hashes(block, x, source),
        y=block.y,
        group=block.group,
        split_cells=block.split,
        first_row_without_label=f"{part.name}: {block.place(int(np.argmax(without)))}"
        if without.any()
        else None,
        dtype=x.dtype,
        fits=_fits(x),
        counting=counting_in(x) if _has_columns(source) else {},
        units={
            column: {
                unit: (f"{part.name}: {block.place(row)}", text)
                for unit, (row, text) in of_column.items()
            }
            for column, of_column in block.units.items()
        },
        different=different_in(x) if _has_columns(source) else {},
        unknown=_unknown(block, x, source),
        notes=block.notes,
    )


def _unknown(block: Block, x: np.ndarray, source: Source) -> dict[int, Unknown]:
    """Cells of categories that the file of --like has not, by feature."""
    found = {}
    for feature, texts in (source.known or {}).items():
        numbers, words = x[:, feature], block.words.get(feature)
        odd = are_unknown(codes_for(texts).of_cells(numbers, words), numbers, words)
        if odd.any():
            found[feature] = unknown_cells(odd, numbers, words)
    return found


def _hashes(block: Block, x: np.ndarray, source: Source) -> np.ndarray:
    if source.overlapping:
        return np.zeros((len(x), 2), np.uint64)
    alike = x if source.compared_as is None else x.astype(source.compared_as, copy=False)
    return hashes_of_rows(block, alike)


def _first_texts(block: Block) -> dict[int, tuple[str, str, int]]:
    """Of the first cell of each feature that is a text: its place, text, and rows from it to the end of the block."""
    found = {}
    for feature, words in block.words.items():
        if words.texts:
            row = int(np.argmax(words.codes >= 0))
            found[feature] = block.place(row), words.texts[words.codes[row]], len(block.x) - row
    return found


def _check_finite(block: Block, x: np.ndarray, name: str, source: Source) -> None:
    if x.dtype.kind == "f" and np.isinf(x).any():
        row, column = np.argwhere(np.isinf(x))[0]
        raise DataError(
            f"{name}: {block.place(row)}, {_column(source, column)}: expected a finite number, got {x[row, column]}"
        )
    y = block.y
    if not isinstance(y, Words) and y.dtype.kind == "f" and np.isinf(y).any():
        row = int(np.argmax(np.isinf(y).any(axis=1)))
        raise DataError(
            f"{name}: {block.place(row)}, {source.label}: expected a finite number, got inf"
        )


def _check_group_cells(block: Block, name: str, options: Options) -> None:
    if block.group is not None and options.missing != "drop" and (block.group.codes < 0).any():
        place = block.place(int(np.argmax(block.group.codes < 0)))
        raise DataError(
            f"{name}: {place}, column {options.group!r}: expected a group, got none; --missing drop drops the row"
        )


def _check_split_cells(block: Block, name: str, options: Options) -> None:
    """Each must say a split, also in rows that are dropped for another reason."""
    if block.split is None:
        return
    known = [split_of_word(text) is not None for text in block.split.texts]
    wrong = np.flatnonzero(~np.array([*known, False])[block.split.codes])
    if wrong.size:
        code = block.split.codes[wrong[0]]
        got = repr(block.split.texts[code][:40]) if code >= 0 else "none"
        raise DataError(
            f"{name}: {block.place(wrong[0])}, column {options.split_column!r}: expected train, validation or test, "
            f"got {got}"
        )


def _column(source: Source, feature: int) -> str:
    return (
        f"column {source.columns[feature]!r}" if source.is_table else f"number {feature} of the row"
    )


def _has_columns(source: Source) -> bool:
    """Whether a number of a row means the same in all rows, rather than a pixel or a token."""
    return len(source.row_shape) == 1 and not source.overlapping


def _label_missing(y: Words | np.ndarray) -> np.ndarray:
    if isinstance(y, Words):
        return y.codes < 0
    return np.isnan(y).any(axis=1) if y.dtype.kind == "f" else np.zeros(len(y), bool)


def _fits(x: np.ndarray) -> tuple[bool, bool]:
    """Whether uint8, and whether float32, hold every number unchanged; missing ones do not count."""
    if x.dtype.kind != "f":
        return x.dtype == np.uint8, x.dtype.itemsize < 4
    with np.errstate(invalid="ignore", over="ignore"):
        small = np.where(np.isnan(x), 0, x)
        byte = bool(((small >= 0) & (small <= 255) & (small == np.floor(small))).all())
        single = x.dtype == np.float32 or bool((small.astype(np.float32) == small).all())
    return byte, single


# -- all blocks together -----------------------------------------------------------------------------


def _together(facts: list[BlockFacts], numbered: tuple[int, ...], source: Source) -> Survey:
    if not any(len(fact.missing) for fact in facts):
        raise DataError(f"{source.parts[0].name}: expected rows, got none")
    check_units(facts)
    features = int(np.prod(source.row_shape))
    y = [fact.y for fact in facts]
    counting = ()
    if _has_columns(source):
        counting = counting_columns([(f.name, len(f.missing), f.counting) for f in facts])
    first = next((fact.first_missing for fact in facts if fact.first_missing), None)
    return Survey(
        [len(fact.missing) for fact in facts],
        [fact.split for fact in facts],
        _sources(facts),
        np.concatenate([fact.missing for fact in facts]),
        sum(
            (np.broadcast_to(fact.missing_cells, features) for fact in facts),
            np.zeros(features, np.int64),
        ),
        categories_of(facts, source) if source.is_table else {},
        np.concatenate([fact.hashes for fact in facts]),
        joined(y) if isinstance(y[0], Words) else np.concatenate(y),
        np.concatenate([_label_missing(part) for part in y]),
        joined([fact.group for fact in facts]) if facts[0].group else None,
        joined([fact.split_cells for fact in facts]) if facts[0].split_cells else None,
        _smallest_dtype(facts),
        first and (first[1], _column(source, first[0])),
        next(
            (fact.first_row_without_label for fact in facts if fact.first_row_without_label), None
        ),
        counting,
        tuple(f for f in numbered if f not in counting and f not in source.dates),
        _counted(note for fact in facts for note in fact.notes),
        together(fact.unknown for fact in facts),
    )


def _counted(notes: Iterable[str]) -> tuple[str, ...]:
    """Each once, with how often it came."""
    return tuple(f"{count} x {note}" for note, count in sorted(Counter(notes).items()))


def joined(parts: Iterable[Words]) -> Words:
    """One column of all blocks; its texts in the order in which they first come."""
    index: dict[str, int] = {}
    codes = []
    for words in parts:
        places = [index.setdefault(text, len(index)) for text in words.texts]
        codes.append(np.array([*places, -1], np.int32)[words.codes])
    return Words(np.concatenate(codes), tuple(index))


def _sources(facts: list[BlockFacts]) -> list[tuple[str, str | None, int]]:
    """Name, split and rows of each part, in order."""
    rows: dict[tuple[str, str | None], int] = {}
    for fact in facts:
        rows[fact.name, fact.split] = rows.get((fact.name, fact.split), 0) + len(fact.missing)
    return [(name, split, count) for (name, split), count in rows.items()]


def _smallest_dtype(facts: list[BlockFacts]) -> np.dtype:
    dtypes = {fact.dtype for fact in facts}
    if len(dtypes) == 1 and next(iter(dtypes)).kind != "f":
        return next(iter(dtypes))
    if all(fact.fits[0] for fact in facts):
        return np.dtype(np.uint8)
    return np.dtype(np.float32 if all(fact.fits[1] for fact in facts) else np.float64)


def check_missing(found: Survey, options: Options) -> None:
    """Raise DataError for missing cells if the user has not said what to do with them."""
    if options.missing != "error":
        return
    hint = "; --missing drop, mean, median or constant=VALUE says what to do"
    if found.first_missing:
        place, column = found.first_missing
        count = int(found.missing_cells.sum())
        raise DataError(
            f"{place}, {column}: expected a value, got none ({count} missing in all){hint}"
        )
    if found.first_row_without_label:
        raise DataError(
            f"{found.first_row_without_label}: expected a label, got none ({int(found.label_missing.sum())} missing in "
            f"all); --missing drop drops such rows"
        )
