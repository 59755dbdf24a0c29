"""What ``prepare`` fitted, in the file that it made, and applied to others by ``--like FILE``: the same columns, codes, fills,
classes and normalisation, so that what was trained on the one file can be evaluated on the other."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lepton_mpi.data.files import hdf5
from lepton_mpi.data.files.file_format import ENCODING
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.known_categories import codes_for
from lepton_mpi.prepare.labels import Labels, classes_of
from lepton_mpi.prepare.normalisation import Normalisation
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.recoding import recoded
from lepton_mpi.prepare.survey import Survey
from lepton_mpi.prepare.transformation import Transformation
from lepton_mpi.wording import one_line

_Kind = TypeVar("_Kind")
# Options that the other file decides, and where rows go if nobody says.
_DECIDED = (
    *("task", "categorical", "categories", "drop_columns", "numbers", "dates", "dates_as", "missing"),
    *("missing_words", "only_missing_words", "constant_columns", "outliers", "normalise", "per"),
    *("target_scale", "balance", "columns", "dates_since"),
)  # fmt: skip
# Options that make rows of a file, of which the other file's are taken if nobody says others; stored if not as by default.
_OF_ROWS = ("context", "tokens", "image_size", "colour", "sample_rate", "seconds", "mel_bands")
_TO_SCORE = (0.0, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Encoding:
    """All that decides how a row is stored and read.

    Attributes
    ----------
    options : dict
        Values of options by name, those of the names of columns among them, and ``label``.
    columns : tuple of str
        Features of a table as they are read, in order; empty for arrays.
    row_shape : tuple of int
        As read.
    vocabulary : tuple of str
        Of windows of a text: the tokens by id.
    """

    options: dict[str, Any]
    columns: tuple[str, ...]
    row_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    transformation: Transformation
    normalisation: Normalisation
    target_scale: TargetScale
    vocabulary: tuple[str, ...] = ()

    def applied_to(self, options: Options) -> Options:
        """The user's options with those of the file. Raises ConfigurationError for what both decide."""
        defaults = {field.name: field.default for field in dataclasses.fields(Options)}
        for name in _DECIDED:
            if getattr(options, name) != defaults[name]:
                raise ConfigurationError(
                    f"--{name.replace('_', '-')}: is decided by the file of --like, got {getattr(options, name)!r}"
                )
        given = {k: v for k, v in self.options.items() if k != "label" or not options.label}
        of_rows = tuple(name for name in _OF_ROWS if name in given)
        for name in of_rows:
            if getattr(options, name) != defaults[name]:
                del given[name]
        if given.get("image_size"):
            given["image_size"] = tuple(given["image_size"])
        if options.split is None and options.split_column is None:
            given["split"] = _TO_SCORE
        of_labels = options.label, options.labels, options.y
        return dataclasses.replace(
            options, **given, may_lack_labels=not any(of_labels), from_like=of_rows
        )

    def known_to(self, source: Source, options: Options) -> Source:
        """The source, with categories as they are here. Raises DataError for rows of another shape, or other columns."""
        if source.columns != self.columns or source.row_shape != self.row_shape:
            raise DataError(
                f"{source.parts[0].name}: expected rows of shape {self.row_shape} as in the file of --like, got "
                f"{source.row_shape}"
            )
        if source.vocabulary or self.vocabulary:
            return recoded(source, self.vocabulary)
        if not source.is_table:
            return source
        is_missing = options.unknown == "missing"
        known = self.transformation.categories
        return dataclasses.replace(source, known=known, unknown_is_missing=is_missing)

    def labels_of(self, found: Survey, source: Source) -> Labels:
        """Classes by their names there, targets as they are; of rows without them none.

        Raises DataError for a class that is not among them.
        """
        if not source.has_labels:
            return Labels(None, self.class_names)
        if isinstance(found.y, np.ndarray) and found.y.ndim == 2:
            if self.class_names or found.y.shape[1] != self.target_scale.shift.size:
                raise DataError(
                    f"{source.parts[0].name}: {source.label}: expected the labels of the file of --like, got "
                    f"{found.y.shape[1]} targets"
                )
            return Labels(None, (), found.y)
        if isinstance(found.y, np.ndarray):
            names, codes = source.class_names, found.y
        else:
            names, codes = classes_of(found.y)
        known = codes_for(self.class_names)
        of_names = [known.of_text(name) for name in names]
        wrong = [name for name, code in zip(names, of_names, strict=True) if code != code]
        if wrong:
            raise DataError(
                f"{source.parts[0].name}: {source.label}: expected classes of the file of --like, "
                f"{', '.join(self.class_names[:12])}, got {', '.join(map(repr, wrong[:12]))}"
            )
        places = np.array([*of_names, -1], np.int32)
        return Labels(places[codes], self.class_names)

    def as_bytes(self) -> bytes:
        """JSON; numbers come back to the last bit."""
        fitted = self.transformation
        arrays = {name: getattr(fitted, name) for name in ("fill", "low", "high", "kept")}
        facts = {
            "version": 1,
            "options": self.options,
            "columns": self.columns,
            "row_shape": self.row_shape,
            "class_names": self.class_names,
            "categories": {str(f): texts for f, texts in fitted.categories.items()},
            "one_hot": sorted(fitted.one_hot),
            "are_apart": fitted.are_apart,
            **{name: None if a is None else _finite(a) for name, a in arrays.items()},
            "method": self.normalisation.method,
            "per": self.normalisation.per,
            "shift": self.normalisation.shift.tolist(),
            "scale": self.normalisation.scale.tolist(),
            "target": self.target_scale.as_json(),
            **({"vocabulary": self.vocabulary} if self.vocabulary else {}),
        }
        return json.dumps(facts, ensure_ascii=False).encode("utf-8", "replace")

    @staticmethod
    def from_bytes(raw: bytes) -> "Encoding":
        """Raises ValueError, LookupError, TypeError or AttributeError for what ``as_bytes`` has not made."""
        facts: dict[str, Any] = json.loads(raw)
        if "stream" in facts:
            raise ValueError("a text in one piece was prepared; add --stream")
        if facts["version"] != 1:
            raise ValueError(
                f"expected version 1, got {facts['version']}: a newer lepton_mpi reads it"
            )
        texts = {int(f): tuple(map(str, names)) for f, names in facts["categories"].items()}
        arrays = {name: _array(facts[name], name) for name in ("fill", "low", "high", "kept")}
        fitted = Transformation(
            texts, **arrays, one_hot=frozenset(facts["one_hot"]), are_apart=bool(facts["are_apart"])
        )
        row_shape = tuple(map(int, facts["row_shape"]))
        _check_features(fitted, arrays, int(np.prod(row_shape)))
        shift, scale = (np.array(facts[name], np.float64) for name in ("shift", "scale"))
        if shift.shape != scale.shape or not (np.isfinite(shift) & np.isfinite(scale)).all():
            raise ValueError("expected finite numbers as shift and scale")
        return Encoding(
            {str(name): value for name, value in facts["options"].items()},
            tuple(map(str, facts["columns"])),
            row_shape,
            tuple(map(str, facts["class_names"])),
            fitted,
            Normalisation(str(facts["method"]), str(facts["per"]), shift, scale),
            TargetScale.from_json(facts["target"]),
            tuple(map(str, facts.get("vocabulary", ()))),
        )


