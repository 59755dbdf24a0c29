"""python -m lepton_mpi COMMAND; --help of every command starts neither NumPy nor MPI."""

import sys
from importlib import import_module
from pathlib import Path

from lepton_mpi import launch
from lepton_mpi.errors import ConfigurationError, LeptonError
from lepton_mpi.options.command_line import Parser, above_0, at_least_0, parse_size

_USAGE = """usage: python -m lepton_mpi COMMAND [options]

commands:
  prepare    make an HDF5 file to train on from CSV, images, text and other files
  inspect    show what is in an HDF5 file to train on
  train      train a model on all ranks (the same as python -m lepton_mpi.train)
  evaluate   evaluate a checkpoint on the test rows of a data set
  tune       measure every allreduce on these ranks; --allreduce auto goes by it from then on
  explain    show what a collective does, step by step, and what it costs

COMMAND --help lists the options."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = {
        "prepare": prepare_command,
        "inspect": inspect_command,
        "train": train_command,
        "evaluate": evaluate_command,
        "tune": tune_command,
        "explain": explain_command,
    }
    if arguments and arguments[0] in commands:
        return commands[arguments[0]](arguments[1:])
    if arguments and arguments[0] in ("-h", "--help"):
        if launch.launched_rank() == 0:
            print(_USAGE)
        return 0
    wrong = f"lepton_mpi: unknown command {arguments[0]!r}\n\n" if arguments else ""
    launch.complain(wrong + _USAGE)
    return 2


def train_command(arguments: list[str] | None = None) -> int:
    """``python -m lepton_mpi.train``."""
    from lepton_mpi.options.parser import parse_command_line

    config = parse_command_line(
        sys.argv[1:] if arguments is None else arguments, "lepton_mpi.train"
    )
    launch.limit_threads(config.threads)
    from lepton_mpi.run import fit
    from lepton_mpi.world import world

    return world.run(lambda ranks: fit.train(config, ranks), config.timeout)


def prepare_command(arguments: list[str]) -> int:
    """``python -m lepton_mpi prepare INPUT… OUTPUT.h5``."""
    from lepton_mpi.prepare import options

    try:
        chosen = options.parse(arguments)
    except ConfigurationError as error:
        return _refuse("prepare", error)
    launch.limit_threads(1)
    from lepton_mpi.world import world

    def prepare(ranks: world.World) -> None:
        # Importing it compiles kernels, or loads them.
        pipeline = ranks.first_of_host_first(lambda: import_module("lepton_mpi.prepare.pipeline"))
        pipeline.prepare(chosen, ranks)

    return world.run(prepare, chosen.timeout)


def inspect_command(arguments: list[str]) -> int:
    """``python -m lepton_mpi inspect FILE.h5``; the first rank alone, if there are several."""
    parser = Parser(
        prog="python -m lepton_mpi inspect",
        description="Show what is in an HDF5 file to train on, with a histogram of every column.",
    )
    parser.add_argument("file", type=Path, help="HDF5 file, or the name of an embedded data set")
    parser.add_argument(
        "--columns",
        type=at_least_0,
        default=40,
        help="histograms at most; default: 40",
        metavar="N",
    )
    try:
        chosen = parser.parse(arguments, "one FILE")
        if launch.launched_rank() > 0:
            return 0
        launch.limit_threads(1)
        from lepton_mpi.prepare import inspection
        from lepton_mpi.wording import print_line

        print_line(inspection.text(chosen.file, chosen.columns))
    except LeptonError as error:
        return _refuse("inspect", error)
    return 0


def _refuse(command: str, error: LeptonError) -> int:
    """One line, from one rank; returns the exit code."""
    launch.complain(f"lepton_mpi {command}: {error}")
    return error.exit_code


def evaluate_command(arguments: list[str]) -> int:
    """``python -m lepton_mpi evaluate CHECKPOINT``."""
    parser = Parser(
        prog="python -m lepton_mpi evaluate",
        description="Evaluate a checkpoint, on any number of ranks.",
    )
    parser.add_argument("checkpoint", type=Path, help="file that training wrote")
    parser.add_argument(
        "--data", help="HDF5 file or embedded set; default: what the checkpoint was trained on"
    )
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument(
        "--model",
        metavar="FILE.py:NAME",
        help="needed for a model of your own: a program that the checkpoint names is not run",
    )
    parser.add_argument(
        "--timeout", type=above_0, default=300.0, help="seconds without progress that end the job"
    )
    try:
        options = parser.parse(arguments, "one CHECKPOINT")
    except ConfigurationError as error:
        return _refuse("evaluate", error)
    launch.limit_threads(1)
    from lepton_mpi.run import build
    from lepton_mpi.world import world

    def evaluate(ranks: world.World) -> None:
        ranks.first_of_host_first(build.import_kernels)
        from lepton_mpi.run import evaluation

        evaluation.evaluate_checkpoint(
            options.checkpoint, options.data, options.split, ranks, options.model
        )

    return world.run(evaluate, options.timeout)


def tune_command(arguments: list[str]) -> int:
    """``python -m lepton_mpi tune``."""
    parser = Parser(
        prog="python -m lepton_mpi tune",
        description="Measure every allreduce on these ranks and store which is fastest at which size.",
    )
    add = parser.add_argument
    add(
        "--max",
        type=parse_size,
        default="64M",
        metavar="BYTES",
        help="largest vector; default: 64M",
    )
    add("--seconds", type=above_0, default=0.05, help="to measure one case for; default: 0.05")
    add("--dry-run", action="store_true", help="store nothing")
    add("--timeout", type=above_0, default=300.0, help="seconds without progress that end the job")
    try:
        options = parser.parse(arguments, "options only")
        if options.max < 8:
            raise ConfigurationError(f"--max: expected at least 8 bytes, got {options.max}")
    except ConfigurationError as error:
        return _refuse("tune", error)
    launch.limit_threads(1)
    from lepton_mpi.commands import tune
    from lepton_mpi.world import world

    return world.run(
        lambda ranks: tune.tune(ranks, options.max, options.seconds, options.dry_run),
        options.timeout,
    )


def explain_command(arguments: list[str]) -> int:
    """``python -m lepton_mpi explain ALGORITHM``."""
    from lepton_mpi.commands import explain

    return explain.explain_command(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
