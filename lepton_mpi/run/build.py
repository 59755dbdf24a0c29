"""From a configuration to a run that is ready for its first step."""

import dataclasses
import math
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import PurePath
from typing import Any

import numpy as np
import threadpoolctl

from lepton_mpi import fault_points
from lepton_mpi.data import augmentation, called_kernels
from lepton_mpi.data.batches import BatchReader, MicroBatchReader
from lepton_mpi.data.dataset import DataSet, normalised_in_memory
from lepton_mpi.data.loader import Wanted, load
from lepton_mpi.data.order import BlockShuffle, FullShuffle, MicroBatches
from lepton_mpi.data.reads import TrainingReads
from lepton_mpi.data.training_order import training_order
from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.models import own_model
from lepton_mpi.models.model import Model
from lepton_mpi.models.registry import make_model
from lepton_mpi.optimizers.learning_rate import ReducedRate
from lepton_mpi.optimizers.registry import rule_of
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.options.config import Config
from lepton_mpi.registry import load as load_own
from lepton_mpi.run import (
    class_weights,
    defaults,
    divergence,
    drift,
    evaluation,
    faults,
    freezing,
    hooks,
    initial,
    memory_forecast,
    rates,
    resume,
    row_order,
    snapshot,
    summary,
    time_limit,
)
from lepton_mpi.run.arithmetic import BY_NUMBER, Arithmetic
from lepton_mpi.run.balance import Balance
from lepton_mpi.run.best import KeepBest, is_wanted
from lepton_mpi.run.cold_start import ColdStart
from lepton_mpi.run.hook import Hook, QuietHook
from lepton_mpi.run.job_name import with_job
from lepton_mpi.run.model_check import check_model
from lepton_mpi.run.owned_folder import own_folder
from lepton_mpi.run.progress import Progress
from lepton_mpi.run.records import Records, open_sinks
from lepton_mpi.run.report import Report
from lepton_mpi.run.resume import Start
from lepton_mpi.run.run import Run
from lepton_mpi.run.trace import Trace, WriteTrace
from lepton_mpi.strategies.registry import STRATEGIES
from lepton_mpi.strategies.strategy import Setting, Strategy
from lepton_mpi.tasks.registry import make_task
from lepton_mpi.vectors import Layout
from lepton_mpi.world.world import World


def build(
    config: Config,
    world: World,
    model: Any = None,
    start: Start | None = None,
    given: frozenset[str] | None = None,
    keeps_parameters: bool = False,
) -> Run:
    """A run at its beginning, or where ``start`` says. Collective over ``world``.

    Parameters
    ----------
    model
        See ``fit``.
    start : Start, optional
        The state of another run, from ``resume.capture``; default, and where it ``begins_again``: what ``config.resume`` says.
    given
        Names of the options that somebody has chosen, None for all: a run that goes on has the others from its checkpoint.

    keeps_parameters
        Whether a copy of the parameters will be made in the end, which is predicted with the other memory.

    Raises
    ------
    LeptonError
        On every rank.
    """
    world.clock.enter("start")  # of another run in this job than the first, too
    fault_points.reached("start")
    phases_before = dict(world.clock.seconds)
    world.agree_on("the configuration", dataclasses.asdict(config))
    threadpoolctl.threadpool_limits(summary.thread_count(config, world))
    config = with_job(config, world)
    limit = time_limit.begin(config, world)
    with ExitStack() as ends:
        # Before anybody looks which checkpoint is the newest.
        folder = own_folder(config, world, ends)
        if start is None or start.begins_again:
            start = resume.find(config, world, given, begins_again=start is not None)
        config = start.config or config
        if not start.goes_on:
            file = initial.find(config, world, is_own_model=model is not None)
            start = dataclasses.replace(start, initial=file)
        report = ends.enter_context(closing(open_report(config, world, start)))
        run = _build(config, world, model, start, report, ends)
        run.folder, run.phases_before, run.time_limit = folder, phases_before, limit
        run.keeps_parameters, run.history = keeps_parameters, list(start.history)
        with world.agreeing():
            divergence.begin(run)
        run.hooks = _make_hooks(run)
        with world.agreeing():
            memory_forecast.check_rest(run)
        if config.check_model:
            check_model(run)
        if config.trace:
            run.trace = Trace(run, config.trace, config.trace_steps)
            run.hooks = [run.trace, *run.hooks, WriteTrace()]
        run.ends = ends.pop_all()
    return run


