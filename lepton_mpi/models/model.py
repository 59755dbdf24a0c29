"""``Model``: from batch to loss and gradient. A model knows nothing of ranks, files or optimizers."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np

from lepton_mpi.batch import Batch, Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.kernels.compiling import Kernel
from lepton_mpi.layers.initial import initialise_uniform
from lepton_mpi.layers.layer import Array, Shape, Sums
from lepton_mpi.sync import Exchange, Sync
from lepton_mpi.vectors import Views


class MicroBatch(NamedTuple):
    """One of a rank's, with rows: its number in the step, from 0, and the gradient to be filled, by name."""

    number: int
    batch: Batch
    gradient: Views


class Model(Protocol):
    """The protocol of the built-in models, which inherit its defaults. A user's own has a smaller door: ``own_model.py``.

    ``parameters`` and ``gradient`` are mappings of name to array, views into flat vectors of the configured dtype, in
    which a name keeps its array. ``parameters`` and the batch must not be changed.

    Attributes
    ----------
    name : str
        For people, and in checkpoints; ``str(model)`` may say more.
    shapes : mapping of str to shape
        Parameters in forward order.
    inputs : mapping of str to Input
        The arrays of the batch that are read, with their kind and the shape of one row.
    task : str
        Name in the registry of tasks: what the outputs are.
    averaged : mapping of str to float
        Parameters that no optimizer trains: their "gradient" is a sum over rows, and a step moves each by this share of the
        way to its mean over the rows of the step (``layers.layer.Parameter``).
    decayed : collection of str, or None
        Parameters that ``--weight-decay`` pulls towards 0: weights, whatever their number of dimensions, but neither biases nor
        scales. None: those of two or more dimensions.
    outputs_first : collection of str
        Weights whose first dimension is that of outputs, such as an embedding's rows; of others it is the last.
    class_weights : array, shape (classes,), or None
        By ``weigh_classes``: what the loss of a row of each class is multiplied by, of the type of the parameters.
    frozen : collection of str
        Parameters that are not trained, by ``freeze``; nobody looks at their gradient, which need not be filled.
    reads_in_place : bool
        True if the model indexes ``batch.x`` by ``batch.places``; rows are then not copied.
    asks_for_parameters : bool
        True if ``sync.need(name)`` is called before a parameter is read; a step may then begin before the last one's
        sums have all arrived.
    evaluates : bool
        False for one without ``evaluate`` and ``predict``: there are no figures but those of training.
    predicts : bool
        False for one without ``predict``.
    mixes_rows : bool
        True if a row's result depends on the other rows of its micro-batch; else the sums of two parts of a micro-batch are
        those of the whole.
    synchronised : bool
        True if the micro-batches of a step must be computed together: by ``loss_and_gradients``.
    fingerprint : str
        Of what results depend on beside parameters and batch, such as the values that the parameters begin with; the ranks compare
        it. Empty of a model whose options say it all.
    kernels : sequence of Kernel
        Those that training and evaluation call: the ranks compile them side by side before the first step. One that is left
        out is compiled at its first call, by each rank for itself.
    """

    name: str
    shapes: Mapping[str, Shape]
    inputs: Mapping[str, Input]
    task: str
    averaged: Mapping[str, float] = {}
    decayed: Collection[str] | None = None
    outputs_first: Collection[str] = ()
    class_weights: Array | None = None
    frozen: Collection[str] = ()
    reads_in_place: bool = False
    asks_for_parameters: bool = False
    evaluates: bool = True
    predicts: bool = True
    mixes_rows: bool = False
    synchronised: bool = False
    fingerprint: str = ""
    kernels: Sequence[Kernel] = ()

    def initialise(self, parameters: Views, seed: int) -> None:
        """Fill ``parameters``, a function of ``seed`` alone."""
        initialise_uniform(parameters, seed)

    def freeze(self, names: Collection[str]) -> None:
        """These parameters stay as they are. Called once, before ``kernels`` and ``mixes_rows`` are read.

        Raises ConfigurationError for parameters that can only stay together.
        """
        self.frozen = frozenset(names)

    def weigh_classes(self, weights: Array) -> None:
        """Set ``class_weights``. Called once, before ``kernels`` are read; the correct count stays that of rows.

        Raises ConfigurationError of a model whose loss cannot be weighted.
        """
        raise ConfigurationError(
            f"--class-weights: expected a built-in model of classes, got {self.name}; a model of one's own weighs the rows itself"
        )

    def loss_and_gradient(
        self, parameters: Views, batch: Batch, gradient: Views, sync: Sync
    ) -> Sums:
        """Fill every array of ``gradient``; return loss and correct count, NaN if not counted: sums over the batch, not means.

        Random numbers are a function of ``batch.draw`` and ``batch.rows``, never of a generator with a state: then the
        weights do not depend on the number of ranks.
        """
        ...

    def loss_and_gradients(
        self, parameters: Views, micro_batches: Sequence[MicroBatch], exchange: Exchange
    ) -> Sums:
        """All of this rank's micro-batches of a step, at once, if ``synchronised``: fill each one's gradient, return their sums.

        Those without rows are left out, but ``exchange`` counts them. Collective over its ranks, also for one with none.
        """
        raise TypeError(f"model {self.name} computes each micro-batch by itself")

    def evaluate(self, parameters: Views, batch: Batch, predicted: Array) -> float:
        """Fill ``predicted`` as the task wants it (``Task.room_for``); return the summed loss."""
        ...

    def predict(self, parameters: Views, batch: Batch, outputs: Array) -> None:
        """Fill ``outputs``, shape (rows, outputs): probabilities of the classes, or predicted targets. ``batch.y`` counts rows."""
        ...

    def evaluate_and_predict(
        self, parameters: Views, batch: Batch, predicted: Array, outputs: Array
    ) -> float:
        """Both, with the same bits; a model that can computes its outputs once."""
        self.predict(parameters, batch, outputs)
        return self.evaluate(parameters, batch, predicted)

    def release(self, parameters: Views) -> dict[str, Any]:
        """The run is over: keep none of its arrays. Called once, also after an error.

        Returns what the result of ``fit`` has of this model beside ``parameters``, which are those of the run's end.
        """
        return {}

    def memory_lines(self, rows: int, dtype: np.dtype[Any]) -> list[str]:
        """What a step on so many rows works in, for people, a line each; known before the first step."""
        return []

    def memory_bytes(self, batches: Iterable[tuple[int, bool]], dtype: np.dtype[Any]) -> int:
        """What it works in, all of these batches one after the other: of each its rows, and whether it is trained on.

        0 of a model that does not say.
        """
        return 0


