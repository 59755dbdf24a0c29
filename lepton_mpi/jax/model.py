"""``model``: a function ``(params, rows) -> loss`` as a model of ``fit``, by ``jax.value_and_grad``.

parameters   the arrays of the pytree ``params``, each under its path, such as ``layers/0/w``; JAX gets a copy in each micro-batch
a step       one compiled program for each number of rows; its gradients are copied into the flat vector
random       ``rows.keys`` is a key for each row, a function of the step and the row's number alone: dropout that draws from it is the same on
             any number of ranks and for any --micro-batch
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.models.model import DataFacts, Model
from lepton_mpi.models.other_libraries import Described, Make
from lepton_mpi.models.own_model import OwnModel
from lepton_mpi.vectors import Views


class Rows(NamedTuple):
    """Of a micro-batch, as JAX arrays.

    Attributes
    ----------
    x : shape (rows, *feature_shape)
    y : int32 (rows,), classes; or floats (rows, targets); or int32 (rows, length), next tokens
        A token that is negative does not count.
    inputs : dict of str to array
        All inputs by name.
    keys : shape (rows,)
        A key of random numbers for each row and step.
    """

    x: jax.Array
    y: jax.Array
    inputs: dict[str, jax.Array]
    keys: jax.Array


Loss = Callable[[Any, Rows], jax.Array]


def model(
    loss: Loss,
    params: Any,
    *,
    predict: Callable[[Any, Rows], jax.Array] | None = None,
    reduction: str = "mean",
    mixes_rows: bool = False,
) -> "JaxFunction":
    """A loss function for ``fit``, or to be returned by the NAME of ``--model FILE.py:NAME``.

    Parameters
    ----------
    loss : callable (params, Rows) -> scalar
        The mean over the rows of a micro-batch, of texts over the tokens that count; with ``reduction="sum"`` their sum.
    params : pytree of arrays, or callable (key) -> pytree
        What a run begins with: a function is called with a key of --seed, and arrays must be the same on all ranks.
    predict : callable (params, Rows) -> outputs, optional
        Scores before the softmax, (rows, classes) or (rows, length, tokens), or predicted targets, (rows, targets); without it there are no
        figures but the loss of training.
    mixes_rows : bool
        True if a row's loss depends on the other rows of its micro-batch.

    Raises
    ------
    ConfigurationError
        From ``fit``, on every rank: parameters that are no floats, a loss that is no scalar, and what ``models/first_step.py`` checks.
    """
    return JaxFunction(loss, params, predict, reduction, mixes_rows)


class JaxFunction(Described):
    """What ``model`` returns."""

    def __init__(
        self,
        loss: Loss,
        params: Any,
        predict: Callable[[Any, Rows], jax.Array] | None,
        reduction: str,
        mixes_rows: bool,
    ) -> None:
        if reduction not in ("mean", "sum"):
            raise ConfigurationError(
                f"lepton_mpi.jax.model: reduction: expected 'mean' or 'sum', got {reduction!r}"
            )
        self.loss, self.params, self.predict = loss, params, predict
        self.is_mean, self.mixes_rows = reduction == "mean", mixes_rows

    def adapt(self, data: DataFacts, threads: int, make: Make | None) -> Model:
        return _Adapted(_Functions(self), data)


class _Adapted(OwnModel):
    """A user's model that gives its parameters back as a pytree."""

    def release(self, parameters: Views) -> dict[str, Any]:
        return {"params": self.given.tree({n: array.copy() for n, array in parameters.items()})}


