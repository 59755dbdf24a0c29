"""``python -m lepton_mpi join FOLDER``: further ranks for an ``--elastic`` run that trains."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_mpi import launcher
from lepton_mpi.commands.command import command
from lepton_mpi.errors import ConfigurationError, DataError, LauncherError
from lepton_mpi.options.kinds import PathText
from lepton_mpi.options.option import WHOLE_FROM_1, Checked, option, position
from lepton_mpi.wording import one_line, print_line

if TYPE_CHECKING:
    from lepton_mpi.run.announcement import Request

_LOOK_SECONDS = 0.1
# From the death of the rank that owns the folder until another one does.
_HEIR_SECONDS = 15.0
_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """Which run gets how many."""

    folder: str = position("folder of --checkpoint of the run", kind=PathText("FOLDER"))
    ranks: int = option(
        1, "so many ranks join, on the run's host, when its epoch ends", WHOLE_FROM_1
    )


def _run(chosen: Options) -> int:
    if launcher.launched_rank() > 0:
        return 0
    launcher.limit_threads(1)
    from lepton_mpi.run import announcement

    folder = Path(chosen.folder)
    try:
        _check(folder, chosen.ranks)
        request = announcement.announce(folder, chosen.ranks)
        try:
            print_line(_answer(folder, request))
            return 0
        except KeyboardInterrupt:
            pass
        finally:
            is_taken_back = announcement.take(folder, request)
    except OSError as error:
        raise DataError(f"{folder}: {one_line(error.strerror or error)}") from None
    done = "taken back" if is_taken_back else "too late: the run has begun to start the ranks"
    launcher.complain(f"lepton_mpi join: interrupted, {done}")
    return _INTERRUPTED


def _check(folder: Path, ranks: int) -> None:
    """Raises LeptonError if no run there can take them, and OSError."""
    from lepton_mpi.run import announcement, folder_lock, joins
    from lepton_mpi.world import memory

    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of checkpoints, got no folder")
    run = announcement.invitation(folder)
    if run is None:
        owner = folder_lock.owner_of(folder)
        if owner is None:
            raise ConfigurationError(
                f"{folder}: expected a run that trains, got none: the folder belongs to no run now"
            )
        if owner.is_alive() is False:
            raise ConfigurationError(
                f"{folder}: expected a run that trains, got {owner}, which has ended"
            )
        raise ConfigurationError(
            f"{folder}: expected a run with --elastic that has begun to train, got {owner}"
        )
    if run.owner.is_alive():
        needed, free = ranks * run.rank_bytes, memory.available_bytes()
        if reason := joins.memory_text(ranks, needed, free):
            raise ConfigurationError(f"--ranks {ranks}: {reason}")


def _answer(folder: Path, request: Request) -> str:
    """What the run says. Raises LauncherError if it does not take the ranks, and OSError."""
    from lepton_mpi.run import announcement, folder_lock

    last_seen = time.monotonic()
    while True:
        owner = folder_lock.owner_of(folder)
        # An heir has the folder long before it trains.
        is_there = announcement.invitation(folder) is not None or (
            owner is not None and owner.is_alive() is not False
        )
        if said := announcement.answer_to(folder, request):
            if said.is_well:
                return said.text
            raise LauncherError(said.text)
        if is_there:
            last_seen = time.monotonic()
        elif time.monotonic() - last_seen > _HEIR_SECONDS:
            raise LauncherError(f"{folder}: the run has ended")
        time.sleep(_LOOK_SECONDS)


COMMAND = command(
    "join",
    "have further ranks join a run with --elastic that trains",
    "FOLDER [options]",
    Options,
    _run,
)