class DataFacts(Protocol):
    """What a model is built for. ``data.loader.DataSet`` is one.

    Attributes
    ----------
    inputs : mapping of str to Input
        What a batch has.
    feature_shape : tuple of int
        Of a row of the first of them.
    class_count : int or None
        None for targets.
    output_count : int
        Classes, or targets.
    outputs_text : str
        What they are, for messages.
    category_names : sequence of str
        Of the columns of the input that is categories; empty where the data do not say, or have none.
    """

    @property
    def inputs(self) -> Mapping[str, Input]: ...
    @property
    def feature_shape(self) -> Shape: ...
    @property
    def class_count(self) -> int | None: ...
    @property
    def output_count(self) -> int: ...
    @property
    def outputs_text(self) -> str: ...
    @property
    def category_names(self) -> Sequence[str]: ...


def only_numbers(name: str, data: DataFacts) -> Input:
    """The only input of data for a model that takes one, of numbers, as a flat one. Raises ConfigurationError."""
    kinds = [spec.kind for spec in data.inputs.values()]
    if kinds != ["numbers"]:
        hint = "; --model wide_and_deep takes such tables" * ("categories" in kinds)
        raise ConfigurationError(
            f"--model {name}: expected rows with one input, of numbers, got {', '.join(data.inputs)}, of "
            f"{', '.join(kinds)}{hint}"
        )
    return Input("numbers", (prod(data.feature_shape),))


def check_inputs(model: Model, data: DataFacts) -> None:
    """Whether the data have what a model reads, and nothing that it would pass over. Raises ConfigurationError."""
    # A single one is ``Batch.x``, whatever its name.
    is_single = len(model.inputs) == len(data.inputs) == 1
    for name, wanted in model.inputs.items():
        found = next(iter(data.inputs.values())) if is_single else data.inputs.get(name)
        if found is None or found.kind != wanted.kind or prod(found.shape) != prod(wanted.shape):
            known = ", ".join(f"{key} ({of.kind}, {of.shape})" for key, of in data.inputs.items())
            raise ConfigurationError(
                f"model {model.name}: reads {name} ({wanted.kind}, {wanted.shape}): expected data that have it, got {known}"
            )
    unread = {} if is_single else data.inputs.keys() - model.inputs.keys()
    if unread:
        hint = "; prepare --categories codes makes numbers of categories" * ("categories" in unread)
        raise ConfigurationError(
            f"model {model.name}: reads {', '.join(model.inputs)}: expected data with no other inputs, got also "
            f"{', '.join(sorted(unread))}{hint}"
        )
