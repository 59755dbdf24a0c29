"""``python -m lepton_mpi evaluate CHECKPOINT``: the figures of a checkpoint, on any number of ranks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lepton_mpi import launch
from lepton_mpi.commands.command import command
from lepton_mpi.options.kinds import PathText
from lepton_mpi.options.option import ABOVE_0, Checked, option, position


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is evaluated, and on what."""

    checkpoint: str = position(
        "file that training wrote, or a folder of them, of which the newest that is whole is taken",
        kind=PathText("CHECKPOINT", "a file or folder"),
    )
    data: str | None = option(
        None,
        "HDF5 file or embedded set; none: what the checkpoint was trained on",
        kind=PathText("FILE"),
    )
    split: Literal["train", "validation", "test"] = option("test", "rows to evaluate on")
    model: str | None = option(
        None,
        "needed for a model of your own: a program that the checkpoint names is not run",
        kind=PathText("FILE.py:NAME"),
    )
    timeout: float = option(300.0, "seconds without progress that end the job", ABOVE_0)


def _run(chosen: Options) -> int:
    launch.limit_threads(1)
    from lepton_mpi.run import build
    from lepton_mpi.world import world

    def evaluate(ranks: Any) -> None:
        ranks.first_of_host_first(build.import_kernels)
        from lepton_mpi.run import evaluation

        path = Path(chosen.checkpoint)
        evaluation.evaluate_checkpoint(path, chosen.data, chosen.split, ranks, chosen.model)

    return world.run(evaluate, chosen.timeout)


COMMAND = command(
    "evaluate",
    "evaluate a checkpoint on the test rows of a data set, on any number of ranks",
    "CHECKPOINT [options]",
    Options,
    _run,
)
