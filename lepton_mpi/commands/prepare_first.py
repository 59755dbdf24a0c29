"""``train --prepare``: one command from a raw file to a model."""

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_mpi.commands.prepare import with_newest_checkpoint
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.config import Config
from lepton_mpi.prepare import options

if TYPE_CHECKING:
    from lepton_mpi.world.world import World

# Models that read categories as an input of their own.
_OF_CATEGORIES = ("wide_and_deep",)


def options_for(config: Config) -> options.Options | None:
    """Options of ``prepare`` for ``--data`` as its inputs; None without ``--prepare``. Raises ConfigurationError."""
    if config.prepare is None:
        return None
    try:
        words = shlex.split(config.prepare)
    except ValueError as error:
        raise ConfigurationError(f"--prepare: {error}, got {config.prepare!r}") from None
    says_it = any(word.startswith(("--categories", "--like")) for word in words)
    if config.model in _OF_CATEGORIES and not says_it:
        words += ["--categories", "inputs"]
    output = f"{Path(config.data[0].partition('=')[2] or config.data[0]).stem}.prepared.h5"
    return options.parse([*config.data, output, *words])


def prepared(config: Config, chosen: options.Options, world: "World") -> Config:
    """Write the file, and train on it instead; for ranks that join, the others have written it. Collective.

    Raises LeptonError on every rank.
    """
    from lepton_mpi.prepare import pipeline

    if not world.has_joined:
        pipeline.prepare(with_newest_checkpoint(chosen, world), world)
    changes: dict[str, Any] = {"data": (chosen.output,), "prepare": None}
    return dataclasses.replace(config, **changes)
