"""``python -m lepton_mpi report RUN.jsonl``: what a run did, as one HTML file; the first rank alone, if there are several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_mpi import launcher
from lepton_mpi.commands import of_checkpoint
from lepton_mpi.commands.command import command
from lepton_mpi.errors import ConfigurationError, LeptonError
from lepton_mpi.options.kinds import PathText, Several
from lepton_mpi.options.option import Checked, option, position
from lepton_mpi.wording import one_line, print_line, size_text

if TYPE_CHECKING:
    from lepton_mpi.reporting.metrics import RunRecord
    from lepton_mpi.reporting.tested import Tested


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is reported."""

    runs: tuple[str, ...] = position(
        "files that train --metrics has written; several runs are compared",
        kind=Several.of(PathText("RUN.jsonl", "a file")),
    )
    out: str = option("report.html", "the page to write", kind=PathText("FILE"))
    checkpoint: tuple[str, ...] = option(
        (),
        "checkpoints that test rows are looked at with, one for each run; none: those that the runs have written last",
        kind=Several.of(PathText("PATH", "a file or folder")),
    )
    data: str | None = option(
        None,
        "HDF5 file or embedded set with the test rows; none: what the checkpoint was trained on",
        kind=PathText("FILE"),
    )
    rows: bool = option(True, "look at single test rows; false needs no checkpoint and no data")
    model: str | None = of_checkpoint.own_model_option()


def _run(chosen: Options) -> int:
    if launcher.launched_rank() > 0:
        return 0
    launcher.limit_threads(1)
    from lepton_mpi.interpretation import pictures
    from lepton_mpi.markup.page import write
    from lepton_mpi.reporting import metrics, page

    out = Path(chosen.out)
    page.PAGE.check_target(out)
    runs = [run for name in chosen.runs for run in metrics.read(Path(name))]
    pictures.load()  # behind what was asked for: a wrong path is nearer than a library
    if chosen.checkpoint and len(chosen.checkpoint) != len(runs):
        raise ConfigurationError(
            f"--checkpoint: expected {len(runs)}, one for each run, got {len(chosen.checkpoint)}"
        )
    tested = [_tested(chosen, run, place) for place, run in enumerate(runs)]
    text = page.html_of(runs, tested)
    write(out, text)
    for run, found in zip(runs, tested, strict=True):
        for note in [*run.notes, *([found] if isinstance(found, str) else [])]:
            print_line(f"note       {run.name}: {one_line(note)}")
    print_line(f"wrote      {out}, {len(runs)} run{'s' * (len(runs) > 1)}, {size_text(len(text))}")
    return 0


def _tested(chosen: Options, run: RunRecord, place: int) -> Tested | str:
    """The test rows of a run, or why there are none and what helps."""
    from lepton_mpi.reporting import tested

    if not chosen.rows:
        return "Not looked at, as --rows false asks for."
    path = Path(chosen.checkpoint[place]) if chosen.checkpoint else _checkpoint_of(run)
    if path is None:
        return (
            "No checkpoint: the run has written none, or it is gone; train with --checkpoint FOLDER, or name it here with --checkpoint "
            "PATH."
        )
    try:
        return tested.look(path, chosen.data, chosen.model)
    except LeptonError as error:
        return f"Not looked at: {one_line(error)}; --checkpoint PATH and --data FILE name others."


def _checkpoint_of(run: RunRecord) -> Path | None:
    """What the run has written last, or of one that ended with the best epoch that one; by the file's folder, too."""
    named = run.end.get("checkpoint") or run.configuration.get("checkpoint")
    if not isinstance(named, str) or "\0" in named:
        return None
    for place in _places(Path(named), run.path.parent):
        best = (place if place.is_dir() else place.parent) / "best.h5"
        if run.configuration.get("restore_best") is True and best.is_file():
            return best
        if place.exists():
            return place
    return None


def _places(path: Path, folder: Path) -> Sequence[Path]:
    return [path] if path.is_absolute() else [path, folder / path]


COMMAND = command(
    "report",
    "show what runs did, as one HTML file: curves, confusion, worst rows, time of every rank",
    "RUN.jsonl … [options]",
    Options,
    _run,
)
