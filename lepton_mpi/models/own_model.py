"""A user's own model: named shapes and a function that fills gradients, adapted to ``Model``.

    class LinearSoftmax:                                              # called with (feature_shape, output_count)
        shapes = {"weight": (64, 10), "bias": (10,)}
        def loss_and_gradient(self, parameters, batch, gradient):     # or with a fourth argument, sync
            ...                                                       # fills every array of gradient
            return loss                                               # or (loss, correct): sums over the rows

What else it may have, all by the contract of ``Model``: ``evaluate``, ``predict``, ``initialise``, ``freeze``, ``inputs``, ``task``,
``averaged``, ``decayed``, ``outputs_first``, ``reads_in_place``, ``asks_for_parameters``, ``mixes_rows``, ``kernels``, ``name``. This module is the only one that asks.

What it does is checked in its first micro-batch with rows, for which it is called three times, ``first_step.py``; after that
a step costs one more call. ``is_trusted = True`` leaves the check out, for a model that counts its calls.
"""

import inspect
import operator
from collections.abc import Callable, Collection, Mapping
from functools import partial
from numbers import Real
from typing import Any, Protocol

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.errors import ConfigurationError, LeptonError
from lepton_mpi.layers.initial import initialise_uniform
from lepton_mpi.layers.layer import Array, Shape, Sums
from lepton_mpi.models import first_step
from lepton_mpi.models.model import DataFacts, Model, check_inputs
from lepton_mpi.models.other_libraries import described
from lepton_mpi.sync import NO_SYNC, Sync
from lepton_mpi.vectors import Views
from lepton_mpi.wording import one_line


class UsersModel(Protocol):
    """What a user's model must have."""

    shapes: Mapping[str, Shape]

    def loss_and_gradient(self, parameters: Views, batch: Batch, gradient: Views) -> Any:
        """As of ``Model``, without ``sync`` or with it; returns the loss, or (loss, correct)."""


def adapt(given: Any, data: DataFacts, threads: int = 1) -> Model:
    """A user's model, or what is called as ``given(feature_shape, output_count)`` and returns one.

    Models of other libraries, such as torch modules, are taken, too (``other_libraries.py``); ``threads`` is for them.

    Raises
    ------
    ConfigurationError
        In one line. Errors of the user's own code come as they are, with a note that names the model.
    """
    make, other = None, described(given)
    is_called = isinstance(given, type) or not hasattr(given, "loss_and_gradient")
    if other is None and is_called and callable(given):
        name = given.__name__ if hasattr(given, "__name__") else type(given).__name__
        _check_takes(given, name, ("feature_shape", "output_count"))
        make = partial(given, data.feature_shape, data.output_count)
        try:
            given = make()
        except Exception as error:
            raise _named(error, name) from error.__cause__
        other = described(given)
    model: Model
    model = other.adapt(data, threads, make) if other is not None else OwnModel(given, data)
    check_inputs(model, data)
    return model


