"""What scikit-learn's models score on the rows of a prepared file: the same split, cells filled as in the file.

Peers get what helps them: the validation rows for training too, since their defaults have no use for such rows; features scaled by
``StandardScaler``, and categories as ``OneHotEncoder`` makes them, not scaled; targets scaled as the file says.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np


@dataclass(frozen=True)
class SplitRows:
    """Features float64 (rows, features), and classes (rows,) or targets float64 (rows, targets)."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    has_classes: bool
    row_count: int
    outputs: int


def read(path: Path) -> SplitRows:
    """Rows of a prepared file; those of validation behind those of training."""
    with h5py.File(path) as file:
        parts = {
            split: (file[split]["x"][:], file[split]["y"][:])
            for split in ("train", "validation", "test")
        }
        names = file["about/columns"][:] if "about/columns" in file else np.array([], "S1")
        has_classes = "classes" in file.attrs
        outputs = len(file.attrs["classes"]) if has_classes else 0
    x, x_validation, x_test = (x.reshape(len(x), -1).astype(np.float64) for x, _ in parts.values())
    y, y_validation, y_test = (y for _, y in parts.values())
    x, y = np.concatenate([x, x_validation]), np.concatenate([y, y_validation])
    shift, scale = _scaling(x, np.array([b"=" in name for name in names], bool))
    x, x_test = (x - shift) / scale, (x_test - shift) / scale
    outputs = outputs or (1 if y.ndim == 1 else y.shape[1])
    return SplitRows(x, y, x_test, y_test, has_classes, len(x) + len(x_test), outputs)


def scores(rows: SplitRows, seed: int, boosts: bool) -> dict[str, float]:
    """Accuracy or r2 on the test rows of ``mlp``, ``linear`` and, if ``boosts``, ``boosting``, each with its defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 200 epochs were not enough
        made = _classifiers(seed) if rows.has_classes else _regressors(seed, rows.y.ndim > 1)
        return {
            name: float(make().fit(rows.x, rows.y).score(rows.x_test, rows.y_test))
            for name, make in made.items()
            if boosts or name != "boosting"
        }


def _scaling(x: np.ndarray, is_category: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.preprocessing import StandardScaler

    fitted = StandardScaler().fit(x)
    if not is_category.size:
        return fitted.mean_, fitted.scale_
    return np.where(is_category, 0, fitted.mean_), np.where(is_category, 1, fitted.scale_)


def _classifiers(seed: int) -> dict[str, Callable[[], Any]]:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    return {
        "mlp": lambda: MLPClassifier(random_state=seed),
        # A hundred iterations, its default, end before the optimum on some sets.
        "linear": lambda: LogisticRegression(max_iter=1000),
        "boosting": lambda: HistGradientBoostingClassifier(random_state=seed),
    }


def _regressors(seed: int, has_several: bool) -> dict[str, Callable[[], Any]]:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.preprocessing import StandardScaler

    def boosting() -> Any:
        one = HistGradientBoostingRegressor(random_state=seed)
        return MultiOutputRegressor(one) if has_several else one

    return {
        # On targets as they are it ends far below: r2 of -6 on prices of houses.
        "mlp": lambda: TransformedTargetRegressor(
            MLPRegressor(random_state=seed), transformer=StandardScaler()
        ),
        "linear": LinearRegression,
        "boosting": boosting,
    }
