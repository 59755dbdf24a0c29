"""``Run``: everything that a training run holds, from ``build`` to ``close``."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.data.batches import BatchReader, MicroBatchReader
from lepton_mpi.data.dataset import DataSet
from lepton_mpi.data.order import BlockShuffle, FullShuffle, MicroBatches, draws
from lepton_mpi.data.reads import TrainingReads
from lepton_mpi.data.rows import Rows
from lepton_mpi.errors import LauncherError
from lepton_mpi.layers.layer import Sums
from lepton_mpi.models.model import Model
from lepton_mpi.optimizers.learning_rate import ReducedRate
from lepton_mpi.options.config import Config
from lepton_mpi.run.best import Best
from lepton_mpi.run.defaults import Derived
from lepton_mpi.run.divergence import Divergence
from lepton_mpi.run.drift import Drift
from lepton_mpi.run.faults import Faults
from lepton_mpi.run.hook import Hook
from lepton_mpi.run.owned_folder import OwnedFolder
from lepton_mpi.run.report import Report
from lepton_mpi.run.resume import Start
from lepton_mpi.run.time_limit import TimeLimit
from lepton_mpi.run.trace import Trace
from lepton_mpi.strategies.strategy import Strategy
from lepton_mpi.tasks.task import Task
from lepton_mpi.vectors import Layout, Views
from lepton_mpi.world.world import World


class Step(NamedTuple):
    """One optimizer step: its number in the run, from 1; its random bits; what the summed gradient is divided by."""

    number: int
    draw: int
    weight: int


@dataclass
class Run:
    """Made by ``build``; the loop and the hooks read it.

    Attributes
    ----------
    config, world, data, task, model, layout, micro_batches, shuffle, strategy, report
        What was built.
    start : Start
        Where the run begins; ``order`` is how its rows are shuffled, as checkpoints say it.
    rate : ReducedRate
        The learning rate of every step, which hooks may lower on all ranks alike.
    parameters : Views
        Of ``strategy.parameters``.
    reads, inputs, reader
        This rank's part of every epoch's order; its micro-batches in turn; what gathers rows for evaluation.
    hooks : list of Hook
        Called in their order.
    divergence : Divergence
        What is done about numbers that are not finite.
    drift : Drift or None
        What looks for flipped bits.
    faults : Faults or None
        What tests wish to happen.
    ends : ExitStack
        What ``close`` undoes.
    epoch, step, position : int
        Epoch, from 1; optimizer steps in the run, and in this epoch, the one that is being made included.
    weights : list of int
        Of every step of this epoch: what its summed gradient is divided by.
    weighed : list of int
        The same of the micro-batches that ``strategy.weighed`` names.
    loss, correct : float
        Of this rank, summed over its rows of the epoch so far.
    figures : dict
        Of the epoch, from the hooks, in the order in which they are shown.
    validation : dict
        All figures of the epoch's validation rows, those of ``figures`` among them; ``evaluation_seconds`` is what they took.
    best, is_over
        The best epoch so far where that is asked for, see ``best.py``; whether the run ends before its last epoch.
    checkpoint : Path or None
        Written last, on rank 0.
    folder : OwnedFolder or None
        That of ``--checkpoint``, on rank 0.
    history : list of dict
        Of every epoch that the job has made, before a loss of ranks too: its number, learning rate and figures.
    trace : Trace or None
        What ``--trace`` records.
    result : dict
        What ``fit`` returns.
    phases_before : dict of str to float
        What the clock had counted in each phase before this run.
    first_loss : float
        This rank's part of the loss of the first step, that of the parameters that the run began with.
    keeps_parameters : bool
        Whether the result has a copy of the parameters.
    derived : Derived
        Options that nobody has chosen.
    time_limit : TimeLimit or None
        What stops the run before its time is over.
    """

    config: Config
    world: World
    data: DataSet
    task: Task
    model: Model
    layout: Layout
    micro_batches: MicroBatches
    shuffle: FullShuffle | BlockShuffle
    order: dict[str, Any]
    strategy: Strategy
    rate: ReducedRate
    parameters: Views
    reads: TrainingReads
    inputs: MicroBatchReader
    reader: BatchReader
    report: Report
    start: Start
    ends: ExitStack
    hooks: list[Hook] = field(default_factory=list)
    divergence: Divergence = field(init=False)
    drift: Drift | None = None
    faults: Faults | None = None
    epoch: int = 0
    step: int = 0
    position: int = 0
    weights: list[int] = field(default_factory=list)
    weighed: list[int] = field(default_factory=list)
    loss: float = 0.0
    correct: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    evaluation_seconds: float = 0.0
    best: Best | None = None
    is_over: bool = False
    checkpoint: Path | None = None
    folder: OwnedFolder | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    trace: Trace | None = None
    result: dict[str, Any] = field(default_factory=dict)
    began: float = 0.0
    phases_before: dict[str, float] = field(default_factory=dict)
    derived: Derived = field(default_factory=Derived)
    keeps_parameters: bool = False
    first_loss: float = 0.0
    time_limit: TimeLimit | None = None

    @property
    def train_rows(self) -> Rows:
        """The rows of every epoch."""
        return self.data.splits["train"]

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a whole epoch."""
        return self.micro_batches.step_count(self.train_rows.row_count)

    @property
    def first_row(self) -> int:
        """Rows of this epoch that were used before the run began."""
        return self.start.row if self.epoch == self.start.epoch else 0

    @property
    def rows_used(self) -> int:
        """Rows of this epoch that have been used."""
        return min(self.position * self.config.batch_rows, self.train_rows.row_count)

    @property
    def will_go_on_unsaved(self) -> bool:
        """Whether there are more epochs after this one, and no checkpoint or copy in between."""
        is_kept = self.config.checkpoint or self.config.on_nan == "rollback"
        return self.epoch < self.config.epoch_count and not is_kept

    def epochs(self) -> Iterator[int]:
        """Epochs that are left, each begun."""
        for epoch in range(self.start.epoch, self.config.epoch_count + 1):
            if self.is_over:
                return
            self.world.clock.enter("input", self.step)
            self.epoch, self.began, self.figures = epoch, perf_counter(), {}
            self.position = self.first_row // self.config.batch_rows
            # The sums of what was trained before the run began count once.
            is_heir = self.first_row > 0 and self.world.rank == 0
            self.loss, self.correct = (
                (self.start.loss, self.start.correct) if is_heir else (0.0, 0.0)
            )
            self.reads.begin_epoch(self.epoch)
            self.weights = self.weighed = self.reads.step_weights(self.epoch)
            if self.strategy.weighed is not None:
                self.weighed = self.reads.step_weights(self.epoch, self.strategy.weighed)
            yield epoch

    def steps(self) -> Iterator[Step]:
        """Steps of this epoch that are left."""
        of_steps = draws(self.config.seed, self.step, self.steps_per_epoch - self.position)
        for position, draw in enumerate(of_steps, self.position):
            self.step, self.position = self.step + 1, position + 1
            if not self.strategy.numbers:  # who computes says the step with its rows
                self.world.clock.enter("input", self.step)
            yield Step(self.step, draw, self.weighed[position])

    def next_batch(self, step: Step) -> Batch:
        """This rank's next micro-batch, which belongs to ``step``."""
        if self.faults:
            self.faults.before_reading()
        return self.inputs.next(step.draw)

    def add(self, sums: Sums) -> None:
        """Of a micro-batch."""
        self.loss += sums[0]
        self.correct += sums[1]

    def phase_seconds(self) -> dict[str, float]:
        """Seconds of this rank in each phase of the run, but for the present stay; a job may train several models."""
        before = self.phases_before
        return {name: s - before.get(name, 0.0) for name, s in self.world.clock.seconds.items()}

    def total(self, more: Sequence[float] = ()) -> np.ndarray:
        """Loss and correct count of the epoch so far over all ranks, float64 (2,), and behind them the sums of up to 8 ``more``. Collective."""
        return self.world.sum(np.array([self.loss, self.correct, *more], np.float64))

    def close(self) -> None:
        """Give back files, threads and memory. Collective.

        Raises LauncherError on every rank, once all is given back, if a checkpoint that should be there could not be written.
        """
        if self.folder:
            self.folder.close()  # before the other ranks go on, who wait for what follows
        lacking = self.lacking()
        self.divergence.close()
        self.strategy.close()
        if self.trace:
            self.trace.close()
        self.ends.close()
        if lacking:
            text = f"training is over, but {lacking}"
            raise LauncherError(text).on_all_ranks()

    def lacking(self) -> str:
        """Which checkpoint could not be written, and why; empty if all could. Collective where checkpoints are written."""
        if not self.config.checkpoint:
            return ""
        lacking: str = self.world.broadcast(self.folder.trouble if self.folder else "")
        return lacking