class _Functions:
    """See ``own_model.UsersModel``."""

    def __init__(self, given: JaxFunction) -> None:
        self._given = given
        named, self._structure = jax.tree_util.tree_flatten_with_path(self._first(0))
        self.name = getattr(given.loss, "__name__", "jax")
        self.shapes = {}
        for path, leaf in named:
            name = jax.tree_util.keystr(path, simple=True, separator="/") or "params"
            if not np.issubdtype(np.asarray(leaf).dtype, np.floating):
                raise ConfigurationError(
                    f"model {self.name}: params {name}: expected floats, got {np.asarray(leaf).dtype}"
                )
            self.shapes[name] = np.shape(leaf)
        self.mixes_rows = given.mixes_rows
        self.evaluates = given.predict is not None
        self._gradient = jax.jit(jax.value_and_grad(self._sum))
        self._figures = jax.jit(self._evaluated)
        self._outputs = jax.jit(self._predicted)

    def __str__(self) -> str:
        return f"{self.name} of jax, {len(self.shapes)} arrays"

    def initialise(self, parameters: Views, seed: int) -> None:
        leaves = jax.tree_util.tree_leaves(self._first(seed))
        for array, leaf in zip(parameters.values(), leaves, strict=True):
            array[...] = np.asarray(leaf)

    def loss_and_gradient(self, parameters: Views, batch: Batch, gradient: Views) -> float:
        arguments = self._arguments(parameters, batch)
        loss, found = self._gradient(*arguments)
        for array, leaf in zip(gradient.values(), jax.tree_util.tree_leaves(found), strict=True):
            np.copyto(array, np.asarray(leaf))
        return float(loss)

    def evaluate(self, parameters: Views, batch: Batch, predicted: np.ndarray) -> float:
        loss, outputs = self._figures(*self._arguments(parameters, batch))
        found = np.asarray(outputs)
        np.copyto(predicted, found.reshape(predicted.shape), casting="same_kind")
        return float(loss)

    def predict(self, parameters: Views, batch: Batch, outputs: np.ndarray) -> None:
        if self._given.predict is None:
            raise ConfigurationError(
                f"model {self.name}: expected lepton_mpi.jax.model(…, predict=…) to predict with, got none"
            )
        found = np.asarray(self._outputs(*self._arguments(parameters, batch)))
        np.copyto(outputs, found.reshape(outputs.shape))

    def tree(self, arrays: dict[str, np.ndarray]) -> Any:
        """``params`` with these values, NumPy's arrays."""
        return self._structure.unflatten(arrays[name] for name in self.shapes)

    def _first(self, seed: int) -> Any:
        params = self._given.params
        return params(jax.random.key(seed)) if callable(params) else params

    def _arguments(self, parameters: Views, batch: Batch) -> tuple[Any, ...]:
        dtype = next(iter(parameters.values())).dtype
        if dtype == np.float64 and not jax.config.jax_enable_x64:
            raise ConfigurationError(
                f"model {self.name}: --dtype float64 needs jax.config.update('jax_enable_x64', True) in the program"
            )
        tree = self._structure.unflatten(parameters[name] for name in self.shapes)
        numbers = np.zeros(len(batch.y), np.int64) if batch.rows is None else batch.rows
        words = np.array([batch.draw & 0xFFFFFFFF, batch.draw >> 32 & 0xFFFFFFFF], np.uint32)
        rows = (numbers & 0xFFFFFFFF).astype(np.uint32)
        return tree, dict(batch.inputs), batch.x, batch.y, words, rows

    def _sum(self, tree: Any, inputs: Any, x: Any, y: Any, words: Any, rows: Any) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), words[0]), words[1])
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
        loss = self._given.loss(tree, Rows(x, y, inputs, keys))
        if jax.numpy.shape(loss) != ():
            raise ConfigurationError(
                f"model {self.name}: loss: expected a scalar, got shape {jax.numpy.shape(loss)}"
            )
        if not self._given.is_mean:
            return loss
        is_text = y.ndim == 2 and jax.numpy.issubdtype(y.dtype, jax.numpy.integer)
        return loss * ((y >= 0).sum() if is_text else y.shape[0])

    def _evaluated(self, tree: Any, inputs: Any, x: Any, y: Any, *random: Any) -> Any:
        outputs = self._scores(tree, inputs, x, y, *random)
        if jax.numpy.issubdtype(y.dtype, jax.numpy.integer):
            outputs = outputs.argmax(-1)
        return self._sum(tree, inputs, x, y, *random), outputs

    def _predicted(self, tree: Any, inputs: Any, x: Any, y: Any, *random: Any) -> jax.Array:
        outputs = self._scores(tree, inputs, x, y, *random)
        if jax.numpy.issubdtype(y.dtype, jax.numpy.floating):
            return outputs
        return jax.nn.softmax(outputs[:, -1] if outputs.ndim == 3 else outputs, axis=-1)

    def _scores(self, tree: Any, inputs: Any, x: Any, y: Any, words: Any, rows: Any) -> jax.Array:
        assert self._given.predict is not None, "evaluates says so"
        key = jax.random.key(0)
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
        return self._given.predict(tree, Rows(x, y, inputs, keys))
