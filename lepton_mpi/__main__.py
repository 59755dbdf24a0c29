"""``python -m lepton_mpi COMMAND``, and the console command ``lepton_mpi``: which commands there are.

Adding one is adding its file in ``commands/`` and one line here. Starts neither NumPy nor MPI.
"""

import sys
from importlib import import_module
from typing import Any

from lepton_mpi import early_signals, launcher
from lepton_mpi.commands.command import Command, print_versions
from lepton_mpi.errors import LauncherError
from lepton_mpi.wording import did_you_mean, print_line

# Where each is: ``module:object``. In the order in which a user needs them.
COMMANDS = {
    "prepare": "lepton_mpi.commands.prepare:COMMAND",
    "inspect": "lepton_mpi.commands.inspect:COMMAND",
    "train": "lepton_mpi.commands.train:COMMAND",
    "join": "lepton_mpi.commands.join:COMMAND",
    "report": "lepton_mpi.commands.report:COMMAND",
    "evaluate": "lepton_mpi.commands.evaluate:COMMAND",
    "predict": "lepton_mpi.commands.predict:COMMAND",
    "generate": "lepton_mpi.commands.generate:COMMAND",
    "explain-model": "lepton_mpi.commands.explain_model:COMMAND",
    "compress": "lepton_mpi.commands.compress:COMMAND",
    "checkpoints": "lepton_mpi.commands.checkpoints:COMMAND",
    "export": "lepton_mpi.commands.export:COMMAND",
    "tune": "lepton_mpi.commands.tune:COMMAND",
    "explain": "lepton_mpi.commands.explain:COMMAND",
    "doctor": "lepton_mpi.commands.doctor:COMMAND",
    "chaos": "lepton_mpi.commands.chaos:COMMAND",
    "sweep": "lepton_mpi.commands.sweep:COMMAND",
    "slurm": "lepton_mpi.commands.batch_script:SLURM",
    "pbs": "lepton_mpi.commands.batch_script:PBS",
    "lsf": "lepton_mpi.commands.batch_script:LSF",
}


def main(words: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    name, *rest = (sys.argv[1:] if words is None else words) or [""]
    if name == "train":
        early_signals.remember()
    if name in COMMANDS:
        return find(name).start(rest)
    try:
        if name in ("-h", "--help"):
            if launcher.launched_rank() == 0:
                print_line(usage())
            return 0
        if name == "--version":
            return print_versions()
    except LauncherError as error:  # standard output is closed
        launcher.complain(f"lepton_mpi: {error}")
        return error.exit_code
    hint = did_you_mean(name, [*COMMANDS, "--help", "--version"])
    if name:
        launcher.complain(f"lepton_mpi: unknown command {name!r}{hint} (see --help)")
    else:
        launcher.complain(*usage().splitlines())
    return 2


def find(name: str) -> Command[Any]:
    """The command of that name."""
    module, _, attribute = COMMANDS[name].partition(":")
    return vars(import_module(module))[attribute]


def usage() -> str:
    """The list of commands."""
    lines = "\n".join(f"  {name:<13} {find(name).summary}" for name in COMMANDS)
    return f"""usage: python -m lepton_mpi COMMAND [options]

commands:
{lines}

COMMAND --help lists the options, --version the versions of everything that is used."""


if __name__ == "__main__":
    raise SystemExit(main())
