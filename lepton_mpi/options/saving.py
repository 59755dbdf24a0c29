"""Options of a training run that say what is kept of it, when it ends before its last epoch, and where it goes on. Imports no NumPy."""

from dataclasses import dataclass
from typing import Literal

from lepton_mpi.options.duration import Duration
from lepton_mpi.options.early_stop import EarlyStopText
from lepton_mpi.options.kinds import PathText, Text
from lepton_mpi.options.option import ABOVE_0, WHOLE_FROM_0, WHOLE_FROM_1, Checked, option


@dataclass(frozen=True, kw_only=True)
class Saving(Checked):
    """A part of ``Config``."""

    checkpoint: str | None = option(
        None,
        "folder for checkpoints, one after every epoch, which belongs to this run as long as it runs; {job} in it stands for the "
        "number of the batch job; none: none are written",
        kind=PathText("FOLDER"),
    )
    checkpoint_steps: int = option(
        0, "write a checkpoint after so many steps, too; 0: only after epochs", WHOLE_FROM_0
    )
    stop_before: float | None = option(
        None,
        "save and end, with exit code 75, so long before the time limit: that of --time-limit, else of Slurm, PBS or LSF; sooner where "
        "steps and checkpoints turn out to take longer",
        kind=Duration(),
    )
    time_limit: float | None = option(
        None, "how long the run may take, from the start of its program, as in 2h", kind=Duration()
    )
    keep: int = option(2, "how many checkpoints of the run stay, the newest ones", WHOLE_FROM_1)
    save_every: float | None = option(
        None,
        "write a checkpoint when so much time has passed since the last one, too, such as 10min or 1h30min; all ranks after the same step",
        ABOVE_0,
        kind=Duration(),
    )
    async_save: bool = option(
        False,
        "write checkpoints while training goes on: the ranks stop for a copy of parameters and state in memory alone, and wait if the "
        "file before is not written yet; the last one of a run is written at once",
    )
    elastic: bool = option(
        False,
        "go on without ranks that die, with the same bits of weights, from a copy in memory that costs 2 % of the time; the steps since it "
        "are made again; start it as mpirun --with-ft ulfm -n 8 python -m lepton_mpi.train --elastic (Open MPI 5.0.4 or newer, "
        "--strategy sync); the loss of the first host needs --checkpoint",
    )
    keep_best: str | None = option(
        None,
        "keep a checkpoint of the epoch with the best figure on the validation rows, best.h5 in the folder of --checkpoint: accuracy, loss, "
        "macro_f1 and others as the data have them; auto: accuracy, r2 or loss",
        kind=Text("SCORE"),
    )
    restore_best: bool = option(
        False, "end with the parameters of best.h5: the test figures and the digest are theirs"
    )
    early_stop: str | None = option(
        None,
        "end the run after so many epochs whose score, that of --keep-best, was not better than the best before by more than MIN_DELTA",
        kind=EarlyStopText(),
    )
    on_nan: Literal["stop", "skip", "rollback"] = option(
        "stop",
        "what is done about numbers that are not finite; skip: a step with a gradient of such is not made; rollback: parameters and state "
        "become those of the last epoch or checkpoint, from a copy in memory, and the learning rate is halved",
    )
    check_every: int = option(
        0,
        "look for flipped bits after so many steps: parameters and state of all that hold them are compared, and a gradient is computed twice; "
        "0: never; 100 costs about 1 % or less",
        WHOLE_FROM_0,
    )
    on_drift: Literal["stop", "repair"] = option(
        "stop", "what is done about them; repair: whoever differs takes what most have"
    )
    resume: str | None = option(
        None,
        "checkpoint to go on from, or a folder of them, of which the newest is taken; a folder with none, or none yet, "
        "begins anew",
        kind=PathText("FILE|FOLDER"),
    )