def options_of(source: Source, options: Options) -> dict[str, Any]:
    """What of the options, and of what was found, decides how other files are read."""
    decided = {name: getattr(options, name) for name in _DECIDED if name != "drop_columns"}
    fixed = {"balance": "none", "normalise": "none", "outliers": "none", "target_scale": "standard"}
    defaults = {field.name: field.default for field in dataclasses.fields(Options)}
    of_rows = {name: getattr(options, name) for name in _OF_ROWS}
    decided |= {name: value for name, value in of_rows.items() if value != defaults[name]}
    return decided | fixed | {"constant_columns": "keep", "per": "auto"} | dict(source.reading)


def read_encoding(path: Path, world: Any, from_bytes: Callable[[bytes], _Kind]) -> _Kind:
    """Of a file that ``prepare`` made, or of a checkpoint. Collective. Raises DataError."""
    with world.agreeing():
        if world.local_rank == 0:
            hdf5.probe_file(path)
    with world.agreeing():
        raw = hdf5.read_bytes(path, ENCODING)
        if not raw:
            raise DataError(
                f"{path}: expected a file that prepare made with {ENCODING} in it, or a checkpoint of a run on one, got one "
                "without; prepare it anew"
            )
        try:
            return from_bytes(raw)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{path}: {ENCODING}: expected what prepare writes: {one_line(error)}"
            ) from None


def with_fills_of_flags(
    fitted: Transformation, means: np.ndarray, feature_count: int
) -> Transformation:
    """The same with a fill for features of two categories, the commoner one, for texts that only other files have.

    ``means`` are those of the stored columns in the training rows.
    """
    two = [f for f, texts in fitted.categories.items() if len(texts) == 2]
    if not two:
        return fitted
    widths = fitted.widths(feature_count)
    ends = np.cumsum(widths)
    fill = np.full(feature_count, np.nan) if fitted.fill is None else fitted.fill.copy()
    for feature in two:
        if widths[feature] and np.isnan(fill[feature]):
            fill[feature] = float(means[ends[feature] - 1] > 0.5)
    return dataclasses.replace(fitted, fill=fill)


def _check_features(
    fitted: Transformation, arrays: dict[str, np.ndarray | None], count: int
) -> None:
    """Raise ValueError for features that a row of ``count`` has not."""
    named = {*fitted.categories, *fitted.one_hot}
    lengths = {len(values) for values in arrays.values() if values is not None}
    if lengths - {count} or any(not 0 <= feature < count for feature in named):
        raise ValueError(f"expected what is said of {count} features, got of others")
    if fitted.one_hot - fitted.categories.keys():
        raise ValueError("expected texts of each feature that is one-hot")


def _finite(values: np.ndarray) -> list[Any]:
    """Numbers as JSON has them: none for those that are infinite, or that there are not."""
    if values.dtype == bool:
        return values.tolist()
    return [value if np.isfinite(value) else None for value in values.tolist()]


def _array(values: list[Any] | None, name: str) -> np.ndarray | None:
    if values is None:
        return None
    if name == "kept":
        return np.array(values, bool)
    missing = {"low": -np.inf, "high": np.inf, "fill": np.nan}[name]
    return np.array([missing if value is None else value for value in values], np.float64)
