"""X and y as scikit-learn's protocol has them checked: names and number of features, shapes, numbers that are finite."""

from typing import Any

import numpy as np
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    _num_samples,
    validate_data,
)

from lepton_mpi.prediction.frames import is_frame


def is_named(x: Any) -> bool:
    """Whether X is a frame all of whose columns have names, which are then found by them; others are arrays."""
    return is_frame(x) and all(isinstance(name, str) for name in x.columns)


def training_rows(estimator: Any, x: Any, y: Any, are_classes: bool) -> tuple[Any, np.ndarray]:
    """Rows to fit; sets ``n_features_in_`` and ``feature_names_in_``. Raises ValueError."""
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None"
        )
    if is_named(x):
        x = _frame(estimator, x, reset=True)
    else:
        x = validate_data(estimator, x, ensure_all_finite=_finite(estimator), allow_nd=_takes_any_shape(estimator))  # fmt: skip
    if are_classes:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if isinstance(y, np.ndarray) and y.dtype.kind == "f" and not np.isfinite(y).all():
            raise ValueError("Input y contains NaN or infinity.")
        if (count := len(np.unique(y))) < 2:
            raise ValueError(
                f"{type(estimator).__name__}: expected at least 2 classes in y, got {count} class"
            )
    else:
        y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y", estimator=estimator)
    check_consistent_length(x, y)
    return x, y


def rows_to_predict(estimator: Any, x: Any) -> Any:
    """Rows like those of ``fit``. Raises ValueError."""
    if is_named(x) and hasattr(estimator, "feature_names_in_"):
        return _frame(estimator, x, reset=False)
    return validate_data(estimator, x, reset=False, ensure_all_finite=_finite(estimator), allow_nd=_takes_any_shape(estimator))  # fmt: skip


def _frame(estimator: Any, x: Any, reset: bool) -> Any:
    _check_feature_names(estimator, x, reset=reset)
    if _num_samples(x) < 1:
        raise ValueError(f"Found array with 0 sample(s) (shape={np.shape(x)}) while a minimum of 1 is required.")  # fmt: skip
    _check_n_features(estimator, x, reset=reset)
    return x


def _finite(estimator: Any) -> bool | str:
    return "allow-nan" if estimator.missing != "error" else True


def _takes_any_shape(estimator: Any) -> bool:
    """Images and sequences; tables have a row of numbers."""
    return estimator.model not in (None, "mlp", "logistic", "wide_and_deep")
