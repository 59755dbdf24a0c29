"""``--initial``: the parameters of a checkpoint, or of a file of torch or Keras, for a new run, which begins at step 0.

What the file lacks begins as usual, a function of the seed alone; without ``--initial-strict false`` that is an error. Rank 0 finds the file; one
rank of each host looks at it, and whoever has parameters of its own reads it. All ranks raise what one raises, and compare what they have read.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lepton_mpi.data.dataset import DataSet
from lepton_mpi.data.files import parameter_files, probe
from lepton_mpi.data.files.parameter_files import KERAS, SAFETENSORS
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.layers.layer import Shape
from lepton_mpi.models import gpt2_config
from lepton_mpi.models.keras_names import KERAS_MODELS, keras_names
from lepton_mpi.models.keras_names import is_no_parameter as is_no_parameter_of_keras
from lepton_mpi.models.model import Model
from lepton_mpi.models.pretrained import Match, Read, fill, in_groups, match
from lepton_mpi.models.torch_names import (
    Stored,
    is_no_parameter,
    options_of,
    own_names,
    torch_names,
    without_wrappers,
)
from lepton_mpi.options.config import Config
from lepton_mpi.registry import is_own_file
from lepton_mpi.run import checkpoint, checkpoint_folder, codes
from lepton_mpi.vectors import Views
from lepton_mpi.wording import printable
from lepton_mpi.world.rank_group import RankGroup

# Names that a line lists; of more it says how many.
_LISTED_MAX = 8
_OF_KERAS = (
    "BatchNormalization of Keras adds an epsilon of 1e-3 unless the program says otherwise, here it is 1e-5: outputs differ "
    "where variances are small"
)


@dataclass(frozen=True)
class InitialFile:
    """Which file, and whether it must have exactly the parameters of the model.

    Attributes
    ----------
    path : Path
    is_strict : bool
    model : str
        ``--model``, or "" for one that is not built in.
    notes : tuple of str
        Of how the file was found.
    """

    path: Path
    is_strict: bool
    model: str
    notes: tuple[str, ...] = ()


def find(config: Config, world: RankGroup, is_own_model: bool = False) -> InitialFile | None:
    """The file, or of a folder the newest checkpoint that is whole; looked at by one rank of each host. Collective.

    Raises DataError, ConfigurationError on every rank.
    """
    if config.initial is None:
        return None
    path, notes = Path(config.initial), list[str]()
    with world.agreeing():
        if world.rank == 0:
            if os.path.isdir(path):
                path, notes = _newest(path)
            if config.model == "gpt" and path.name.endswith(SAFETENSORS):
                notes += gpt2_config.check(path.with_name("config.json"), config.for_model(1))
    path, notes = world.broadcast((path, notes))
    with world.agreeing():
        if world.local_rank == 0:
            parameter_files.check_kind(path)
            if path.name.endswith(KERAS):
                probe.check(path)
            elif not path.name.endswith(SAFETENSORS):
                checkpoint.verify(path)
    is_own = is_own_model or is_own_file(config.model)
    return InitialFile(path, config.initial_strict, "" if is_own else config.model, tuple(notes))


def take(file: InitialFile, model: Model, parameters: Views, data: DataSet) -> list[str]:
    """Fill the parameters that the file has, and say which, a line each. Raises ConfigurationError, DataError.

    ``parameters`` hold what a new run begins with; what the file lacks stays so.
    """
    source = _open(file, model.shapes, data)
    try:
        made = match(source.table, source.shapes, source.read)
        _check(file, made, source)
        fill(made.taken, source.read, parameters)
    except DataError as error:
        raise DataError(f"{file.path}: {error}") from None
    return [*file.notes, *source.notes, *_told(file.path, made, model)]


class _Source(NamedTuple):
    """How a file keeps each parameter, what it has, and what is to be said of it."""

    table: Mapping[str, Stored]
    shapes: Mapping[str, Shape]
    read: Read
    notes: tuple[str, ...] = ()


def _open(file: InitialFile, wanted: Mapping[str, Shape], data: DataSet) -> _Source:
    path, model = file.path, file.model
    if path.name.endswith(SAFETENSORS):
        found = parameter_files.open_safetensors(path)
        names = without_wrappers([n for n in found.shapes if not is_no_parameter(n)])
        shapes = {name: found.shapes[theirs] for name, theirs in names.items()}
        return _Source(torch_names(model, wanted), shapes, lambda name: found.read(names[name]))
    if path.name.endswith(KERAS):
        if model not in KERAS_MODELS:
            raise ConfigurationError(
                f"{path}: expected --model {' or '.join(KERAS_MODELS)} for weights of Keras, got {model or 'your own'}; "
                f"{SAFETENSORS} with names is for every model"
            )
        found = parameter_files.open_keras(path)
        shapes = {n: s for n, s in found.shapes.items() if not is_no_parameter_of_keras(n)}
        table = keras_names(model, wanted, shapes)
        has_norms = any("running_mean" in name for name in wanted)
        notes = (_OF_KERAS,) * has_norms
        return _Source(table, shapes, found.read, notes)
    saved = checkpoint.read(path)
    views = saved.layout.views(saved.parameters)
    notes = tuple(codes.notes_on_initial(saved.encodings, data, str(path)))
    return _Source(own_names(model, wanted), saved.layout.shapes, views.__getitem__, notes)


def _newest(folder: Path) -> tuple[Path, list[str]]:
    """Raises DataError."""
    try:
        path, skipped = checkpoint_folder.newest_whole(folder)
    except DataError as error:
        others = [*folder.glob(f"*{SAFETENSORS}"), *folder.glob(f"*{KERAS}")]
        hint = f"; --initial {sorted(others)[0]} names a file of it" if others else ""
        raise DataError(f"{error}{hint}") from None
    return path, [*skipped, f"{path} is the newest checkpoint that is whole"]


def _check(file: InitialFile, made: Match, source: _Source) -> None:
    """Raises ConfigurationError for a file of another model; if that is allowed, for one that has nothing in common."""
    if made.is_complete or (not file.is_strict and made.taken):
        return
    path, differences = file.path, "; ".join(_differences(made, list(source.table)))
    hint = options_of(file.model, source.shapes)
    model = f"--model {file.model} and its options" if file.model else "the model"
    if hint:
        differences += f"; the file's are {hint}"
    if not made.taken:
        raise ConfigurationError(
            f"{path}: expected parameters of the model, got none that fits: {differences}; {model} must be those of the file"
        )
    raise ConfigurationError(
        f"{path}: expected all parameters of the model and no others, got {len(made.taken)} that fit; {differences}; "
        "--initial-strict false takes what fits, and begins the rest as usual"
    )


def _differences(made: Match, names: list[str]) -> list[str]:
    found = []
    if made.other_shapes:
        texts = [
            f"{one.name} ({printable(one.theirs)}: expected {one.expected}, got {one.came})"
            for one in made.other_shapes
        ]
        found.append(f"of another shape: {_listed(texts)}")
    if made.missing:
        found.append(f"missing: {_listed(in_groups(made.missing, names))}")
    if made.left_over:
        found.append(f"left over in the file: {_listed(list(map(printable, made.left_over)))}")
    return found


def _told(path: Path, made: Match, model: Model) -> list[str]:
    """What was taken, and what was not."""
    names = list(model.shapes)
    count = (
        f"all {len(names)}"
        if len(made.taken) == len(names)
        else f"{len(made.taken)} of {len(names)}"
    )
    taken = ", ".join(in_groups(list(made.taken), names))
    notes = [f"takes {count} parameters of {path}: {taken}"]
    for name, (stored, theirs) in made.taken.items():
        if name in made.longer:
            notes.append(
                f"takes the first {stored.shape[0]} of {made.longer[name]} rows of {printable(theirs)} for {name}"
            )
    notes += _differences(made, names)
    begun = [name for name in names if name not in made.taken]
    if begun:
        notes.append(f"begins as without a file: {', '.join(in_groups(begun, names))}")
    if stuck := [name for name in begun if name in model.frozen]:
        notes.append(
            f"is frozen as it begins, which nothing has trained: {', '.join(in_groups(stuck, names))}"
        )
    return notes


def _listed(texts: list[str]) -> str:
    more = len(texts) - _LISTED_MAX
    return ", ".join(texts[:_LISTED_MAX]) + (f" and {more} more" if more > 0 else "")
