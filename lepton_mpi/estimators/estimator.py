"""``LeptonClassifier`` and ``LeptonRegressor``: networks with scikit-learn's protocol, for pipelines and searches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, Self

import numpy as np

from lepton_mpi.data.files import probe
from lepton_mpi.errors import ConfigurationError, DataError, LauncherError
from lepton_mpi.estimators import training
from lepton_mpi.estimators.rows import Rows, class_weights_of, options_for, rows_of
from lepton_mpi.extras import pip_install
from lepton_mpi.options import sources
from lepton_mpi.options.config import Config
from lepton_mpi.options.kinds import AUTO
from lepton_mpi.own_folders import temporary_folder
from lepton_mpi.prediction.model import TrainedModel, load
from lepton_mpi.registry import is_own_file

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted

    from lepton_mpi.estimators import validation
except ImportError as error:
    raise LauncherError(
        f"LeptonClassifier and LeptonRegressor need scikit-learn 1.6 or newer: {pip_install('sklearn')} ({error})"
    ) from None

# Parameters that are options of training by their own names.
_OPTIONS = (
    *("model", "hidden", "activation", "dropout", "epochs", "global_batch", "optimizer"),
    *("learning_rate", "weight_decay", "schedule", "dtype"),
)
# What an estimator says by parameters of other names, or decides by itself.
_DECIDED = {
    *("data", "x", "y", "prepare", "recipe", "seed", "task", "validation_split", "test_split"),
    *("resume", "keep_best", "restore_best", "early_stop", "class_weights"),
}
_REFUSED = {
    "sample_weight": "rows have no weights: repeat rows, or balance classes by prepare={'balance': 'oversample'}",
    "class_weight": "it is a parameter of LeptonClassifier(class_weight='balanced')",
}


# Words of the command line that messages about cells have, and the parameters that say the same.
_PARAMETERS = {
    "--missing drop, mean, median or constant=VALUE": "missing='mean', 'median' or 'constant=VALUE'",
    "--unknown missing": "unknown='missing'",
}


def _is_left(value: Any) -> bool:
    """Whether a parameter leaves an option to its default or to the rule; an array is compared with no text."""
    return value is None or (isinstance(value, str) and value == AUTO)


@contextmanager
def _by_parameters() -> Iterator[None]:
    """A block whose errors about cells name the parameters of an estimator."""
    try:
        yield
    except DataError as error:
        text = str(error)
        for words, parameter in _PARAMETERS.items():
            text = text.replace(words, parameter)
        error.args = (text,)
        raise


class _Estimator(BaseEstimator):
    """Parameters and attributes of both classes. A fitted one predicts without MPI, and writes no file.

    Parameters
    ----------
    model : str, optional
        As ``--model``: mlp, logistic, wide_and_deep, cnn, … or FILE.py:NAME.
    hidden, epochs, global_batch, learning_rate, activation, dropout, optimizer, weight_decay, schedule, dtype : optional
        The options of training of these names; None: their defaults, and "auto": by rule, see ``lepton_mpi/run/README.md``.
    early_stopping : bool
        Whether ``validation_fraction`` of the rows are held out, training ends after ``n_iter_no_change`` epochs without a score on them
        that is better by more than ``tol``, and the model is that of the best epoch.
    validation_fraction, n_iter_no_change, tol : float, int, float
    missing : str
        As ``prepare --missing``: what a missing cell of a data frame is: error, mean, median, or constant=VALUE.
    unknown : {"error", "missing"}
        What a category is, when predicting, that the rows of ``fit`` do not have.
    categorical : sequence of str
        Columns of numbers that are categories; texts and pandas' categories are some anyway.
    n_ranks : int
        1 trains in this process, more start so many by mpirun; the weights are the same bit for bit.
    random_state : int, RandomState, optional
        Decides first weights, order and split. None is 0: the same model every time.
    verbose : bool
        Whether training says what it does.
    options : mapping, optional
        Other options of training by name.
    prepare : mapping, optional
        Options of the command ``prepare`` by name, such as ``{"normalise": "minmax"}``.

    Attributes
    ----------
    n_features_in_, feature_names_in_
        As of every estimator; names of a data frame's columns.
    n_iter_ : int
        Epochs that were made.
    history_ : list of dict
        Figures of each epoch.
    derived_ : dict
        Options that the rule has found, by name.
    figures_ : dict
        Of the end of training: digest of the weights, time split and more.
    """

    class_weight: Any = None  # a parameter of classifiers alone

    def __init__(
        self,
        model: str | None = None,
        *,
        hidden: Sequence[int] | str | None = "auto",
        activation: str | None = None,
        dropout: float | None = None,
        epochs: int | str | None = "auto",
        global_batch: int | str | None = "auto",
        optimizer: str | None = None,
        learning_rate: float | str | None = "auto",
        weight_decay: float | None = None,
        schedule: str | None = None,
        dtype: str | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 0.0,
        missing: str = "error",
        unknown: str = "error",
        categorical: Sequence[str] = (),
        n_ranks: int = 1,
        random_state: Any = None,
        verbose: bool = False,
        options: Mapping[str, Any] | None = None,
        prepare: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        self.epochs = epochs
        self.global_batch = global_batch
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.dtype = dtype
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.missing = missing
        self.unknown = unknown
        self.categorical = categorical
        self.n_ranks = n_ranks
        self.random_state = random_state
        self.verbose = verbose
        self.options = options
        self.prepare = prepare

    def fit(self, X: Any, y: Any, **not_supported: Any) -> Self:
        """Train on rows X, an array (rows, features) or a data frame, and their answers y.

        Raises
        ------
        ValueError
            For shapes, names, numbers and classes that scikit-learn's protocol refuses.
        TypeError
            For weights of rows, which there are not.
        ConfigurationError, DataError, RankError, LauncherError
            For wrong parameters and cells, and for ranks that fail.
        """
        for name in not_supported:
            why = _REFUSED.get(name, "expected X and y alone")
            raise TypeError(
                f"{type(self).__name__}.fit() got an unexpected keyword argument {name!r}: {why}"
            )
        X, y = validation.training_rows(self, X, y, self._are_classes)
        rows, classes = self._rows(X, y)
        options = self._training_options()
        if classes is not None:
            options |= class_weights_of(self.class_weight, classes)
        prepare = self._preparing()
        # Both say what is wrong with the parameters before anything starts.
        config = sources.from_program(options | {"data": "X"}).config
        options_for(rows, config.held_out, config.seed, prepare)
        with _by_parameters():
            result, saved = self._trained(rows, options, prepare, config)
        if classes is not None:
            self.classes_ = classes
        self.history_ = result.pop("history")
        self.derived_ = result.pop("derived")
        self.figures_, self.n_iter_ = result, len(self.history_)
        self.loss_curve_ = [epoch["loss"] for epoch in self.history_]
        self._saved = saved
        self._model = self._opened()
        return self

    def _trained(
        self, rows: Rows, options: dict[str, Any], prepare: dict[str, Any], config: Config
    ) -> tuple[dict[str, Any], bytes]:
        """Result and checkpoint, from this process or from ranks of its own."""
        if self.n_ranks != 1:
            quiet = not self.verbose
            return training.fit_on_ranks(rows, self.n_ranks, prepare, config, options, quiet)
        with training.of_a_program():
            return training.fit_rows(rows, None, (), True, prepare, options, keeps_model=True)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model as a checkpoint, for ``lepton_mpi.load`` and the commands predict, evaluate and export; returns the path."""
        check_is_fitted(self)
        target = Path(path)
        target.write_bytes(self._saved)
        return target

    @property
    def _are_classes(self) -> bool:
        return isinstance(self, ClassifierMixin)

    def _rows(self, x: Any, y: np.ndarray) -> Any:
        return rows_of(x, y, "classes" if self._are_classes else "targets")

    def _training_options(self) -> dict[str, Any]:
        """Options of the command train. Raises ConfigurationError."""
        given = dict(self.options or {})
        for name in given:
            if name in _DECIDED or name in _OPTIONS:
                raise ConfigurationError(
                    f"options: expected options without a parameter of their own, got {name!r}"
                )
        own = {name: getattr(self, name) for name in _OPTIONS if not _is_left(getattr(self, name))}
        if isinstance(own.get("hidden"), np.ndarray):
            own["hidden"] = own["hidden"].tolist()
        seed = self.random_state
        if seed is None:
            seed = 0
        elif not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(np.iinfo(np.int32).max)
        if not self._are_classes:
            own.setdefault("loss", given.pop("loss", "mse"))
        fraction = self.validation_fraction if self.early_stopping else 0.0
        held_out = {"validation_split": float(fraction), "test_split": 0.0, "seed": int(seed)}
        progress = {"progress": "plain" if self.verbose else "none"}
        return progress | given | own | held_out | self._stopping()

    def _stopping(self) -> dict[str, Any]:
        """Early stopping needs no folder but the one that training gets."""
        if not self.early_stopping:
            return {}
        if not 0 < self.validation_fraction < 1:
            raise ConfigurationError(
                f"validation_fraction: expected a number between 0 and 1, got {self.validation_fraction!r}"
            )
        stop = f"{self.n_iter_no_change},{float(self.tol)!r}"
        folder = (self.options or {}).get("checkpoint", training.FOLDER)
        return {
            "early_stop": stop,
            "keep_best": "auto",
            "restore_best": True,
            "checkpoint": folder,
        }

    def _preparing(self) -> dict[str, Any]:
        """Options of prepare. Raises ConfigurationError."""
        given = dict(self.prepare or {})
        for name in ("missing", "categorical", "seed"):
            if name in given:
                raise ConfigurationError(
                    f"prepare: {name}: is a parameter of {type(self).__name__}"
                )
        if self.missing == "drop":
            raise ConfigurationError(
                "missing: expected error, mean, median or constant=VALUE, got drop"
            )
        if self.unknown not in ("error", "missing"):
            raise ConfigurationError(f"unknown: expected error or missing, got {self.unknown!r}")
        if self.model == "wide_and_deep":
            given.setdefault("categories", "inputs")
        return given | {"missing": self.missing, "categorical": tuple(self.categorical)}

    # -- the fitted model ------------------------------------------------------------------------------

    def _fitted(self) -> TrainedModel:
        """The model; that of a copy from a pickle is opened when it is needed first."""
        check_is_fitted(self)
        if not hasattr(self, "_model"):
            self._model = self._opened()
        return self._model

    def _opened(self) -> TrainedModel:
        name = self.model if self.model is not None and is_own_file(self.model) else None
        with temporary_folder() as folder:
            path = folder / "model.h5"
            path.write_bytes(self._saved)
            with probe.made_here(path):
                return load(path, model=name, unknown=self.unknown)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_saved")

    def __getstate__(self) -> dict[str, Any]:
        """Without the open model, which holds compiled kernels."""
        state = dict(super().__getstate__())
        state.pop("_model", None)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != "error"
        tags.input_tags.string = tags.input_tags.categorical = False
        return tags


