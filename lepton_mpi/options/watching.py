"""Options of a training run that say what it shows and writes of itself; none of them decides a weight. Imports no NumPy."""

from dataclasses import dataclass
from typing import Literal

from lepton_mpi.options.kinds import PathText
from lepton_mpi.options.option import WHOLE_FROM_1, Checked, option


@dataclass(frozen=True, kw_only=True)
class Watching(Checked):
    """A part of ``Config``."""

    report_memory: bool = option(
        False,
        "print before the first step what memory the run is going to take, and at the end what the ranks of the host take, by purpose",
    )
    metrics: str | None = option(
        None,
        "file for the run's numbers, one JSON object a line; one that holds some is added to with --resume or "
        "--metrics-append, and else refused",
        kind=PathText("FILE"),
    )
    metrics_append: bool = option(False, "add to the --metrics file that is there")
    csv: str | None = option(
        None,
        "file for a table with a row for every epoch: figures, learning rate, times; with --resume, rows of epochs that are trained again "
        "are replaced",
        kind=PathText("FILE"),
    )
    tensorboard: str | None = option(
        None,
        "folder for TensorBoard: figures, learning rate and times of every epoch, and within long ones; needs tensorboardX",
        kind=PathText("FOLDER"),
    )
    trace: str | None = option(
        None,
        "file for a trace of the last steps of all ranks, for Perfetto or chrome://tracing; it is also written when the run is stopped "
        "by a signal or fails",
        kind=PathText("FILE"),
    )
    trace_steps: int = option(100, "steps that --trace keeps", WHOLE_FROM_1)
    progress: Literal["auto", "bar", "plain", "none"] = option(
        "auto",
        "what stands below the last line while an epoch goes on; bar: a line that changes in place, for a terminal; plain: a line every 10 s; "
        "auto: bar on a terminal, plain elsewhere; none: nothing is printed at all",
    )
