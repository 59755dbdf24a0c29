"""``lepton_mpi.load``: a checkpoint as a model of a program, without MPI and without a launcher.

model = lepton_mpi.load("runs")
model.predict(frame)          names of classes, or targets in their own units
model.predict_proba(frame)    (rows, classes)
"""

import os
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.prediction import sources
from lepton_mpi.prediction.encoder import Encoder
from lepton_mpi.prediction.fields import target_names, values_of
from lepton_mpi.prediction.frames import BLOCK_ROWS, ArrayBlocks, FrameBlocks, Named, is_frame
from lepton_mpi.prediction.predictor import Predictor, Wanted
from lepton_mpi.prediction.prepared import PreparedRows
from lepton_mpi.prediction.subject import Subject, open_subject
from lepton_mpi.prepare.passes import Blocks
from lepton_mpi.prepare.readers import Block
from lepton_mpi.run.trained import find_silently, load_found
from lepton_mpi.world.alone import Alone

Place = str | os.PathLike[str]


def load(
    checkpoint: Place,
    *,
    like: Place | None = None,
    model: str | None = None,
    unknown: str = "error",
) -> "TrainedModel":
    """A trained model to predict with, in this process alone; MPI is neither needed nor started.

    Parameters
    ----------
    checkpoint : str or path
        A file that training wrote, or a folder of them, of which the newest that is whole is taken.
    like : str or path, optional
        The prepared file that was trained on. A checkpoint of an earlier version needs it.
    model : str, optional
        ``FILE.py:NAME``, for a model of your own: a program that a checkpoint names is not run.
    unknown : {"error", "missing"}
        What a category is that was not in the training file.

    Raises
    ------
    DataError, ConfigurationError
        A file that is missing, damaged or no checkpoint; a model of texts, which ``generate`` continues.
    """
    if unknown not in ("error", "missing"):
        raise ConfigurationError(f"unknown: expected error or missing, got {unknown!r}")
    place, _ = find_silently(Path(checkpoint), Alone())  # type: ignore[arg-type]
    return TrainedModel(place, None if like is None else os.fspath(like), model, unknown)


