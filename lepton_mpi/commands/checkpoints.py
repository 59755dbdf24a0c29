"""``python -m lepton_mpi checkpoints FOLDER``: which checkpoints are there, whether they are whole, and which are no longer needed."""

from dataclasses import dataclass
from pathlib import Path

from lepton_mpi import launcher
from lepton_mpi.commands.command import command
from lepton_mpi.errors import DataError, LauncherError
from lepton_mpi.options.kinds import PathText
from lepton_mpi.options.option import WHOLE_FROM_1, Checked, option, position


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is looked at, and what goes."""

    folder: str = position("folder of --checkpoint", kind=PathText("FOLDER"))
    keep: int | None = option(
        None,
        "remove all but so many of the newest that are whole, and damaged ones; best.h5 stays; none: nothing is removed",
        WHOLE_FROM_1,
    )


def _run(chosen: Options) -> int:
    if launcher.launched_rank() > 0:
        return 0
    launcher.limit_threads(1)
    from lepton_mpi.run import inventory
    from lepton_mpi.wording import one_line, print_line, printable

    folder = Path(chosen.folder)
    found = inventory.look(folder)
    print_line(printable(f"{folder}: {inventory.owner_text(folder)}"))
    if not found:
        print_line("no checkpoint")
        return 0
    for line in inventory.table(found):
        print_line(printable(line))
    if chosen.keep is not None:
        try:
            gone = inventory.prune(folder, found, chosen.keep)
        except OSError as error:
            reason = one_line(error.strerror or error)
            what = error.filename or f"files of {folder}"
            raise LauncherError(f"cannot remove {what}: {reason}") from None
        for path in gone:
            print_line(printable(f"removed {path}"))
        found = [each for each in found if each.path not in gone]
    damaged = [each.path.name for each in found if each.wrong]
    if damaged:
        raise DataError(f"{folder}: not whole: {', '.join(damaged)}")
    return 0


COMMAND = command(
    "checkpoints",
    "list the checkpoints of a folder, verify them, and remove those that are no longer needed",
    "FOLDER [options]",
    Options,
    _run,
)
