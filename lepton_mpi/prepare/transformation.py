"""From a block as read to rows as stored: codes for categories, outliers clipped, gaps filled, columns dropped, categories
as a column each (one-hot).

Gaps are filled behind the clipping, so that a constant stays as it was given, and a mean or median is that of the clipped
numbers.
Everything is fitted on training rows and applied to all. A transformation that has nothing to do passes rows on as they are,
in the type of the source.
"""

from dataclasses import dataclass, replace

import numpy as np

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.known_categories import codes_for
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Block, Source
from lepton_mpi.prepare.statistics import Moments
from lepton_mpi.prepare.survey import Survey
from lepton_mpi.prepare.training_rows import TrainingRows

# More categories become columns only if they are asked for.
ONE_HOT_MAX = 100


@dataclass(frozen=True)
class Transformation:
    """What is done to every row; arrays are of shape (features,), before columns are dropped.

    Attributes
    ----------
    categories : dict of int to tuple of str
        Texts by code, of the features that are categories.
    low, high : float64
        Clipped to these; infinite for features that are not clipped.
    fill : float64
        In place of missing values.
    kept : bool
        False for columns that are dropped.
    one_hot : set of int
        Features that become a column for each category, 1 in that of the cell.
    are_apart : bool
        Whether categories are an input of their own, and no features of x.
    """

    categories: dict[int, tuple[str, ...]]
    fill: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    kept: np.ndarray | None = None
    one_hot: frozenset[int] = frozenset()
    are_apart: bool = False

    @property
    def changes_numbers(self) -> bool:
        return self.fill is not None or self.low is not None

    @property
    def changes_anything(self) -> bool:
        return bool(self.changes_numbers or self.kept is not None or self.one_hot or self.apart)

    @property
    def apart(self) -> list[int]:
        """Features that are in the input of categories, in order."""
        if not self.are_apart:
            return []
        return [f for f in sorted(self.categories) if self.kept is None or self.kept[f]]

    def widths(self, features: int) -> np.ndarray:
        """Columns of x of each feature, int64 (features,): 0 for one that is dropped, or apart."""
        widths = np.ones(features, np.int64)
        for feature in self.one_hot:
            widths[feature] = len(self.categories[feature])
        widths[self.apart] = 0
        return widths if self.kept is None else widths * self.kept

    def encoded(self, block: Block) -> np.ndarray:
        """Rows (rows, features) with codes for texts; NaN is missing."""
        x = block.flat
        if not self.categories:
            return x
        x = x.copy()
        for feature, texts in self.categories.items():
            x[:, feature] = codes_for(texts).of_cells(x[:, feature], block.words.get(feature))
        return x

    def applied(self, block: Block) -> np.ndarray:
        """Rows as stored, still in the source's type if nothing changes: (rows, kept features)."""
        return self.finished(self.encoded(block))

    def finished(self, x: np.ndarray) -> np.ndarray:
        """``encoded`` rows as x has them: clipped, filled, without columns that are dropped or apart, categories as columns."""
        x, widths = self.filled(x), self.widths(x.shape[1])
        if self.one_hot:
            return self._with_columns(x, widths)
        return x if widths.all() else np.ascontiguousarray(x[:, widths > 0])

    def codes(self, x: np.ndarray) -> np.ndarray:
        """Categories of ``encoded`` rows, float64 (rows, ``apart``)."""
        return self.filled(x)[:, self.apart]

    def filled(self, x: np.ndarray) -> np.ndarray:
        """``encoded`` rows, clipped, and with what stands in for what is missing."""
        x = self.clipped(x)
        return x if self.fill is None else np.where(np.isnan(x), self.fill, x)

    def _with_columns(self, x: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """A missing category is 0 in all of its columns."""
        ends = np.cumsum(widths)
        out, rows = np.zeros((len(x), ends[-1])), np.arange(len(x))
        plain = np.array([f not in self.one_hot and widths[f] > 0 for f in range(len(widths))])
        out[:, ends[plain] - 1] = x[:, plain]
        for feature in self.one_hot:
            if widths[feature]:
                there = ~np.isnan(x[:, feature])
                codes = x[there, feature].astype(np.int64)
                out[rows[there], ends[feature] - widths[feature] + codes] = 1
        return out

    def clipped(self, x: np.ndarray) -> np.ndarray:
        """``encoded`` rows with their outliers at the bounds; what is missing stays so."""
        return x if self.low is None else np.clip(x, self.low, self.high)

    def counts(self, x: np.ndarray) -> np.ndarray:
        """Cells of ``encoded`` rows that are filled, and clipped: int64 (2, features)."""
        out = np.zeros((2, x.shape[1]), np.int64)
        if self.fill is not None:
            out[0] = np.isnan(x).sum(axis=0)
        if self.low is not None:
            out[1] = ((x < self.low) | (x > self.high)).sum(axis=0)
        return out


def fit_transformation(
    rows: TrainingRows, raw: Moments | None, found: Survey, source: Source, options: Options
) -> Transformation:
    """Columns to drop, then bounds, then what fills gaps. Collective. Raises DataError, ConfigurationError."""
    fitted = Transformation(found.categories, are_apart=options.categories == "inputs")
    if options.constant_columns == "drop":
        if not source.is_table:
            raise ConfigurationError(
                f"--constant-columns drop: expected a table, got rows of shape {source.row_shape}"
            )
        fitted = _without_constants(fitted, raw, source)
    kind, limit = options.outlier_limit
    if kind != "none":
        low, high = _bounds(kind, limit, rows, raw)
        numbers = np.array([feature not in found.categories for feature in range(len(low))])
        fitted = replace(
            fitted, low=np.where(numbers, low, -np.inf), high=np.where(numbers, high, np.inf)
        )
    if options.missing not in ("error", "drop") and found.missing_cells.any():
        fitted = _with_fill(fitted, rows, raw, found, source, options)
    return _with_one_hot(fitted, source, options)


def _with_one_hot(fitted: Transformation, source: Source, options: Options) -> Transformation:
    """A feature of two categories is 0 or 1 as it is. Raises DataError for too many categories."""
    if options.categories in ("codes", "inputs"):
        return fitted
    many = {f: texts for f, texts in fitted.categories.items() if len(texts) > ONE_HOT_MAX}
    if many and options.categories == "auto":
        names = ", ".join(f"{source.columns[f]!r} of {len(texts)}" for f, texts in many.items())
        raise DataError(
            f"{source.parts[0].name}: more than {ONE_HOT_MAX} categories: {names}: --categories one-hot makes a column of "
            "each, --categories codes takes their numbers, which mean nothing to a dense layer; --drop-columns leaves "
            "columns out"
        )
    return replace(
        fitted, one_hot=frozenset(f for f, texts in fitted.categories.items() if len(texts) > 2)
    )


def needs_moments(options: Options, found: Survey, source: Source) -> bool:
    """Whether the transformation, or the report of a table, goes by the moments of the numbers as read."""
    fills = options.missing not in ("error", "drop") and bool(found.missing_cells.any())
    return source.is_table or fills or options.outliers != "none"


def _without_constants(fitted: Transformation, raw: Moments, source: Source) -> Transformation:
    kept = ~raw.is_constant
    if not kept.any():
        raise DataError(
            f"{source.parts[0].name}: expected columns that differ between training rows, got constants only"
        )
    return replace(fitted, kept=kept) if not kept.all() else fitted


def _with_fill(
    fitted: Transformation,
    rows: TrainingRows,
    raw: Moments,
    found: Survey,
    source: Source,
    options: Options,
) -> Transformation:
    holes = found.missing_cells > 0
    categories = dict(fitted.categories)
    clipped = replace(rows, transform=lambda block: fitted.clipped(rows.transform(block)))
    if options.missing_constant is not None:
        fill, categories = _constants(options.missing_constant, holes, fitted, source)
    elif options.missing == "mean":
        fill = (raw if fitted.low is None else clipped.moments()).mean.copy()
    else:
        fill = clipped.quantiles((0.5,), raw.count)[0]
    if options.missing_constant is None:
        for feature, code in rows.most_frequent(fitted.categories).items():
            fill[feature] = code
        kept = np.ones(len(fill), bool) if fitted.kept is None else fitted.kept
        empty = np.flatnonzero(holes & kept & (raw.count == 0))
        if empty.size:
            raise DataError(
                f"{source.parts[0].name}: {_name(source, empty[0])}: expected a value in some training row to fill gaps "
                "from, got none; --drop-columns leaves the column out"
            )
    return replace(fitted, fill=fill, categories=categories)


def _name(source: Source, feature: int) -> str:
    return (
        f"column {source.columns[feature]!r}" if source.is_table else f"number {feature} of the row"
    )


def _constants(
    text: str, holes: np.ndarray, fitted: Transformation, source: Source
) -> tuple[np.ndarray, dict[int, tuple[str, ...]]]:
    """The constant, as a number for numbers, and for categories as one of them, added at the end if it is new."""
    categories, fill = dict(fitted.categories), np.full(len(holes), np.nan)
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    for feature, has_holes in enumerate(holes.tolist()):
        if feature in categories:
            if has_holes and text not in categories[feature]:
                categories[feature] = (*categories[feature], text)
            if text in categories[feature]:
                fill[feature] = categories[feature].index(text)
        elif np.isfinite(number):
            fill[feature] = number
        elif has_holes:
            raise ConfigurationError(
                f"--missing: {_name(source, feature)} holds numbers: expected constant=NUMBER, got {text!r}"
            )
    return fill, categories


def _bounds(
    kind: str, limit: float, rows: TrainingRows, raw: Moments
) -> tuple[np.ndarray, np.ndarray]:
    """Infinite for columns without a number in any training row."""
    if kind == "quantile":
        low, high = rows.quantiles((limit, 1 - limit), raw.count)
    else:
        low, high = raw.mean - limit * raw.std, raw.mean + limit * raw.std
    return np.where(raw.count > 0, low, -np.inf), np.where(raw.count > 0, high, np.inf)
