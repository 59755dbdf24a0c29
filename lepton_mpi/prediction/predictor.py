"""From batches to what a model says of their rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.data.dataset import DataSet
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.models.model import Model
from lepton_mpi.prediction.embeddings import Embeddings
from lepton_mpi.prediction.fields import Field, answer_fields
from lepton_mpi.prediction.subject import refuse_texts
from lepton_mpi.run.trained import Trained
from lepton_mpi.vectors import Views


@dataclass(frozen=True)
class Wanted:
    """What is computed beside the classes or targets."""

    proba: bool = False
    layer: str | None = None


class Predictor:
    """A trained model, and room for what it says.

    The class of a row is the one that ``evaluate`` counts. A row's numbers may depend, in their last bits, on the rows that are
    predicted in the same call; callers cut batches in a way that depends on the input alone.

    Attributes
    ----------
    fields : list of Field
        What ``of`` gives, in order.

    Raises
    ------
    ConfigurationError
        For a model that cannot predict, or not what is wanted.
    """

    def __init__(self, found: Trained, wanted: Wanted) -> None:
        self._model: Model = found.model
        self._parameters: Views = found.parameters
        self.data: DataSet = found.data
        _check(found, wanted)
        self.wanted, self._embeddings = wanted, None
        if wanted.layer is not None:
            self._embeddings = Embeddings(found.model, found.parameters, wanted.layer)
        width = self._embeddings.width if self._embeddings else 0
        self.fields: list[Field] = answer_fields(found.data, wanted.proba, wanted.layer, width)

    def of(self, batches: Iterable[Batch], row_count: int) -> list[np.ndarray]:
        """Of each field an array of ``row_count`` rows, those of all batches."""
        found = [self._room(field, row_count) for field in self.fields]
        start = 0
        for batch in batches:
            stop = start + len(batch.y)
            # What the true answers are must not matter; those of rows to be scored are no classes.
            unlabelled = batch._replace(y=np.zeros_like(batch.y))
            rooms = {
                field.name: out[start:stop] for field, out in zip(self.fields, found, strict=True)
            }
            self._fill(rooms, unlabelled)
            start = stop
        assert start == row_count, (start, row_count)
        return found

    def _room(self, field: Field, row_count: int) -> np.ndarray:
        if field.kind == "choice":
            return np.empty(row_count, np.int32)
        return np.empty((row_count, len(field.columns)), field.dtype)

    def _fill(self, rooms: Mapping[str, np.ndarray], batch: Batch) -> None:
        """Rows of a batch, by the names of the fields."""
        model, parameters = self._model, self._parameters
        if "probabilities" in rooms:
            both = rooms["class"], rooms["probabilities"]
            model.evaluate_and_predict(parameters, batch, *both)
        elif "class" in rooms:
            model.evaluate(parameters, batch, rooms["class"])
        else:
            scaled = np.empty(rooms["targets"].shape, self.data.dtype)
            model.evaluate(parameters, batch, scaled)
            rooms["targets"][:] = self.data.target_scale.unscaled(scaled)
        if self._embeddings:
            self._embeddings.of(batch, rooms["embeddings"])


def _check(found: Trained, wanted: Wanted) -> None:
    """Raise ConfigurationError for what the model cannot say."""
    model, data = found.model, found.data
    refuse_texts(found)
    if not model.evaluates:
        raise ConfigurationError(
            f"{found.path}: model {model.name}: expected a method evaluate(parameters, batch, predicted) to predict with, got none"
        )
    if wanted.proba and not data.class_names:
        raise ConfigurationError(
            f"--proba: expected a model of classes, got one of {data.outputs_text}"
        )
    if wanted.proba and not model.predicts:
        raise ConfigurationError(
            f"--proba: expected a model with a method predict(parameters, batch, outputs), got {model.name} without"
        )
