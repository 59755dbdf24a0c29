"""Arrays and data frames with their answers, and the prepared file that is made of them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.options.option import options_of
from lepton_mpi.prediction.frames import FrameBlocks, is_frame
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.pipeline import prepare_source
from lepton_mpi.prepare.readers import Block, RowPart, Source
from lepton_mpi.prepare.readers.arrays import ArrayPart, Pair, array_source, check_features
from lepton_mpi.prepare.readers.columns import table_source
from lepton_mpi.wording import did_you_mean
from lepton_mpi.world.alone import Alone

_NAME = "X"
# What says how files are read, and what rows in memory decide by themselves.
_OF_FILES = {
    *(
        "inputs",
        "output",
        "format",
        "label",
        "labels",
        "task",
        "like",
        "unknown",
        "split",
        "x",
        "y",
    ),
    *("files", "folder", "dry_run", "force", "timeout", "may_lack_labels", "from_like"),
}


@dataclass(frozen=True)
class Rows:
    """Rows to train on.

    Attributes
    ----------
    x : array (rows, …) of numbers, or a frame
    y : array
        int64 (rows,), the place of each row's class in ``class_names``; or float64 (rows, targets).
    class_names : tuple of str
        Empty for a regression.
    """

    x: Any
    y: np.ndarray
    class_names: tuple[str, ...]


def rows_of(x: Any, y: Any, y_kind: str = "auto") -> tuple[Rows, np.ndarray | None]:
    """Rows, and the classes in their order as ``y`` has them; None for a regression.

    ``y_kind`` is classes, targets, or auto: floats are targets, all others classes. Raises DataError.
    """
    answers = np.asarray(y)
    x = x if is_frame(x) else np.asarray(x)
    if not is_frame(x):
        check_features(_NAME, x)
    if answers.ndim < 1 or len(answers) != len(x):
        raise DataError(f"y: expected {len(x)} answers, one for each row of X, got {answers.shape}")
    if not len(answers):
        raise DataError(f"{_NAME}: expected rows, got none")
    if y_kind == "targets" or (y_kind == "auto" and answers.dtype.kind == "f"):
        return Rows(x, _targets(answers), ()), None
    classes, codes = _classes(answers)
    return Rows(x, codes, tuple(map(_name_of, classes.tolist()))), classes


def _targets(y: np.ndarray) -> np.ndarray:
    if y.dtype.kind not in "iufb" or y.ndim > 2:
        raise DataError(
            f"y: expected numbers of shape (rows,) or (rows, targets), got {y.dtype} of shape {y.shape}"
        )
    found = y.reshape(len(y), -1).astype(np.float64)
    if not np.isfinite(found).all():
        row = int(np.argmin(np.isfinite(found).all(axis=1)))
        raise DataError(f"y: row {row}: expected finite numbers, got {found[row].tolist()}")
    return found


def _classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iufbOUS":
        raise DataError(
            f"y: expected a class for each row, shape (rows,), got {y.dtype} of shape {y.shape}"
        )
    try:
        classes, codes = np.unique(y, return_inverse=True)
    except TypeError:
        raise DataError(
            "y: expected classes of one kind, numbers or texts, got some of each"
        ) from None
    if len(classes) < 2:
        raise DataError(f"y: expected at least 2 classes, got 1 class, {classes[0]!r}")
    if any(name is None or name != name for name in classes.tolist()):
        raise DataError("y: expected a class for each row, got a missing one")
    return classes, codes.astype(np.int64)


def class_weights_of(given: Any, classes: np.ndarray) -> dict[str, Any]:
    """The option ``class_weights`` for scikit-learn's ``class_weight``; nothing for None. Raises ConfigurationError."""
    if given is None:
        return {}
    if isinstance(given, str) and given == "balanced":
        return {"class_weights": given}
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"class_weight: expected 'balanced', a dict of class to weight or None, got {given!r}"
        )
    known = classes.tolist()
    if unknown := [each for each in given if each not in known]:
        raise ConfigurationError(
            f"class_weight: expected classes of y, {known[:8]}, got {unknown[0]!r}"
        )
    return {"class_weights": [float(given.get(each, 1.0)) for each in known]}


def _name_of(value: Any) -> str:
    """Whole numbers without a point, as a file has them."""
    if isinstance(value, float) and value == int(value) and abs(value) < 2**53:
        return str(int(value))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def options_for(
    rows: Rows, held_out: Mapping[str, float], seed: int, given: Mapping[str, Any]
) -> Options:
    """Options of ``prepare``: fractions of the rows held out as validation and test, and what the user says. Raises ConfigurationError."""
    known = {name: o for name, o in options_of(Options).items() if name not in _OF_FILES}
    for name in given.keys() - known.keys():
        raise ConfigurationError(
            f"prepare: expected options of the command prepare for rows in memory, got {name!r}{did_you_mean(name, list(known))}"
        )
    kept = 1 - held_out["test"]
    fractions = (
        kept * (1 - held_out["validation"]),
        kept * held_out["validation"],
        held_out["test"],
    )
    chosen = {"seed": seed} | {name: known[name].read_value(v) for name, v in given.items()}
    if is_frame(rows.x):
        for name, columns in _kinds(rows.x).items():
            chosen[name] = tuple(dict.fromkeys((*chosen.get(name, ()), *columns)))
    return Options(
        inputs=(_NAME,),
        output=f"{_NAME}.h5",
        task="classification" if rows.class_names else "regression",
        split=fractions,
        **chosen,
    )


def _kinds(frame: Any) -> dict[str, list[str]]:
    """Columns whose type says that they are categories or dates."""
    found: dict[str, list[str]] = {"categorical": [], "dates": []}
    for name in frame.columns:
        kind = str(getattr(frame[name], "dtype", "")).lower()
        if kind.startswith(("category", "categorical", "enum")):
            found["categorical"].append(str(name))
        elif kind.startswith("datetime"):
            found["dates"].append(str(name))
    return found


def write(rows: Rows, options: Options, path: Path) -> None:
    """Make the prepared file. One process calls it. Raises LeptonError."""
    source = _frame_source(rows, options) if is_frame(rows.x) else _array_source(rows, options)
    prepare_source(source, dataclasses.replace(options, output=str(path), force=True), Alone())


def _array_source(rows: Rows, options: Options) -> Source:
    part = ArrayPart(_NAME, None, Pair(rows.x, rows.y, rows.class_names), options)
    return array_source([part], "array", options, class_names=rows.class_names, label="y")


def _frame_source(rows: Rows, options: Options) -> Source:
    # Answers come beside the frame: no column of it is the label, whatever it is called.
    blocks = FrameBlocks(rows.x, (), dataclasses.replace(options, may_lack_labels=True))
    part: Any = _FramePart(blocks, rows.y, options)
    source = table_source([part], "frame", blocks.roles)
    notes = tuple(note for note in source.notes if "rows to be scored" not in note)
    return dataclasses.replace(
        source, label="y", class_names=rows.class_names, has_labels=True, notes=notes
    )


class _FramePart(RowPart):
    """Rows of a frame; see ``Part``."""

    def __init__(self, blocks: FrameBlocks, y: np.ndarray, options: Options) -> None:
        super().__init__(_NAME, None, blocks.row_count, 8 * len(blocks.columns), options.block)
        self._blocks, self._y = blocks, y

    def read_rows(self, start: int, stop: int) -> Block:
        """Rows [start, stop). Raises DataError."""
        return dataclasses.replace(self._blocks.block(start, stop), y=self._y[start:stop])