class OwnModel(Model):
    """See the module; parameters as of ``adapt``. ``given`` is the user's object."""

    def __init__(self, model: Any, data: DataFacts) -> None:
        self.given = model
        write: Any = type(model).__str__
        self._text = type(model).__name__ if write is object.__str__ else str(model)
        self.name = _optional(model, "name", self._text, str, "a text")
        self.shapes = _checked_shapes(model, self.name)
        self._compute, self._takes_sync = _compute_of(model, self.name)
        self.inputs = _optional(model, "inputs", data.inputs, Mapping, "a dict of name to Input")
        task = "classes" if data.class_count else "targets"
        self.task = _optional(model, "task", task, str, "the name of a task")
        self.averaged = _optional(model, "averaged", {}, Mapping, "a dict of name to share")
        self.decayed = _decayed_of(model, self.name, self.shapes)
        self.outputs_first = _optional(
            model, "outputs_first", (), Collection, "names of parameters"
        )
        self.reads_in_place = _flag(model, "reads_in_place")
        self.asks_for_parameters = _flag(model, "asks_for_parameters")
        self._look_again = partial(self._look, model)
        self._look_again()
        self._evaluate = _method(model, self.name, "evaluate", "parameters", "batch", "predicted")
        self._predict = _method(model, self.name, "predict", "parameters", "batch", "outputs")
        self._initialise = _method(model, self.name, "initialise", "parameters", "seed")
        self.predicts = self._predict is not None
        self._freeze = _method(model, self.name, "freeze", "names")
        self._memory_lines = _method(model, self.name, "memory_lines", "rows", "dtype")
        self.evaluates = self._evaluate is not None and _flag(model, "evaluates", True)
        self._is_tried, self._is_evaluated = _flag(model, "is_trusted"), False

    def __str__(self) -> str:
        return self._text

    def _look(self, model: Any) -> None:
        """At what freezing may change."""
        self.mixes_rows = _flag(model, "mixes_rows")
        self.kernels = _optional(model, "kernels", (), tuple, "a tuple of kernels")

    def freeze(self, names: Collection[str]) -> None:
        super().freeze(names)
        if self._freeze is None:
            return
        try:
            self._freeze(names)
        except Exception as error:
            raise _named(error, self.name) from error.__cause__
        self._look_again()

    def initialise(self, parameters: Views, seed: int) -> None:
        try:
            (self._initialise or initialise_uniform)(parameters, seed)
        except Exception as error:
            raise _named(error, self.name) from error.__cause__

    def loss_and_gradient(
        self, parameters: Views, batch: Batch, gradient: Views, sync: Sync
    ) -> Sums:
        if not self._is_tried:
            for name in self.shapes:
                sync.need(name)
            sums = first_step.check(self, self.run, parameters, batch, gradient)
            self._is_tried = True
            return sums
        return self.run(parameters, batch, gradient, sync)

    def run(self, parameters: Views, batch: Batch, gradient: Views, sync: Sync = NO_SYNC) -> Sums:
        """The user's function, and what it returns as two numbers."""
        try:
            if self._takes_sync:
                returned = self._compute(parameters, batch, gradient, sync)
            else:
                returned = self._compute(parameters, batch, gradient)
        except Exception as error:
            raise _named(error, self.name) from error.__cause__
        if isinstance(returned, tuple) and len(returned) == 2:
            return self._number(returned[0], returned), self._number(returned[1], returned)
        return self._number(returned, returned), np.nan

    def evaluate(self, parameters: Views, batch: Batch, predicted: Array) -> float:
        assert self._evaluate is not None, "evaluates says so"
        if not self._is_evaluated:
            predicted[...] = _UNLIKELY
        try:
            returned = self._evaluate(parameters, batch, predicted)
        except Exception as error:
            raise _named(error, self.name) from error.__cause__
        if not self._is_evaluated and (predicted == _UNLIKELY).any():
            raise ConfigurationError(
                f"model {self.name}: evaluate: expected predicted[:] to be filled for every row, got only some or none"
            )
        self._is_evaluated = True
        return self._number(returned, returned, "evaluate", "the loss, a number")

    def predict(self, parameters: Views, batch: Batch, outputs: Array) -> None:
        if self._predict is None:
            raise ConfigurationError(
                f"model {self.name}: expected a method predict(parameters, batch, outputs) to predict with, got none"
            )
        try:
            self._predict(parameters, batch, outputs)
        except Exception as error:
            raise _named(error, self.name) from error.__cause__

    def memory_lines(self, rows: int, dtype: np.dtype[Any]) -> list[str]:
        return list(self._memory_lines(rows, dtype)) if self._memory_lines else []

    def _number(
        self,
        value: Any,
        returned: Any,
        method: str = "loss_and_gradient",
        expected: str = "the loss, a number, or (loss, correct), two numbers",
    ) -> float:
        if isinstance(value, float):  # NumPy's float64 is one, too
            return float(value)
        if isinstance(value, np.ndarray | np.generic) and value.size == 1:
            value = value.item()
        if (isinstance(value, Real) and not isinstance(value, bool)) or _is_scalar(value):
            return float(value)
        raise ConfigurationError(
            f"model {self.name}: {method}: expected {expected}, got {_shown(returned)}"
        )


# No class, and no target that a model gives.
_UNLIKELY = -(1 << 30)


def _is_scalar(value: Any) -> bool:
    """Whether it is another library's number."""
    kinds = (complex, str, bytes, np.ndarray, np.generic, bool)
    return hasattr(value, "__float__") and not isinstance(value, kinds)