class TrainedModel:
    """What ``load`` returns.

    Attributes
    ----------
    path : Path
        The checkpoint.
    classes_ : array, shape (classes,), or None
        Names of the classes, int64 if all are whole numbers; None for a regression.
    target_names : tuple of str
        Of a regression; else empty.
    feature_names : tuple of str
        Columns of the file that was trained on, in its order; empty where rows are arrays or nobody has named them.
    layers : tuple of str
        What ``embeddings`` takes.
    """

    def __init__(self, path: Path, like: str | None, model: str | None, unknown: str) -> None:
        self.path, self._unknown, self._model_name = path, unknown, model
        self._subject: Subject = open_subject(path, like, Alone(), model)
        self._predictor = Predictor(self._subject.found, Wanted())
        data = self._subject.found.data
        self.classes_ = values_of(data.class_names) if data.class_names else None
        self.target_names = () if data.class_names else target_names(data)
        self.feature_names = self._subject.encoding.columns
        self._encoder = Encoder(self._subject, unknown == "missing")

    def __repr__(self) -> str:
        return f"<{self._subject.found.model}, {self.path}>"

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers of a network."""
        from lepton_mpi.models.as_network import as_network

        found = self._subject.found
        network, _ = as_network(found.model, found.parameters)
        return tuple(node.name for node in network.graph.nodes)

    def predict(self, rows: Any) -> np.ndarray:
        """The likeliest class of each row by its name, or the targets.

        Parameters
        ----------
        rows : array, data frame, str or path
            Raw rows, as they were before ``prepare``: an array (rows, features) or (rows, *row shape) whose numbers are not yet
            normalised; a frame, whose columns are found by their names, in any order and among others; or the name of a
            file or folder, whatever ``python -m lepton_mpi predict`` takes.

        Returns
        -------
        array
            Shape (rows,), texts or int64 as ``classes_``; of a regression float64 in the units of the training file, (rows,) of one
            target and (rows, targets) of several.

        Raises
        ------
        DataError, ConfigurationError
            For rows that the model cannot read; the message names row and column.
        """
        found = self.codes_or_targets(rows)
        if self.classes_ is not None:
            return self.classes_[found]
        return found[:, 0] if found.shape[1] == 1 else found

    def codes_or_targets(self, rows: Any) -> np.ndarray:
        """The place of the likeliest class of each row in ``classes_``, int32 (rows,), or float64 (rows, targets); as ``predict``."""
        (found,) = self._answers(self._predictor, rows)
        return found

    def predict_proba(self, rows: Any) -> np.ndarray:
        """The probability of each class, in the order of ``classes_``: floats of the model's type, shape (rows, classes).

        ``rows`` and errors are as of ``predict``; ConfigurationError also for a regression.
        """
        return self._answers(self._probabilities, rows)[1]

    def embeddings(self, rows: Any, layer: str) -> np.ndarray:
        """What a layer of a network gives for each row, flattened: floats of the model's type, shape (rows, width).

        Raises ConfigurationError for a layer that there is not; the message lists those that there are.
        """
        predictor = Predictor(self._subject.found, Wanted(layer=layer))
        return self._answers(predictor, rows)[1]

    @cached_property
    def _probabilities(self) -> Predictor:
        return Predictor(self._subject.found, Wanted(proba=True))

    def _answers(self, predictor: Predictor, rows: Any) -> list[np.ndarray]:
        """Of each field, those of all rows."""
        if isinstance(rows, str | os.PathLike):
            parts = self._of_file(predictor, os.fspath(rows))
        else:
            parts = self._of_blocks(predictor, self._encoder, self._blocks(rows), "")
        found = list(parts) or [predictor.of((), 0)]
        return [np.concatenate(arrays) for arrays in zip(*found, strict=True)]

    def _blocks(self, rows: Any) -> Iterator[tuple[str, Block]]:
        names = self.feature_names
        if not is_frame(rows):
            rows = np.asarray(rows)
            if rows.dtype.kind in "OUST" and names:
                rows = Named(rows, names)
        if is_frame(rows) and not names:
            # Nobody has named the columns, so those of the frame are taken in their order.
            columns = [np.asarray(rows[name]) for name in rows.columns]
            rows = np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))
        made = self._frame(rows) if is_frame(rows) else ArrayBlocks(rows, self._subject)
        what = "frame" if is_frame(rows) else "array"
        for start in range(0, made.row_count, BLOCK_ROWS):
            yield what, made.block(start, min(start + BLOCK_ROWS, made.row_count))

    def _frame(self, rows: Any) -> FrameBlocks:
        names = ("frame",)
        options = sources.options_for(self._subject.encoding, names, self._unknown, None, None)
        try:
            return FrameBlocks(rows, self._subject.encoding.transformation.categories, options)
        except ConfigurationError as error:
            raise DataError(str(sources.about_inputs(error, self._subject))) from None

    def _of_blocks(
        self,
        predictor: Predictor,
        encoder: Encoder,
        blocks: Iterator[tuple[str, Block]],
        hint: str,
    ) -> Iterator[list[np.ndarray]]:
        encoder.unknown = {}
        for name, block in blocks:
            rows = encoder.encoded(block, name)
            if rows.row_count < len(block.x):
                row = int(np.setdiff1d(np.arange(len(block.x)), rows.kept)[0])
                raise DataError(
                    f"{name}: {block.place(row)}: expected values in all cells, got a missing one: the model was trained on rows without "
                    "(--missing drop)"
                )
            yield predictor.of(encoder.batches(rows), rows.row_count)
        for note in encoder.notes_on([encoder.unknown]):
            warnings.warn(note, stacklevel=2)

    def _of_file(self, predictor: Predictor, name: str) -> Iterator[list[np.ndarray]]:
        world: Any = Alone()
        if sources.are_prepared((name,), world):
            found = load_found(self.path, name, world, self._model_name)
            own = Predictor(found, predictor.wanted)
            rows = PreparedRows(found.data, "all")
            for chunk in rows.chunks:
                yield own.of(rows.batches(chunk), chunk.row_count)
            return
        opened = sources.open_raw(self._subject, (name,), world, self._unknown)
        try:
            blocks = Blocks(opened.source, world, 0)
            encoder = Encoder(opened.subject, self._unknown == "missing")
            named = ((part.name, blocks.read(n)) for n, (part, _) in enumerate(blocks.places))
            yield from self._of_blocks(predictor, encoder, named, name)
        finally:
            opened.source.close()