def _build(
    config: Config, world: World, model: Any, start: Start, report: Report, ends: ExitStack
) -> Run:
    cold_start = ColdStart(world, np.dtype(config.dtype), report)
    cold_start.compile(called_kernels.while_loading())
    data, start = _load(config, world, start)
    train_rows = data.splits["train"]
    features = row_order.features_digest(train_rows, world)
    config, derived = defaults.settle(config, defaults.Facts.of(data), model is not None)
    model = _make_model(config, world, model, data)
    layout = Layout(model.shapes)
    micro_batch = config.micro_batch or -(-config.batch_rows // 8)
    micro_batches = MicroBatches(config.batch_rows, micro_batch)
    with world.agreeing():
        shuffle, order = _choose_order(config, data, micro_batches, start, features)
        augment = augmentation.parse(config.augment, data.augmented_shape)
        task = make_task(data.y_kind if config.task == "auto" else config.task, data)
    reads_in_place = not augment and model.reads_in_place
    if reads_in_place:
        data = normalised_in_memory(data, world)
    rules = BY_NUMBER[start.arithmetic]
    rate = rates.learning_rate(config, micro_batches.step_count(train_rows.row_count), rules)
    strategy = _make_strategy(config, world, layout, model, micro_batches.count, rate, rules)
    augments = augment is not None
    of_data = called_kernels.while_training(data.y_kind, data.inputs.values(), augments=augments)
    of_hooks = [*drift.kernels_for(config), *snapshot.kernels_for(config)]
    cold_start.compile([*of_data, *model.kernels, *strategy.kernels, *of_hooks])
    cold_start.say_end()
    start = _initialise(config, world, layout, model, strategy, start, data)
    rows_max = max(evaluation.batch_rows(data), micro_batches.rows)
    reader = BatchReader(data, rows_max, augment, reads_in_place)
    reads = TrainingReads(
        *(train_rows, shuffle, strategy.numbers, range(start.epoch, config.epoch_count + 1)),
        *(start.row // config.batch_rows, reader.rows_together, world),
    )
    ends.enter_context(closing(reads))
    return Run(
        config=config,
        world=world,
        data=data,
        task=task,
        model=model,
        layout=layout,
        micro_batches=micro_batches,
        shuffle=shuffle,
        order=order,
        strategy=strategy,
        rate=rate,
        parameters=layout.views(strategy.parameters),
        reads=reads,
        inputs=MicroBatchReader(reads, reader),
        reader=reader,
        report=report,
        start=start,
        ends=ends,
        step=start.step,
        # The end's checkpoint: that of the beginning where nothing is left to train.
        checkpoint=start.path if world.rank == 0 and start.epoch > config.epoch_count else None,
        derived=derived,
    )


def _choose_order(
    config: Config, data: DataSet, micro_batches: MicroBatches, start: Start, features: str
) -> tuple[FullShuffle | BlockShuffle, dict[str, Any]]:
    """The order of the training rows, and how checkpoints say it. Raises LeptonError."""
    # What is asked for is not passed over: ``check_order`` refuses another order than before.
    is_asked = config.shuffle != "auto"
    kind = config.shuffle if is_asked else start.order.get("shuffle", "auto")
    shuffle = training_order(
        *(data, micro_batches, config.seed, kind, config.shuffle_buffer),
        begins_whole=BY_NUMBER[start.arithmetic].blocks_begin_whole,
    )
    order = row_order.order_facts(shuffle, data.splits["train"], features)
    row_order.check_order(start, order, micro_batches)
    return shuffle, order


def open_report(config: Config, world: World, start: Start) -> Report:
    """Find out before the first step whether everything that will be written can be."""
    with world.agreeing():
        appends = start.appends(config) or config.metrics_append
        try:
            return Report(world.rank == 0, config.progress, config.metrics, appends)
        except OSError as error:
            raise LauncherError(f"cannot write {error.filename}: {error.strerror}") from None


def wanted_of(config: Config) -> Wanted:
    """How the options of a run have its data read."""
    return Wanted(
        *(np.dtype(config.dtype), config.held_out, config.seed, config.y_kind, config.loader),
        *(config.arrays, config.context, config.stride),
        # A rank that waits for a file makes no progress.
        io_retry=min(config.io_retry, config.timeout / 2),
    )


def _load(config: Config, world: World, start: Start) -> tuple[DataSet, Start]:
    """The data, compared with those that the run goes on from before anything else that other codes would be refused for."""
    data = start.data or load(config.data, wanted_of(config), world)
    start = dataclasses.replace(start, data=None)
    with world.agreeing():
        return data, resume.with_codes_checked(start, data)


def _make_model(config: Config, world: World, model: Any, data: DataSet) -> Model:
    with world.agreeing():
        threads = summary.thread_count(config, world)
        if model is None:
            made = make_model(config.model, config.for_model(threads), data)
        else:
            made = own_model.adapt(model, data, threads)
        freezing.freeze(config.freeze, made)
    class_weights.weigh(config.class_weights, made, data, world)
    # Of a model whose values the program brings along: two programs that draw them at random have others.
    world.agree_on(
        f"model {made.name}, its values or what it computes with beside them,", made.fingerprint
    )
    return made


def _make_strategy(
    config: Config,
    world: World,
    layout: Layout,
    model: Model,
    micro_batch_count: int,
    rate: ReducedRate,
    rules: Arithmetic,
) -> Strategy:
    dtype = np.dtype(config.dtype)
    settings = Settings(
        *(config.optimizer, rate, config.momentum, config.weight_decay),
        *(config.clip_value or math.inf, config.own.get("optimizer")),
    )
    setting = Setting(
        *(world, layout, dtype, micro_batch_count, settings, config.clip_norm or math.inf),
        *(layout.buckets(max(1, config.bucket_bytes // dtype.itemsize)), config.allreduce),
        config.segment_bytes,
        averaged=model.averaged,
        decayed=None if rules.decays_by_dimensions else model.decayed,
        frozen=model.frozen,
        is_asked=model.asks_for_parameters,
        own=config.own.get("strategy"),
        compress=config.compress,
        compress_after=config.compress_after,
        seed=config.seed,
        is_balanced=config.balance == "auto",
        strategy=config.strategy,
    )
    with world.agreeing():
        if not rules.decays_by_dimensions:
            _check_decay(config, model)
        make = STRATEGIES.find(config.strategy)
        memory_forecast.check_vectors(world, layout, dtype, len(rule_of(settings).state))
    # An own one without its folders.
    world.clock.name_steps(PurePath(config.strategy).name)
    made: Strategy = make(setting)
    with world.agreeing():
        _check_strategy(config, model, made)
    return made


def _check_strategy(config: Config, model: Model, strategy: Strategy) -> None:
    """Raises ConfigurationError for what this strategy cannot do."""
    if model.synchronised and not strategy.is_in_step:
        raise ConfigurationError(
            f"--strategy {config.strategy}: expected sync for model {model.name}, whose normalisation is over all micro-batches of a "
            "step; --norm batch is over each alone"
        )
    if (config.freeze or model.frozen) and not strategy.freezes:
        raise ConfigurationError(
            f"--freeze: expected a strategy that leaves frozen parameters alone (Setting.frozen) and says so by freezes = True, got "
            f"{config.strategy}"
        )
    if config.compress != "none" and not strategy.compresses:
        raise ConfigurationError(
            f"--compress {config.compress}: expected a strategy that compresses (sync, delayed, local, diloco, hierarchical), got {config.strategy}"
        )
    if config.balance == "auto" and not strategy.can_share_out:
        raise ConfigurationError(
            "--balance auto: expected a strategy of which any rank may compute any part of a step: sync or delayed with --allreduce auto "
            f"and no --compress between hosts, or local, diloco, bounded, gossip or elastic of rank workers, got {config.strategy}"
        )


def _check_decay(config: Config, model: Model) -> None:
    """Raises ConfigurationError for a weight decay that would act on nothing."""
    decayed = model.decayed
    if decayed is None:
        decayed = [name for name, shape in model.shapes.items() if len(shape) >= 2]
    if config.weight_decay and not decayed:
        raise ConfigurationError(
            f"--weight-decay {config.weight_decay:g}: expected a model with weights to decay, got {model.name}, whose "
            f"parameters ({', '.join(model.shapes)}) all have less than two dimensions; name its weights in an attribute "
            "decayed, a tuple"
        )


def _initialise(
    config: Config,
    world: World,
    layout: Layout,
    model: Model,
    strategy: Strategy,
    start: Start,
    data: DataSet,
) -> Start:
    """Random parameters, or those of a file, or of a checkpoint with its state if the run goes on; the same on every rank.

    Returns ``start``, on rank 0 with what there is to say of the file.
    """
    with world.agreeing():
        if start.goes_on:
            class_weights.check_same(start.attributes, model, start.path)
        # One that several ranks share is filled by one of them.
        if world.local_rank == 0 or not strategy.is_shared:
            views = layout.views(strategy.parameters)
            if start.goes_on:
                resume.restore(start, layout, strategy, data)
            else:
                model.initialise(views, config.seed)
            if start.initial is not None:
                notes = initial.take(start.initial, model, views, data)
                start = dataclasses.replace(start, initial_notes=tuple(notes))
    world.agree_on("the digest of the initial parameters", layout.digest(strategy.parameters))
    return start


def _make_hooks(run: Run) -> list[Hook]:
    """Those of every run, and the user's. Raises ConfigurationError on every rank."""
    summary.say_head(run)
    made: list[Hook] = [run.divergence, *drift.hooks_for(run)]
    made += [*faults.hooks_for(run), hooks.TrainingFigures(), hooks.Validation(), Progress(run)]
    if run.config.csv or run.config.tensorboard:
        made += [Records(run, open_sinks(run.config, run.world, run.start))]
    made += [KeepBest(run)] if is_wanted(run.config) else []
    if run.folder and run.folder.note:
        run.report.say("checkpoint", f"{run.folder.path}: {run.folder.note}")
    checkpoints = hooks.Checkpoints(run) if run.config.checkpoint else None
    made += [checkpoints] if checkpoints else []
    made += [Balance(run)] if run.config.balance == "auto" else []
    with run.world.agreeing():
        made += own_hooks(run.config.hook, run)
    if run.time_limit:
        run.time_limit.saves = checkpoints
        run.report.say("stop", run.time_limit.head(is_saved=checkpoints is not None))
        made.append(run.time_limit)
    stopping = run.world.stopping
    made += [hooks.Preemption(run, stopping, checkpoints)] if stopping else []
    return [*made, hooks.Summary()]


def own_hooks(names: Sequence[str], run: Run) -> list[Hook]:
    """The user's: each FILE.py:NAME is called with the run. Raises ConfigurationError."""
    made = []
    for name in names:
        hook = load_own("--hook", name)(run)
        missing = [
            point
            for point in vars(QuietHook)
            if not point.startswith("_") and not callable(getattr(hook, point, None))
        ]
        if missing:
            raise ConfigurationError(
                f"--hook {name}: expected the methods of lepton_mpi.QuietHook, a class to inherit from, got none "
                f"called {', '.join(missing)}"
            )
        made.append(hook)
    return made
