"""How targets of a regression are scaled for training, fitted on training rows; they are stored as they are."""

import numpy as np

from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.errors import DataError
from lepton_mpi.prepare.labels import Labels
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.selection import Selection


def fit_target_scale(
    labels: Labels, chosen: Selection, source: Source, options: Options
) -> TargetScale:
    """Mean 0 and deviation 1 of the training rows, of the targets or their logarithms. Raises DataError."""
    if labels.targets is None:
        return TargetScale.identity(0)
    count = labels.targets.shape[1]
    scale = TargetScale.identity(count)
    if options.target_scale == "none":
        return scale
    if options.target_scale == "log":
        used = labels.targets[chosen.splits >= 0]
        if (used < 0).any():
            raise DataError(
                f"{source.parts[0].name}: {source.label}: --target-scale log: expected targets of at least 0, got "
                f"{used.min():g}"
            )
        scale = TargetScale(scale.shift, scale.scale, np.ones(count, bool))
    train = scale.scaled(labels.targets[chosen.splits == 0])
    with np.errstate(over="ignore", invalid="ignore"):
        shift, spread = train.mean(axis=0), train.std(axis=0)
    if not (np.isfinite(shift) & np.isfinite(spread)).all():
        raise DataError(
            f"{source.parts[0].name}: {source.label}: --target-scale {options.target_scale}: expected targets whose squares "
            f"float64 can hold, got up to {np.abs(train).max():g}"
        )
    spread = np.where(train.min(axis=0) < train.max(axis=0), spread, 1.0)
    with np.errstate(divide="ignore", over="ignore"):
        factor = 1 / spread
    return TargetScale(shift, np.where(np.isfinite(factor), factor, 1.0), scale.log)
