"""What the commands about a checkpoint have in common: its word on the command line, some options, and how they begin their ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_mpi import launcher
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.kinds import PathText
from lepton_mpi.options.option import ABOVE_0, option, position

if TYPE_CHECKING:
    from lepton_mpi.world.world import World


def checkpoint_position() -> Any:
    """The field ``checkpoint: str``."""
    return position(
        "file that training wrote, or a folder of them, of which the newest that is whole is taken",
        kind=PathText("CHECKPOINT", "a file or folder"),
    )


def own_model_option() -> Any:
    """The field ``model: str | None``."""
    return option(
        None,
        "needed for a model of your own: a program that the checkpoint names is not run",
        kind=PathText("FILE.py:NAME"),
    )


def timeout_option() -> Any:
    """The field ``timeout: float``."""
    return option(300.0, "seconds without progress that end the job", ABOVE_0)


def check_out(word: str, out: Path, force: bool) -> None:
    """Whether a file may be written, which ``word`` of the command line names. Raises ConfigurationError."""
    if not out.parent.is_dir() or out.is_dir():
        raise ConfigurationError(f"{word}: expected a file in a folder that exists, got {out}")
    if out.exists() and not force:
        raise ConfigurationError(f"{word}: {out} exists; --force writes over it")


def on_ranks(work: Callable[[World], None], timeout: float) -> int:
    """``work`` on all ranks of the job, with one thread each; returns the exit code."""
    launcher.limit_threads(1)
    from lepton_mpi.world import world

    return world.run(work, timeout)
