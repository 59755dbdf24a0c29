"""``--elastic``: ranks die, and those that are left go on from a copy in memory, with the bits of a run that nothing happened to.

    1. all along    every so many steps the ranks copy parameters and state into memory of each host (``snapshot.py``), in turn into one of
                    two rooms, and note where they are: step, rows of the epoch, sums. A copy counts once all ranks are done with it (``copy_marks.py``).
    2. a rank dies  the others leave whatever they wait in (``world/losses.py``), and drop what they computed since.
    3. they meet    by ULFM's Shrink; the newest copy that is whole on all hosts that are left is there, since the next one goes into the other room.
    4. they go on   as a run that is resumed on fewer ranks: ``build`` from that copy, in a world of their own, with the rows that they
                    have read. Micro-batches and slices are shared out anew; the order of rows and of additions knows no ranks, so the bits are the same.

Ranks that join (``joins.py``) come in the place of 2 and 3: behind an epoch, of which a copy is made, the ranks merge with them. A new rank has
no copies of before and no rows, so those are made and read anew.

Whoever dies in 2 to 4 is left out in the next round of the same. Before the first copy counts, the run begins anew. What was printed or
recorded behind the copy may come twice. The interval of copies follows from what one takes, so that all take 2 % of the time.
A rank that hangs or raises an error has not died: it ends the job, as without the option.
Every host has a copy of all vectors, as its ranks compute with one: whichever host is lost, each of the others can go on from its own.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import os
import sys
from collections.abc import Callable
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.processes import words_of
from lepton_mpi.run import memory_forecast, resume, snapshot
from lepton_mpi.run.copy_marks import CopyMarks
from lepton_mpi.run.hook import QuietHook
from lepton_mpi.run.joins import Joins, RanksJoin
from lepton_mpi.run.snapshot import Snapshot
from lepton_mpi.wording import WARNING
from lepton_mpi.world.launchers import launcher_of, outwaits_lost_hosts

if TYPE_CHECKING:
    from lepton_mpi.data.dataset import DataSet
    from lepton_mpi.options.config import Config
    from lepton_mpi.run.checkpoint_folder import Before
    from lepton_mpi.run.resume import Start
    from lepton_mpi.run.run import Run
    from lepton_mpi.world.losses import Losses
    from lepton_mpi.world.world import World

# Of the time, for copies.
_SHARE = 0.02
# Runs that are gone may hold so much memory of a rank, of rows, vectors and activations, until Python's collector comes by. It is called
# before they hold more, which takes 0.3 s.
_GONE_BYTES_MAX = 256 << 20
# Above the number of any copy.
_ANY = 1 << 60
_LAUNCHER_LOOKS = (
    "--elastic: the launcher ends the job 8 minutes after a host is lost, unless it is started as mpirun --rtos recoverable "
    "--mca mpi_ft_enable 1 --prtemca oob_tcp_keepalive_time 0"
)


class TrainsOnce(Protocol):
    """A run to its end, of ``fit.train``."""

    def __call__(
        self, config: Config, start: Start | None, on_built: Callable[[Run], None]
    ) -> dict[str, Any]:
        """From ``start``, if it is not None; ``on_built`` gets the run before its first step. Collective."""


def train(train_once: TrainsOnce, config: Config, world: World) -> dict[str, Any]:
    """A run to its end by the ranks that are left. Collective over ``world``, which becomes that of these ranks."""
    if not world.has_joined:
        with world.agreeing():
            _check(world)
    losses = world.losses
    assert losses is not None
    losses.is_awaited = True
    points = Points(config)
    # Taken out by whoever goes on from it, since it holds a copy of all vectors.
    starts: list[Start | None] = [None]
    if world.has_joined:
        starts = [_start_anew(world, losses, points, lambda: None)]
    try:
        while True:
            change = _without_lost(world, losses, points)
            if starts[0] and not starts[0].begins_again:
                config = points.config
            try:
                return train_once(config, starts.pop(), points.attach)
            except RanksJoin as joined:
                change = partial(world.grow, joined.comm)
            except Exception as error:
                if not losses.explain(error):
                    raise
            # Not in the blocks above: the error holds the run, whose memory is wanted back.
            points.collect()
            starts.append(_start_anew(world, losses, points, change))
    finally:
        points.joins.close()


def _start_anew(world: World, losses: Losses, points: Points, change: Callable[[], None]) -> Start:
    """Where the ranks go on behind ``change`` of which there are, once they all know. Collective over them."""
    points.noticed = 0.0
    while True:
        try:
            change()
            return points.newest(world)
        except Exception as error:
            if not losses.explain(error):
                raise
        change = _without_lost(world, losses, points)


def _without_lost(world: World, losses: Losses, points: Points) -> Callable[[], None]:
    """What leaves those that are lost behind."""

    def go_on() -> None:
        ranks_before, points.noticed = world.size, points.noticed or losses.noticed
        if lost := world.go_on():  # not of a new rank that nobody has known yet
            points.lost.append((lost, ranks_before))

    return go_on


def _check(world: World) -> None:
    """Raises ConfigurationError; what is wrong with options alone is found before (``options/combinations.py``)."""
    if world.losses is None:
        raise ConfigurationError(
            "--elastic: expected a world that was made for it, World(is_elastic=True), got another"
        )
    if not world.can_agree_to_stop:
        raise ConfigurationError(
            "--elastic: expected hosts whose first ranks can connect to that of the first one by TCP, got some that cannot; there "
            "--checkpoint and --resume go on in a new job"
        )
    if world.rank or world.host_count == 1:
        return
    if not outwaits_lost_hosts(words_of(launcher_of(os.getpid()))):
        print(f"{WARNING}{_LAUNCHER_LOOKS}", file=sys.stderr)


def _check_fit(run: Run) -> None:
    """Raises ConfigurationError for parts of the run that cannot go on."""
    if not run.strategy.outlives_ranks and run.world.size > 1:
        raise ConfigurationError(
            f"--elastic: expected --strategy sync with --allreduce auto, host or two_level, got {run.config.strategy} with {run.config.allreduce}"
        )
    if run.model.synchronised:
        raise ConfigurationError(
            f"--elastic: expected a model whose micro-batches are computed one by one, got {run.model.name}; --norm batch is over each alone"
        )


class Points:
    """The copies of a job, through all its runs.

    Attributes
    ----------
    noticed : float
        When the last loss was, by ``time.monotonic``; 0 before there was one.
    lost : list of (list of int, int)
        What is not said yet: numbers that lost ranks had, of how many.
    run_bytes : int
        What the last run held of memory, as was predicted; copies and rows apart, which stay.
    config : Config
        With what the first run has taken from a checkpoint; what nobody has chosen follows from the data anew.
    joins : Joins
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._rooms: list[dict[str, np.ndarray]] = [{}, {}]
        self._starts = [resume.Start(), resume.Start()]
        # Of the job's folder for checkpoints, which ranks that are lost have written to since.
        self._before: Before | None = None
        # The copy that the run has begun with, the last one that this rank has taken, and the rooms that it sees: one that joins sees none.
        self._base, self._taken, self._sees = -1, -1, [False, False]
        self._marks: CopyMarks | None = None
        self.joins = Joins()
        # Of the last run; it is what takes longest to read anew.
        self._data: DataSet | None = None
        self.noticed, self.lost = 0.0, list[tuple[list[int], int]]()
        self.run_bytes = self._gone_bytes = 0

    def collect(self) -> None:
        """A run is gone: have Python look for its memory, and for that of those before, if they may hold too much."""
        self._gone_bytes += self.run_bytes
        if self._gone_bytes > _GONE_BYTES_MAX:
            gc.collect()
            self._gone_bytes = 0

    def attach(self, run: Run) -> None:
        """Have ``run`` make copies, and look for losses after each step. Collective."""
        with run.world.agreeing():
            _check_fit(run)
            if not self._rooms[0]:
                snapshot.check_memory(run, "--elastic", len(self._rooms))
        self.config = run.start.config or self.config
        self._data = run.data
        predicted = memory_forecast.forecast(run)
        stays = sum(predicted.shared.get(name, 0) for name in ("rows", "snapshot"))
        self.run_bytes = predicted.resident - stays
        if self._before is None:
            self._before = run.world.broadcast(run.folder.before if run.folder else None)
        self.joins.attach(run)
        self._marks = CopyMarks(run.world)
        copies = [Snapshot(run, rooms, are_fixed=True) for rooms in self._rooms]
        run.hooks.insert(0, _Watch(self))
        run.hooks.append(_Copies(self, copies))

    def newest(self, world: World) -> Start:
        """The newest that is whole on all hosts. Where none is the run begins again, and rooms that some ranks have made are forgotten.

        Collective.
        """
        number = world.least(self._whole(world.has_joined))
        self._base = self._taken = number if number < _ANY else -1
        self._marks = None
        if self._base < 0:
            self._rooms, self._sees, self._before = [{}, {}], [False, False], None
            self._data = None
            return resume.Start(begins_again=True)
        if not world.least(int(self._sees[self._base % 2])):
            self._share(world)
        return dataclasses.replace(self._starts[self._base % 2], data=self._data_of_all(world))

    def _whole(self, has_joined: bool) -> int:
        """Number of the newest copy that is whole on this host, -1 for none; _ANY of a rank that has joined and sees none yet."""
        number = self._taken
        if self._marks and number > self._base and not self._marks.are_all_done(number):
            number -= 1  # whole, since all have made a step with it behind them
        if number >= 0 and self._sees[number % 2]:
            return number
        return _ANY if has_joined else -1

    def _data_of_all(self, world: World) -> DataSet | None:
        """The rows of the last run, if all ranks have them: the survivors of a host share its memory still. Collective."""
        if not world.least(int(self._data is not None)):
            self._data = None
        return self._data

    def _share(self, world: World) -> None:
        """Tell ranks that have joined what the others know; they need no vectors, which local rank 0 restores for all. Collective.

        Rank 0 has a copy if any rank has: those that join come behind.
        """
        room, told = self._base % 2, None
        if world.rank == 0:
            start = self._starts[room]
            assert start.saved
            saved = dataclasses.replace(start.saved, parameters=np.empty(0), state={})
            told = (
                dataclasses.replace(start, saved=saved),
                self._before,
                self.config,
                self.joins.started,
            )
        start, self._before, self.config, self.joins.started = world.broadcast(told)
        if not self._sees[room]:
            self._starts[room] = start
        # The other one is older, and its memory is wanted back.
        self._starts[1 - room], self._sees[1 - room] = resume.Start(), False

    def take(self, run: Run, copies: list[Snapshot], interval: int) -> int:
        """Make the next one; returns rank 0's ``interval``. Collective."""
        world, marks, number = run.world, self._marks, self._taken + 1
        room = number % 2
        assert marks
        run.strategy.finish()
        run.strategy.collect()
        if world.host_count > 1:
            total = run.total([interval if world.rank == 0 else 0])
            sums, interval = total[:2], int(total[2])
        else:
            sums, interval = marks.meet(number, (run.loss, run.correct), interval)
        copies[room].take()
        saved = copies[room].copied(resume.checkpoint_of(run, sums))
        start = resume.start_of(run, sums, saved)
        self._starts[room] = dataclasses.replace(
            start, before=self._before, history=tuple(run.history)
        )
        self._sees[room] = True
        marks.done(number)
        self._taken = number
        # The run began with a copy that may be in memory of ranks that were fewer.
        if run.start.saved:
            run.start = dataclasses.replace(run.start, saved=self._starts[room].saved)
        return interval


