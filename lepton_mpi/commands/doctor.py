"""``python -m lepton_mpi doctor``: is the machine, or the job on it, set up well? See ``lepton_mpi/doctor/``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lepton_mpi.commands.command import command
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.kinds import PathText
from lepton_mpi.options.option import ABOVE_0, Checked, option


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is examined, and how it is reported."""

    data: str | None = option(
        None,
        "file or folder whose file system is tried, and which is read; none: the current folder",
        kind=PathText(),
    )
    json: str | None = option(
        None,
        "write the findings, and the facts behind them, as JSON; - prints them in place of the lines",
        kind=PathText("FILE|-", "a file or -"),
    )
    remove_leftovers: bool = option(
        False, "remove files that dead MPI jobs of yours have left in /dev/shm of these hosts"
    )
    timeout: float = option(20.0, "seconds after which a check counts as stuck", ABOVE_0)

    def check_together(self) -> None:
        """Raises ConfigurationError for files that cannot be there."""
        if self.data and not Path(self.data).exists():
            raise ConfigurationError(f"--data: {self.data}: there is no such file or folder")
        if self.json and self.json != "-":
            path = Path(self.json)
            if path.is_dir() or not path.parent.is_dir():
                raise ConfigurationError(
                    f"--json: expected a file in a folder that exists, got {path}"
                )


def _run(chosen: Options) -> int:
    environment = dict(os.environ)
    from lepton_mpi.doctor.examination import Request, examine

    return examine(
        Request(
            chosen.data or "", chosen.json, chosen.timeout, environment, chosen.remove_leftovers
        )
    )


COMMAND = command(
    "doctor",
    "say whether this machine, or the job on it, is set up well, and how to put right what is not",
    "[options]",
    Options,
    _run,
    "Start it as you start training, such as mpirun -n 8 python -m lepton_mpi doctor, or alone. Each finding is ok, a note "
    "or a fault, with the command or variable that puts it right. Exit code 0 without faults, 1 with any.",
)
