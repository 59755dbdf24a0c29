"""A checkpoint as a model that can be used: on its own data, or on others that it fits."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lepton_mpi.data.dataset import DataSet, renormalised
from lepton_mpi.data.loader import Wanted, load
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.data.ways import Way
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.models.model import Model
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.options.names import YKind
from lepton_mpi.registry import is_own_file
from lepton_mpi.run import build, checkpoint, checkpoint_folder, class_weights
from lepton_mpi.run.checkpoint import Checkpoint
from lepton_mpi.run.codes import check_codes
from lepton_mpi.tasks.registry import TASKS
from lepton_mpi.vectors import Layout, Views
from lepton_mpi.wording import one_line, print_line
from lepton_mpi.world.world import World


@dataclass(frozen=True)
class Trained:
    """What a checkpoint and data make together; ``path`` is the checkpoint."""

    model: Model
    parameters: Views
    data: DataSet
    path: Path


def load_trained(
    place: Path,
    data_name: str | Sequence[str] | None,
    world: World,
    model_name: str | None = None,
    needs_rows: bool = True,
    hint: str = "",
) -> Trained:
    """Load a checkpoint, or of a folder the newest that is whole, as ``load_found`` does. Collective. Raises LeptonError on every rank."""
    path = find(place, world)
    return load_found(path, data_name, world, model_name, needs_rows, hint)


def load_found(
    path: Path,
    data_name: str | Sequence[str] | None,
    world: World,
    model_name: str | None = None,
    needs_rows: bool = True,
    hint: str = "",
) -> Trained:
    """Load a checkpoint that ``find`` has let pass, and the data that it was trained on or others. Collective.

    Parameters
    ----------
    model_name
        Needed where the checkpoint names a program: one that a file names is not run.
    needs_rows
        False: without ``data_name`` no file is opened but the checkpoint, if it says what its data were, and the data have
        no splits. Files of earlier versions do not say it.
    hint
        For the message if such a file is needed and is not there: the option that names another one.

    Raises
    ------
    LeptonError
        On every rank.
    """
    with world.agreeing():
        saved = checkpoint.read(path)
        config = checkpoint.configuration(saved.attributes, path)
        y_kind = _y_kind(saved, config, path)
        if model_name is None and is_own_file(config.model):
            raise DataError(
                f"{path}: trained a model of your own: expected --model {one_line(config.model)}, got none; "
                "a file that names a program is not reason enough to run it"
            )
    dtype = np.dtype(config.dtype)
    wanted = dataclasses.replace(
        build.wanted_of(config),
        y_kind=y_kind,
        way="auto",
        target_scale=lambda count: _target_scale(path, saved, count),
        for_training=False,
    )
    if not needs_rows and data_name is None and saved.encodings.inputs:
        with world.agreeing():
            data = _without_rows(path, saved, y_kind, dtype)
    else:
        data = _loaded(path, data_name or config.data, wanted, world, "" if data_name else hint)
    with world.agreeing():
        notes = check_codes(saved.encodings, data, str(path))
        for note in notes if world.rank == 0 else ():
            print_line(note)
        model = make_model(model_name or config.model, config.for_model(threads=1), data)
        class_weights.take(saved.attributes, model, dtype, path)
        _check_fits(path, saved, Layout(model.shapes), data, dtype)
    # The checkpoint was trained with its own normalisation, whatever the file says.
    data = renormalised(data, saved.normalisation)
    return Trained(model, saved.layout.views(saved.parameters), data, path)


def _loaded(
    path: Path, names: str | Sequence[str], wanted: Wanted, world: World, hint: str
) -> DataSet:
    """The rows. Collective. Raises LeptonError on every rank."""
    try:
        return load(names, wanted, world)
    except DataError as error:
        if not hint:
            raise
        told = DataError(f"{error}; {path} does not keep what its data were: {hint}")
        told.agreed = error.agreed
        raise told from None


def _target_scale(path: Path, saved: Checkpoint, target_count: int) -> TargetScale:
    """How targets were scaled. Raises DataError."""
    try:
        return saved.target_scale(target_count)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _without_rows(path: Path, saved: Checkpoint, y_kind: YKind, dtype: np.dtype) -> DataSet:
    """What a model is built for, by the checkpoint alone. Raises DataError."""
    known = saved.encodings
    shift, scale = (values.astype(np.float64) for values in saved.normalisation)
    target_scale = _target_scale(path, saved, known.target_count)
    numbers = sum(spec.size for spec in known.inputs.values() if spec.kind == "numbers")
    if numbers != shift.size or scale.size != shift.size:
        raise DataError(f"{path}: expected a normalisation of {numbers} numbers, got {shift.size}")
    names = known.class_names or tuple(map(str, range(known.class_count)))
    return DataSet(
        *((path,), known.inputs, names, dtype, (shift, scale), {}, y_kind, target_scale),
        *(Way("none", "no rows"), np.zeros(shift.shape), known),
    )


def find(place: Path, world: World) -> Path:
    """The checkpoint, or of a folder the newest that is whole, which is said; verified on each host. Collective."""
    path, notes = find_silently(place, world)
    for note in notes if world.rank == 0 else ():
        print_line(note)
    return path


def find_silently(place: Path, world: World) -> tuple[Path, list[str]]:
    """As ``find``, with what is to be said on rank 0. Collective."""
    path, notes = place, list[str]()
    with world.agreeing():
        if world.rank == 0 and os.path.isdir(place):
            path, skipped = checkpoint_folder.newest_whole(place)
            notes = [*skipped, f"checkpoint {path}, the newest that is whole"]
        elif world.rank == 0 and not os.path.exists(place):
            raise DataError(f"{place}: no such checkpoint: expected a file or a folder of them")
    is_folder, path = world.comm.bcast((path != place, path))
    with world.agreeing():
        # Rank 0 has looked at what it has found in a folder.
        if world.local_rank == 0 and not (is_folder and world.rank == 0):
            checkpoint.verify(path)
    return path, notes


def _y_kind(saved: Checkpoint, config: Config, path: Path) -> YKind:
    """What the targets are. Raises DataError if the loss is for others."""
    # Older checkpoints do not say, and have classes.
    y_kind: YKind = saved.attributes.get("y_kind", "classes")
    # The next token is one class of many.
    asked = "tokens" if (y_kind, config.y_kind) == ("tokens", "classes") else config.y_kind
    if y_kind not in TASKS.built_in or asked not in ("auto", y_kind):
        raise DataError(
            f"{path}: attribute y_kind: expected {', '.join(TASKS.built_in)} as loss {config.loss} has them, got "
            f"{one_line(y_kind)}"
        )
    return y_kind


def _check_fits(
    path: Path, saved: Checkpoint, layout: Layout, data: DataSet, dtype: np.dtype
) -> None:
    """Whether the checkpoint's arrays are those of the model and of the rows; kernels check nothing."""
    if layout != saved.layout:
        raise ConfigurationError(
            f"{data.paths[0]}: {data.inputs_text} and {data.outputs_text} do not fit the "
            f"checkpoint's model, {one_line(saved.attributes['model'])}"
        )
    if saved.parameters.dtype != dtype:
        raise DataError(f"{path}: expected parameters of {dtype}, got {saved.parameters.dtype}")
    if saved.normalisation[0].size != data.normalisation[0].size:
        raise DataError(
            f"{path}: expected a normalisation of {data.normalisation[0].size} features, got "
            f"{saved.normalisation[0].size}"
        )
