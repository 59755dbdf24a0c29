"""``python -m lepton_mpi predict CHECKPOINT INPUT… --out FILE``: what a model says of rows, the same on any number of ranks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from lepton_mpi.commands import of_checkpoint
from lepton_mpi.commands.command import command
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.kinds import PathText, Several, Text
from lepton_mpi.options.option import Checked, option, position


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is predicted, and what is written of it."""

    checkpoint: str = of_checkpoint.checkpoint_position()
    inputs: tuple[str, ...] = position(
        "prepared files, or raw ones, which are encoded as the training file was: tables, arrays, texts, images, sounds, folders",
        kind=Several.of(PathText("INPUT")),
    )
    out: str | None = option(
        None,
        "file to write, .csv, .tsv, .parquet, .npz or .h5; must be given",
        kind=PathText("FILE"),
    )
    split: Literal["all", "train", "validation", "test"] = option(
        "all", "rows of a prepared file; all: a column says which split each is of"
    )
    proba: bool = option(False, "the probability of each class, too")
    embeddings: str | None = option(
        None,
        "layer of a network whose activations are written, too; a name that is none lists them",
        kind=Text("LAYER"),
    )
    key: str | None = option(
        None,
        "column of a raw table that names its rows; none: their numbers from 0, of images and sounds the names of the files",
        kind=Text("COLUMN"),
    )
    unknown: Literal["error", "missing"] = option(
        "error", "categories that the training file has not are an error, or missing"
    )
    like: str | None = option(
        None,
        "the prepared file that was trained on, for a checkpoint of an earlier version, which does not say how rows are encoded",
        kind=PathText("FILE"),
    )
    prepare: str | None = option(
        None,
        "options of prepare that say how raw inputs are read, such as --prepare='--delimiter ; --skip 2'",
        kind=Text("'OPTIONS'"),
    )
    force: bool = option(False, "write over a file that exists")
    model: str | None = of_checkpoint.own_model_option()
    timeout: float = of_checkpoint.timeout_option()


def _run(chosen: Options) -> int:
    if chosen.out is None:
        raise ConfigurationError("--out: expected a file to write, got none")
    return of_checkpoint.on_ranks(lambda ranks: _predict(chosen, ranks), chosen.timeout)


def _predict(chosen: Options, ranks: object) -> None:
    from lepton_mpi.prediction import streaming
    from lepton_mpi.prediction.request import Request

    given = dataclasses.asdict(chosen)
    del given["timeout"]
    streaming.predict(Request(**given), ranks)


COMMAND = command(
    "predict",
    "write what a trained model says of rows: classes, probabilities, targets, embeddings",
    "CHECKPOINT INPUT… --out FILE [options]",
    Options,
    _run,
    "Rows are written in the order of the inputs, the same bytes on any number of ranks, and memory does not grow with a raw "
    "input. The label need not be there, and is ignored if it is. A checkpoint keeps how its rows were encoded: categories, fills, "
    "dates, normalisation, sizes of images; columns are found by their names, and others are left out.",
)
