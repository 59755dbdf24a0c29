"""``python -m lepton_mpi evaluate CHECKPOINT``: the figures of a checkpoint, on any number of ranks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lepton_mpi.commands import of_checkpoint
from lepton_mpi.commands.command import command
from lepton_mpi.errors import DataError
from lepton_mpi.options.kinds import PathText
from lepton_mpi.options.option import Checked, option
from lepton_mpi.wording import print_line

if TYPE_CHECKING:
    from lepton_mpi.world.world import World


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is evaluated, and on what."""

    checkpoint: str = of_checkpoint.checkpoint_position()
    data: str | None = option(
        None,
        "HDF5 file or embedded set; none: what the checkpoint was trained on",
        kind=PathText("FILE"),
    )
    split: Literal["train", "validation", "test"] = option("test", "rows to evaluate on")
    model: str | None = of_checkpoint.own_model_option()
    timeout: float = of_checkpoint.timeout_option()


def _run(chosen: Options) -> int:
    def evaluate(ranks: World) -> None:
        path = Path(chosen.checkpoint)
        evaluate_checkpoint(path, chosen.data, chosen.split, ranks, chosen.model)

    return of_checkpoint.on_ranks(evaluate, chosen.timeout)


def evaluate_checkpoint(
    place: Path, data_name: str | None, split: str, world: World, model_name: str | None = None
) -> None:
    """Load a checkpoint and print its figures on one split of its own data, or of another file. Collective.

    Parameters
    ----------
    place
        A checkpoint, or a folder of them.
    model_name
        Needed where the checkpoint names a program: one that a file names is not run.
    """
    from lepton_mpi.data.batches import BatchReader
    from lepton_mpi.run import evaluation, trained
    from lepton_mpi.tasks.registry import make_task

    found = trained.load_trained(place, data_name, world, model_name)
    data, model, parameters = found.data, found.model, found.parameters
    with world.agreeing():
        if not data.has_labels:
            raise DataError(
                f"{data.paths[0]}: expected labels to compare with, got rows without, which were prepared to be scored"
            )
    reader = BatchReader(data, evaluation.batch_rows(data))
    task = make_task(data.y_kind, data)
    rows = data.splits[split]
    figures = evaluation.evaluate(model, parameters, rows, task, reader, world)
    with world.agreeing():
        if not figures:
            raise DataError(
                f"{data.paths[0]}: no {split} rows to evaluate on, or a model that cannot evaluate"
            )
        if world.rank == 0:
            print_line(f"{split} of {data.name}: {task.sentence(figures)}")
            for line in task.table(figures):
                print_line(f"  {line}")


COMMAND = command(
    "evaluate",
    "evaluate a checkpoint on the test rows of a data set, on any number of ranks",
    "CHECKPOINT [options]",
    Options,
    _run,
)
