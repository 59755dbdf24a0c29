"""``python -m lepton_mpi compress CHECKPOINT --out FILE``: a checkpoint in fewer bytes, and what that costs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lepton_mpi.commands import of_checkpoint
from lepton_mpi.commands.command import command
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.options.kinds import PathText
from lepton_mpi.options.option import FRACTION, Checked, option
from lepton_mpi.wording import one_line, print_line, size_text

if TYPE_CHECKING:
    from lepton_mpi.run.checkpoint import Checkpoint
    from lepton_mpi.run.trained import Trained
    from lepton_mpi.tasks.task import Figures, Task
    from lepton_mpi.vectors import Views
    from lepton_mpi.world.world import World


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is compressed, and how."""

    checkpoint: str = of_checkpoint.checkpoint_position()
    out: str | None = option(None, "file to write; must be given", kind=PathText("FILE"))
    prune: float = option(0.0, "share of the weights that become 0, the smallest", FRACTION)
    prune_by: Literal["layer", "all"] = option(
        "layer", "whether the share is of each layer's weights, or of all layers' together"
    )
    int8: bool = option(
        False, "weights as 8-bit whole numbers, with a scale for each output channel"
    )
    data: str | None = option(
        None,
        "HDF5 file or embedded set to evaluate on; none: what the checkpoint was trained on",
        kind=PathText("FILE"),
    )
    split: Literal["train", "validation", "test"] = option("test", "rows to evaluate on")
    evaluate: bool = option(True, "figures before and after; false needs no data")
    force: bool = option(False, "write over a file that exists")
    model: str | None = of_checkpoint.own_model_option()
    timeout: float = of_checkpoint.timeout_option()


def _run(chosen: Options) -> int:
    if not chosen.prune and not chosen.int8:
        raise ConfigurationError(
            "expected --prune SHARE, such as --prune 0.5, --int8 or both, got none"
        )
    if chosen.out is None:
        raise ConfigurationError("--out: expected a file to write, got none")
    return of_checkpoint.on_ranks(
        lambda ranks: compress(chosen, Path(chosen.out or ""), ranks), chosen.timeout
    )


def compress(chosen: Options, out: Path, world: World) -> None:
    """Write the file and print what it saves and costs. Collective."""
    from lepton_mpi.run import checkpoint, trained
    from lepton_mpi.vectors import Layout

    with world.agreeing():
        if world.rank == 0:
            of_checkpoint.check_out("--out", out, chosen.force)
    place, data_name = Path(chosen.checkpoint), chosen.data
    found = trained.load_trained(place, data_name, world, chosen.model, chosen.evaluate)
    before = _figures(found, found.parameters, chosen, world)
    with world.agreeing():
        # Every rank computes the same; the first writes it, and looks whether it reads what it wrote.
        saved = _compressed(chosen, found)
        if world.rank == 0:
            if out.exists() and out.samefile(found.path):
                raise ConfigurationError(f"--out: expected another file than {found.path} itself")
            try:
                checkpoint.save_as(out, saved)
            except OSError as error:
                reason = one_line(error.strerror or error)
                raise ConfigurationError(f"cannot write {out}: {reason}") from None
            again = checkpoint.load(out)
            assert again.layout.digest(again.parameters) == saved.layout.digest(saved.parameters)
    parameters = Layout(found.model.shapes).views(saved.parameters)
    after = _figures(found, parameters, chosen, world)
    with world.agreeing():
        if world.rank == 0:
            for line in _report(found, saved, out):
                print_line(line)
            for line in _scores(chosen, before, after):
                print_line(line)


def _figures(
    found: Trained, parameters: Views, chosen: Options, world: World
) -> tuple[Task, Figures] | None:
    """On rows that were not trained on; None if that is not wanted. Collective."""
    if not chosen.evaluate:
        return None
    from lepton_mpi.data.batches import BatchReader
    from lepton_mpi.run import evaluation
    from lepton_mpi.tasks.registry import make_task

    data = found.data
    with world.agreeing():
        rows = data.splits[chosen.split]
        if not data.has_labels or not rows.row_count or not found.model.evaluates:
            raise DataError(
                f"{data.paths[0]}: expected {chosen.split} rows with labels to evaluate on; --split and --data choose others, "
                "--evaluate false does without"
            )
    reader, task = BatchReader(data, evaluation.batch_rows(data)), make_task(data.y_kind, data)
    figures = evaluation.evaluate(found.model, parameters, rows, task, reader, world)
    return task, figures


def _compressed(chosen: Options, found: Trained) -> Checkpoint:
    """The checkpoint as it will be read, without the state of an optimizer."""
    from lepton_mpi.run import checkpoint, compressed

    saved = checkpoint.read(found.path)
    parameters = saved.parameters.copy()
    views = saved.layout.views(parameters)
    weights = {name: views[name] for name in compressed.weights_of(found.model)}
    if not weights:
        raise ConfigurationError(
            f"{found.path}: expected a model with weights to compress, got {found.model}; its decayed attribute names them"
        )
    compressed.prune([*weights.values()], chosen.prune, chosen.prune_by)
    axes, scales = compressed.quantise(found.model, weights) if chosen.int8 else ({}, {})
    how = compressed.Compressed(axes, scales, chosen.prune, chosen.prune_by)
    return dataclasses.replace(saved, parameters=parameters, state={}, compressed=how)


def _report(found: Trained, saved: Checkpoint, out: Path) -> list[str]:
    """The parameters in lines, and the sizes of both files."""
    from lepton_mpi.run import checkpoint

    before, after = (checkpoint.stored_bytes(path) for path in (found.path, out))
    how, own = saved.compressed, dict(saved.layout.views(saved.parameters))
    assert how is not None
    lines = [
        f"{'parameter':<44} {'shape':>16} {'zeros':>7} {'stored as':>10} {'before':>9} {'after':>9}"
    ]
    for name, array in own.items():
        zeros = float((array == 0).mean()) if array.size else 0.0
        kind = "int8" if name in how.axes else str(array.dtype)
        shape = "x".join(map(str, array.shape))
        sizes = f"{size_text(before[name]):>9} {size_text(after[name]):>9}"
        lines.append(f"{name[-44:]:<44} {shape:>16} {zeros:>7.1%} {kind:>10} {sizes}")
    totals = sum(before.values()), sum(after.values())
    lines.append(f"parameters {_sizes(*totals)}")
    lines.append(f"file       {_sizes(found.path.stat().st_size, out.stat().st_size)}: {out}")
    return lines


def _sizes(before: int, after: int) -> str:
    return (
        f"{size_text(before)} before, {size_text(after)} after, {after / max(1, before):.3f} of it"
    )


def _scores(chosen: Options, before: Any, after: Any) -> list[str]:
    if before is None or after is None:
        return []
    return [
        f"{chosen.split} before {before[0].sentence(before[1])}",
        f"{chosen.split} after  {after[0].sentence(after[1])}",
    ]


COMMAND = command(
    "compress",
    "write a checkpoint in fewer bytes: weights pruned, or as int8; and say what that costs",
    "CHECKPOINT --out FILE [options]",
    Options,
    _run,
)