_COMMON = frozenset(signature(_Estimator.__init__).parameters) - {"self"}


class LeptonClassifier(ClassifierMixin, _Estimator):
    __doc__ = f"""A classifier: classes are whole numbers, texts or booleans.

    class_weight : {{"balanced"}} or dict of class to float, optional
        As --class-weights; 1 for classes that the dict has not.
    classes_ : array
        The classes, sorted, as y has them.

    {_Estimator.__doc__}"""

    def __init__(
        self,
        model: str | None = None,
        *,
        hidden: Sequence[int] | str | None = "auto",
        activation: str | None = None,
        dropout: float | None = None,
        epochs: int | str | None = "auto",
        global_batch: int | str | None = "auto",
        optimizer: str | None = None,
        learning_rate: float | str | None = "auto",
        weight_decay: float | None = None,
        schedule: str | None = None,
        dtype: str | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 0.0,
        missing: str = "error",
        unknown: str = "error",
        categorical: Sequence[str] = (),
        n_ranks: int = 1,
        random_state: Any = None,
        verbose: bool = False,
        options: Mapping[str, Any] | None = None,
        prepare: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(**{name: v for name, v in locals().items() if name in _COMMON})
        self.class_weight = class_weight

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row, as y of ``fit`` has them, shape (rows,). Raises ValueError and DataError for wrong rows."""
        model, rows = self._fitted(), validation.rows_to_predict(self, X)
        with _by_parameters():
            return self.classes_[model.codes_or_targets(rows)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, in the order of ``classes_``: float32, or ``dtype``, shape (rows, classes)."""
        model, rows = self._fitted(), validation.rows_to_predict(self, X)
        with _by_parameters():
            return model.predict_proba(rows)


class LeptonRegressor(RegressorMixin, _Estimator):
    __doc__ = f"""A regression of one target or several.

    {_Estimator.__doc__}"""

    def predict(self, X: Any) -> np.ndarray:
        """The targets in their own units, float64 (rows,) of one, (rows, targets) of several."""
        model, rows = self._fitted(), validation.rows_to_predict(self, X)
        with _by_parameters():
            return model.predict(rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
