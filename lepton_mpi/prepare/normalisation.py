"""Shift and scale, fitted on training rows as they are stored; a value is read as (x - shift) * scale."""

from dataclasses import dataclass, replace

import numpy as np

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.statistics import Moments
from lepton_mpi.prepare.training_rows import TrainingRows

# Half of what a byte can hold.
_PIXELS_ABOVE = 127


@dataclass(frozen=True)
class Normalisation:
    """``shift`` and ``scale`` are float64 (units,); ``method`` and ``per`` say how they came about."""

    method: str
    per: str
    shift: np.ndarray
    scale: np.ndarray

    def of_rows(self, row_shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Both in the shape of a row."""
        repeats = int(np.prod(row_shape)) // len(self.shift)
        return tuple(np.tile(v, repeats).reshape(row_shape) for v in (self.shift, self.scale))

    def but_not(self, units: np.ndarray) -> "Normalisation":
        """The same, with ``units``, bool (units,), left as they are."""
        if self.method == "none" or not units.any():
            return self
        shift, scale = np.where(units, 0.0, self.shift), np.where(units, 1.0, self.scale)
        return replace(self, shift=shift, scale=scale)


def unit_count(per: str, row_shape: tuple[int, ...]) -> int:
    """Numbers of a row with statistics of their own. A channel is the last dimension of three; two have one channel."""
    if per == "feature":
        return int(np.prod(row_shape))
    return row_shape[-1] if per == "channel" and len(row_shape) == 3 else 1


def choose_per(options: Options, row_shape: tuple[int, ...]) -> str:
    """``--per``, or what fits the rows. Raises ConfigurationError."""
    if options.per == "auto":
        return "channel" if len(row_shape) in (2, 3) else "feature"
    if options.per == "channel" and len(row_shape) not in (2, 3):
        raise ConfigurationError(
            f"--per channel: expected rows of 2 or 3 dimensions, got {row_shape}"
        )
    return options.per


def choose_method(
    options: Options, source: Source, dtype: np.dtype, moments: Moments, row_shape: tuple[int, ...]
) -> str:
    """``--normalise``, or what fits the source and the training rows, of which ``moments`` are as they are stored.

    Bytes may be counts, codes or flags, too: pixels lie in rows of 2 or 3 dimensions, and some are brighter than half of
    what a byte can hold. Pictures on another scale, such as 0 to 16, divided by 255 would be too small to learn from.
    """
    if options.normalise != "auto":
        return options.normalise
    if source.vocabulary:
        return "none"
    are_pixels = (
        dtype == np.uint8 and len(row_shape) in (2, 3) and moments.maximum.max() > _PIXELS_ABOVE
    )
    return "pixels" if are_pixels else "standard"


def fit_normalisation(method: str, per: str, rows: TrainingRows, moments: Moments) -> Normalisation:
    """Fit on ``rows``. Collective. Raises DataError for numbers too large. What does not vary is shifted and not scaled, as scikit-learn does."""
    units = len(moments.mean)
    shift, spread = np.zeros(units), np.ones(units)
    if method == "standard":
        shift, spread = moments.mean, moments.std
    elif method == "minmax":
        with np.errstate(over="ignore"):
            shift, spread = moments.minimum, moments.maximum - moments.minimum
    elif method == "robust" and units:  # none of categories alone
        quarter, shift, three_quarters = rows.quantiles((0.25, 0.5, 0.75), moments.count)
        spread = three_quarters - quarter
    elif method == "pixels":
        spread = np.full(units, 255.0)
    if not (np.isfinite(shift).all() and np.isfinite(spread).all()):
        unit = int(np.argmin(np.isfinite(shift) & np.isfinite(spread)))
        raise DataError(
            f"--normalise {method}: expected numbers whose squares float64 can hold, got up to "
            f"{max(abs(moments.minimum[unit]), abs(moments.maximum[unit])):g} in number {unit} of the row; "
            "--outliers clips, --drop-columns leaves a column out"
        )
    with np.errstate(divide="ignore", over="ignore"):
        scale = 1 / spread
    return Normalisation(method, per, shift, np.where(np.isfinite(scale), scale, 1.0))
