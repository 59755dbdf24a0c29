"""``python -m lepton_mpi inspect FILE.h5``: what is in a data file; the first rank alone, if there are several."""

from dataclasses import dataclass
from pathlib import Path

from lepton_mpi import launcher
from lepton_mpi.commands.command import command
from lepton_mpi.options.kinds import PathText
from lepton_mpi.options.option import WHOLE_FROM_0, Checked, option, position


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is shown."""

    file: str = position(
        "HDF5 file, or the name of an embedded data set", kind=PathText("FILE", "a path or name")
    )
    columns: int = option(40, "histograms at most", WHOLE_FROM_0)


def _run(chosen: Options) -> int:
    if launcher.launched_rank() > 0:
        return 0
    launcher.limit_threads(1)
    from lepton_mpi.prepare import inspection
    from lepton_mpi.wording import print_line

    print_line(inspection.text(Path(chosen.file), chosen.columns))
    return 0


COMMAND = command(
    "inspect",
    "show what is in an HDF5 file to train on, with a histogram of every column",
    "FILE [options]",
    Options,
    _run,
)