def _shown(value: Any) -> str:
    """A wrong value for a message."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, {value.dtype}"
    text = one_line(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}…"


def _optional(model: Any, name: str, default: Any, kind: type, expected: str) -> Any:
    """An attribute that a model need not have. Raises ConfigurationError if it is something else."""
    found = getattr(model, name, default)
    if not isinstance(found, kind):
        raise ConfigurationError(
            f"model {type(model).__name__}: {name}: expected {expected}, got {_shown(found)}"
        )
    return found


def _flag(model: Any, name: str, default: bool = False) -> bool:
    found: bool = _optional(model, name, default, bool, "True or False")
    return found


def _checked_shapes(model: Any, name: str) -> dict[str, Shape]:
    """Of the parameters, as tuples of int. Raises ConfigurationError."""
    shapes = getattr(model, "shapes", None)
    if not isinstance(shapes, Mapping) or not shapes:
        got = "none" if shapes is None else _shown(shapes)
        raise ConfigurationError(
            f"model {name}: expected an attribute shapes, a dict of parameter name to shape, got {got}"
        )
    found = {}
    for key, shape in shapes.items():
        try:
            lengths = tuple(operator.index(length) for length in shape)
        except TypeError:
            lengths = (0,)
        if not isinstance(key, str) or not key or min(lengths, default=1) < 1:
            raise ConfigurationError(
                f"model {name}: shapes[{key!r}]: expected a name, and whole numbers of at least 1 in a tuple, got "
                f"{_shown(shape)}"
            )
        found[key] = lengths
    return found


def _decayed_of(model: Any, name: str, shapes: Mapping[str, Shape]) -> tuple[str, ...] | None:
    """Names of parameters, if the model says which weight decay acts on. Raises ConfigurationError."""
    found = getattr(model, "decayed", None)
    is_some = isinstance(found, Collection) and not isinstance(found, str)
    if found is None or (is_some and all(key in shapes for key in found)):
        return None if found is None else tuple(found)
    raise ConfigurationError(
        f"model {name}: decayed: expected names of parameters ({', '.join(shapes)}), got {_shown(found)}"
    )


def _compute_of(model: Any, name: str) -> tuple[Callable[..., Any], bool]:
    """The model's function, and whether its fourth argument is ``sync``. Raises ConfigurationError."""
    words = "parameters", "batch", "gradient"
    compute = _method(model, name, "loss_and_gradient", *words, may_have_sync=True)
    if compute is None:
        raise ConfigurationError(
            f"model {name}: expected a method loss_and_gradient(parameters, batch, gradient), got none"
        )
    return compute, _has_sync(compute)


def _has_sync(compute: Callable[..., Any]) -> bool:
    """Whether a fourth argument must be given, or is called sync."""
    try:
        taken = list(inspect.signature(compute).parameters.values())
    except (TypeError, ValueError):  # of compiled code
        return False
    plain = [p for p in taken if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(plain) > 3 and (plain[3].default is plain[3].empty or plain[3].name == "sync")


def _method(
    model: Any, name: str, method: str, *words: str, may_have_sync: bool = False
) -> Callable[..., Any] | None:
    """The model's method, if it has one that takes these arguments. Raises ConfigurationError if it takes others."""
    found = getattr(model, method, None)
    if found is None:
        return None
    extra = 1 if may_have_sync and callable(found) and _has_sync(found) else 0
    _check_takes(
        found, f"{name}: {method}", (*words, "sync")[: len(words) + extra] if extra else words
    )
    return found


def _check_takes(found: Any, name: str, words: tuple[str, ...]) -> None:
    """Raise ConfigurationError unless ``found`` can be called with so many arguments."""
    expected = f"({', '.join(words)})"
    if not callable(found):
        raise ConfigurationError(f"model {name}: expected a method {expected}, got {_shown(found)}")
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # of compiled code
        return
    try:
        signature.bind(*words)
    except TypeError:
        raise ConfigurationError(
            f"model {name}: expected to be called with {expected}, got one that takes {signature}"
        ) from None


def _named(error: Exception, name: str) -> Exception:
    """The user's own error, which keeps its traceback, with a note whose it is."""
    if not isinstance(error, LeptonError):
        error.add_note(f"in model {name}")
    return error
