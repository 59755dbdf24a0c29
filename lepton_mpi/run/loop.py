"""START HERE: one training run, read top to bottom.

    mpirun -n 8 python -m lepton_mpi.train                          the embedded digits
    mpirun -n 8 python -m lepton_mpi.train --data FILE.h5           your own rows
    mpirun -n 8 python my_model.py                                  your own model: fit(model, ...)

A step: this rank's micro-batches of the global batch -> summed loss and gradient of each -> sum over all
micro-batches of all ranks -> division by all rows -> optimizer. Every row of an epoch is used exactly once,
and the sum has one order of additions, so the weights do not depend on the number of ranks, bit for bit.
"""

import dataclasses
import math
from contextlib import ExitStack, closing
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import threadpoolctl

from lepton_mpi import launch
from lepton_mpi.durable import try_writing
from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.options.config import Config, make_config
from lepton_mpi.run import summary
from lepton_mpi.run.report import Report
from lepton_mpi.vectors import Layout
from lepton_mpi.wording import one_line
from lepton_mpi.world.world import World, run


def fit(model: Any = None, **options: Any) -> dict[str, Any]:
    """Train ``model`` on all ranks of the job and return the figures of the run's end. Collective.

    Ends the process as the command line does, with one line and an exit code, if options or data are wrong.

    Parameters
    ----------
    model
        An object as ``lepton_mpi.models`` describes it, or a callable (feature_shape, output_count) that
        returns one, or a text, which is the ``model`` option; None takes the default of that. There is an output
        for each class or each target.
    **options
        Fields of ``Config``.

    Returns
    -------
    dict
        ``test_accuracy``, ``macro_recall``, ``samples_per_second``, ``weights_digest``, ``world_size`` and
        more, as in the last line of the metrics file; ``parameters``, a dict of name to array. Where the data
        have targets instead of classes, ``test_mse``, ``test_rmse``, ``test_mae`` and ``test_r2``.
    """
    if isinstance(model, str):
        options, model = options | {"model": model}, None
    try:
        config = make_config(options)
    except ConfigurationError as error:
        launch.complain(f"lepton_mpi: {error}")
        raise SystemExit(error.exit_code) from None
    result: dict[str, Any] = {}
    code = run(lambda world: result.update(train(config, world, model)), config.timeout)
    if code:
        raise SystemExit(code)
    return result


def train(config: Config, world: World, model: Any = None) -> dict[str, Any]:
    """One run from file to checkpoint. Collective over ``world``; see ``fit`` for model and result."""
    with ExitStack() as ends:
        return _train(config, world, model, ends)