class _Watch(QuietHook):
    """The first of the hooks: nothing is made of a step in which a rank was lost."""

    def __init__(self, points: Points) -> None:
        self._points = points

    def after_step(self, run: Run) -> None:
        """Raises RankLostError; says that ranks go on once they have made a step."""
        assert run.world.losses is not None
        run.world.losses.check()
        if self._points.lost:
            self._say(run)
        self._points.joins.say(run)

    def _say(self, run: Run) -> None:
        points, world = self._points, run.world
        seconds = monotonic() - points.noticed
        lost = [f"rank {rank} of {size}" for ranks, size in points.lost for rank in ranks]
        points.lost.clear()
        text = (
            f"{', '.join(lost)} died: {world.size} rank{'s' * (world.size > 1)} went on from step {run.start.step}, of which the first "
            f"step was made {seconds:.3g} s later"
        )
        run.report.say("elastic", text)
        run.report.record(
            "elastic", lost=lost, ranks=world.size, step=run.start.step, seconds=seconds
        )


class _Copies(QuietHook):
    """The last of the hooks: makes a copy when one is due."""

    def __init__(self, points: Points, copies: list[Snapshot]) -> None:
        self._points, self._copies = points, copies
        self._left = 1
        self._since, self._steps, self._took = perf_counter(), 0, 0.0

    def before_epoch(self, run: Run) -> None:
        """What the run begins with, so that nothing is begun anew from here on."""
        if run.epoch == run.start.epoch:
            run.world.agree(None)  # some ranks were ready later, which is no cost of a copy
            self._take(run)

    def after_step(self, run: Run) -> None:
        """In the middle of an epoch."""
        self._left -= 1
        self._steps += 1
        if self._left <= 0 and run.position < run.steps_per_epoch:
            self._take(run)

    def after_epoch(self, run: Run) -> None:
        """With what the hooks have made of the epoch; ranks may join behind it."""
        if run.epoch == run.config.epoch_count or run.is_over:
            return
        ranks_join = self._points.joins.look(run)
        if self._left <= 0 or ranks_join:
            self._take(run)
        if ranks_join:
            self._points.joins.start(run)

    def _take(self, run: Run) -> None:
        began = perf_counter()
        step_seconds = max((began - self._since) / max(1, self._steps), 1e-9)
        interval = max(1, math.ceil(self._took / (_SHARE * step_seconds)))
        self._left = self._points.take(run, self._copies, interval)
        self._since, self._steps = perf_counter(), 0
        self._took = self._since - began