def _train(config: Config, world: World, model: Any, ends: ExitStack) -> dict[str, Any]:
    world.agree_on("the configuration", dataclasses.asdict(config))
    threadpoolctl.threadpool_limits(summary.thread_count(config, world))
    from lepton_mpi.run import resume

    start = resume.find(config, world)
    report = ends.enter_context(closing(_open_report(config, world, start.path is not None)))
    with summary.told_if_long(report, "kernels", "compiling for this processor, only once"):
        world.first_of_host_first(import_kernels)
    from lepton_mpi.data import augmentation, loader
    from lepton_mpi.data.batches import BatchReader, MicroBatchReader
    from lepton_mpi.data.order import MicroBatches, draws
    from lepton_mpi.data.reads import TrainingReads
    from lepton_mpi.run import evaluation

    dtype = np.dtype(config.dtype)
    data = loader.load(
        config.data, dtype, config.held_out, config.seed, world, config.y_kind, config.loader
    )
    model = _make_model(config, world, model, data)
    layout = Layout(model.shapes)
    micro_batches = MicroBatches(
        config.global_batch, config.micro_batch or -(-config.global_batch // 8)
    )
    train_rows = data.splits["train"]
    steps = micro_batches.step_count(train_rows.row_count)
    with world.agreeing():
        # What is asked for is not passed over: ``check_order`` refuses another order than before.
        is_asked = config.shuffle != "auto"
        kind = config.shuffle if is_asked else start.order.get("shuffle", "auto")
        shuffle = loader.training_order(
            data, micro_batches, config.seed, kind, config.shuffle_buffer
        )
        order = resume.order_facts(shuffle, train_rows)
        resume.check_order(start, order, micro_batches)
        augment = augmentation.parse(config.augment, data.feature_shape)
    reads_in_place = not augment and getattr(model, "reads_in_place", False)
    if reads_in_place:
        data = loader.normalised_in_memory(data, world)
    strategy = _make_strategy(config, world, layout, dtype, micro_batches.count, steps)
    parameters = layout.views(strategy.parameters)
    if getattr(model, "asks_for_parameters", False):
        strategy.serve(parameters)
    _initialise(config, world, layout, model, strategy, start, data)

    rows_max = max(evaluation.batch_rows(data), micro_batches.rows)
    reader = BatchReader(data, rows_max, augment, reads_in_place)
    reads = TrainingReads(
        train_rows,
        shuffle,
        strategy.micro_batches.numbers,
        range(start.epoch, config.epochs + 1),
        start.row // config.global_batch,
        reader.rows_together,
        world,
    )
    inputs = MicroBatchReader(ends.enter_context(closing(reads)), reader)
    clock, step = world.clock, start.step
    # The end's checkpoint: that of the beginning where nothing is left to train.
    path = start.path if world.rank == 0 and start.epoch > config.epochs else None
    summary.say_head(
        config, world, report, data, model, layout, strategy, micro_batches, shuffle, start
    )

    own_files = resume.own_files(config, start) if world.rank == 0 else []

    def save(epoch: int, row: int, sums: np.ndarray) -> Path | None:
        state = resume.attributes(config, epoch, row, step, sums, order)
        return _save(config, world, layout, strategy, data, model, state, own_files)

    for epoch in range(start.epoch, config.epochs + 1):
        report.epoch_begins(epoch, config.epochs, steps)
        began, first_row = perf_counter(), start.row if epoch == start.epoch else 0
        # The sums of the part of an epoch that was trained before the run was resumed count once.
        is_heir = first_row > 0 and world.rank == 0
        loss, correct = (start.loss, start.correct) if is_heir else (0.0, 0.0)
        first_step = first_row // config.global_batch
        clock.enter("input", step)
        reads.begin_epoch(epoch)
        draws_of_steps = draws(config.seed, step, steps - first_step)
        for number, draw in enumerate(draws_of_steps, first_step):
            step += 1
            for vector, gradient in strategy.micro_batches:
                clock.enter("input", step)
                batch = inputs.next(draw)
                clock.enter("compute")
                if batch.y.size:
                    figures = model.loss_and_gradient(parameters, batch, gradient)
                    batch_loss, batch_correct = _loss_and_correct(figures)
                    loss, correct = loss + batch_loss, correct + batch_correct
                else:
                    vector[:] = 0  # the last step of an epoch may be shorter
            strategy.step(step, micro_batches.step_rows(train_rows.row_count, number))
            report.step_done()
            is_due = config.checkpoint_steps and step % config.checkpoint_steps == 0
            if is_due and number < steps - 1:  # after an epoch there is one anyway
                strategy.finish()
                # What is saved pushes out what was saved before, which may be all that is good.
                sums = _finite_sums(world, loss, correct, strategy.parameters, epoch)
                path = save(epoch, (number + 1) * config.global_batch, sums)
        strategy.finish()
        clock.enter("waiting")
        sums = _finite_sums(world, loss, correct, strategy.parameters, epoch)
        loss, correct = sums / train_rows.row_count
        seconds = perf_counter() - began
        values = {
            "seconds": seconds,
            "samples_per_second": (train_rows.row_count - first_row) / seconds,
            "loss": loss,
        }
        if not np.isnan(correct):
            values["accuracy"] = correct
        values |= _prefixed(
            "val_",
            evaluation.evaluate(
                model, parameters, data.splits["validation"], data.class_names, reader, world
            ),
        )
        report.epoch_ends(epoch, config.epochs, values)
        if config.checkpoint:
            path = save(epoch, train_rows.row_count, sums)

    trained = max(0, (config.epochs + 1 - start.epoch) * train_rows.row_count - start.row)
    return summary.say_end(
        config, world, report, data, model, layout, strategy, parameters, reader, path, trained
    )


def import_kernels() -> None:
    """Compile, or load from the cache, every kernel of a run."""
    import lepton_mpi.collectives.within_host.flag_kernels
    import lepton_mpi.data.augmentation_kernels
    import lepton_mpi.data.files.checksum_kernels
    import lepton_mpi.data.kernels
    import lepton_mpi.data.shuffle_kernels
    import lepton_mpi.kernels.counter_random_kernels
    import lepton_mpi.layers.dense_stack_kernels
    import lepton_mpi.layers.loss_kernels
    import lepton_mpi.models.logistic_kernels
    import lepton_mpi.optimizers.rule_kernels
    import lepton_mpi.strategies.norm_kernels
    import lepton_mpi.strategies.step_kernels  # noqa: F401


def _open_report(config: Config, world: World, goes_on: bool) -> Report:
    """Find out before the first step whether everything that will be written can be."""
    with world.agreeing():
        if world.rank == 0 and config.checkpoint:
            try:
                Path(config.checkpoint).mkdir(parents=True, exist_ok=True)
                try_writing(Path(config.checkpoint))
            except OSError as error:
                raise _no_checkpoint(config, error) from None
        try:
            return Report(world.rank == 0, config.progress, config.metrics, goes_on)
        except OSError as error:
            raise LauncherError(f"cannot write {error.filename}: {error.strerror}") from None


def _make_model(config: Config, world: World, model: Any, data) -> Any:
    from lepton_mpi.models.registry import make_model

    with world.agreeing():
        if model is None:
            return make_model(config, data, threaded=summary.thread_count(config, world) > 1)
        return model(data.feature_shape, data.output_count) if callable(model) else model


def _make_strategy(
    config: Config,
    world: World,
    layout: Layout,
    dtype: np.dtype,
    micro_batch_count: int,
    steps_per_epoch: int,
):
    from lepton_mpi.collectives.sliced_sum import choose_for_gradients, make_sliced_sum
    from lepton_mpi.optimizers.learning_rate import Schedule
    from lepton_mpi.optimizers.optimizer import Settings
    from lepton_mpi.strategies.overlapped_parameters import OverlappedParameters
    from lepton_mpi.strategies.replicated import Replicated
    from lepton_mpi.strategies.shared_parameters import SharedParameters

    buckets = layout.buckets(max(1, config.bucket_bytes // dtype.itemsize))
    rate = Schedule(
        config.learning_rate
        * (config.global_batch / config.base_batch if config.base_batch else 1.0),
        config.schedule,
        config.warmup_epochs * steps_per_epoch,
        config.epochs * steps_per_epoch,
        config.schedule_epochs * steps_per_epoch,
        config.schedule_factor,
    )
    settings = Settings(
        config.optimizer, rate, config.momentum, config.weight_decay, config.clip_value or math.inf
    )
    clip_norm = config.clip_norm or math.inf
    choice = choose_for_gradients(world, config.allreduce, buckets, dtype)
    if choice.algorithm in ("host", "two_level"):
        common = world, layout, dtype, micro_batch_count, settings, choice, clip_norm
        if world.host_count == 1:
            return SharedParameters(*common)
        return OverlappedParameters(*common, buckets)
    gradients = make_sliced_sum(
        world,
        layout.size,
        dtype,
        micro_batch_count,
        buckets,
        choice.algorithm,
        config.segment_bytes,
    )
    return Replicated(layout, gradients, choice, settings, world.clock, clip_norm)


def _initialise(
    config: Config, world: World, layout: Layout, model: Any, strategy, start, data
) -> None:
    """Random parameters, or those of a checkpoint, with its state if the run goes on; the same on every rank."""
    from lepton_mpi.layers.initial import initialise_uniform
    from lepton_mpi.run import checkpoint, resume

    vector = strategy.parameters
    with world.agreeing():
        if config.initial is not None and not start.path and world.local_rank == 0:
            checkpoint.verify(Path(config.initial))
    with world.agreeing():
        # One that several ranks share is filled by one of them.
        if world.local_rank == 0 or not strategy.is_shared:
            if start.path:
                state = strategy.optimizer.named_state
                resume.load_state(start, layout, vector, state, data.normalisation)
            elif config.initial is None:
                getattr(model, "initialise", initialise_uniform)(layout.views(vector), config.seed)
            else:
                loaded = checkpoint.read(Path(config.initial))
                _check_shapes(config.initial, loaded.layout, layout)
                vector[:] = loaded.parameters
    world.agree_on("the digest of the initial parameters", layout.digest(vector))


def _check_shapes(path: str, found: Layout, wanted: Layout) -> None:
    if found.shapes != wanted.shapes:
        raise ConfigurationError(f"{path}: expected parameters {wanted.shapes}, got {found.shapes}")


def _loss_and_correct(returned: Any) -> tuple[float, float]:
    return returned if isinstance(returned, tuple) else (returned, np.nan)


def _finite_sums(
    world: World, loss: float, correct: float, parameters: np.ndarray, epoch: int
) -> np.ndarray:
    """Loss and correct of all ranks, float64 (2,), if they and the parameters are good to go on from. Collective.

    Losses were computed before the last update, so each rank also looks at its part of the host's parameters. The sums
    are the same on every rank, so all of them stop together. Raises ConfigurationError.
    """
    from lepton_mpi.data.order import share

    first, last = share(0, parameters.size, world.local_size, world.local_rank)
    # NaN is the least and the largest where there is one; ``isfinite`` of all would make a vector.
    part = parameters[first:last]
    is_finite = np.isfinite(part.min(initial=0)) and np.isfinite(part.max(initial=0))
    *sums, wrong = world.sum(np.array([loss, correct, not is_finite], np.float64))
    became = "" if np.isfinite(sums[0]) else f"the loss became {sums[0]}"
    if wrong and not became:
        became = "the parameters became infinite or no numbers"
    if became:
        error = ConfigurationError(f"{became} in epoch {epoch}: try a smaller --learning-rate")
        error.agreed = True
        raise error
    return np.array(sums)


def _prefixed(prefix: str, figures: dict[str, Any]) -> dict[str, float]:
    names = ("loss", "accuracy", "r2")
    return {prefix + name: figures[name] for name in names if name in figures}


def _save(
    config, world, layout, strategy, data, model, state: dict[str, Any], own_files: list[Path]
) -> Path | None:
    """Rank 0 writes; every rank learns whether it worked. Collective. ``state`` is what the run goes on from."""
    from lepton_mpi.run import checkpoint

    world.clock.enter("checkpoint")
    with world.agreeing():
        if world.rank == 0:
            attributes = state | {
                "seed": config.seed,
                "model": summary.name_of(model),
                "y_kind": "targets" if data.target_count else "classes",
            }
            saved = checkpoint.Checkpoint(
                layout,
                strategy.parameters,
                strategy.optimizer.named_state,
                data.normalisation,
                attributes,
            )
            try:
                return checkpoint.save(Path(config.checkpoint), saved, own_files)
            except OSError as error:
                raise _no_checkpoint(config, error) from None
    return None


def _no_checkpoint(config: Config, error: OSError) -> LauncherError:
    reason = one_line(error.strerror or error)
    return LauncherError(f"cannot write a checkpoint to {config.checkpoint}: {reason}")
