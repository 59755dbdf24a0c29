"""START HERE: one training run, read top to bottom.

    mpirun -n 8 python -m lepton_mpi.train                          the embedded digits
    mpirun -n 8 python -m lepton_mpi.train --data FILE.h5           your own rows
    mpirun -n 8 python my_model.py                                  your own model: fit(model, ...)

A step: this rank's micro-batches of the global batch -> summed loss and gradient of each -> sum over all
micro-batches of all ranks -> division by all rows -> optimizer. Every row of an epoch is used exactly once,
and the sum has one order of additions, so the weights do not depend on the number of ranks, bit for bit.
"""

if __name__ == "__main__":
    # The command line is read, and the threads are limited, before NumPy and MPI are loaded.
    from lepton_mpi.__main__ import train_command

    raise SystemExit(train_command())

import dataclasses
import json
import math
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import threadpoolctl

from lepton_mpi import launch, run_report
from lepton_mpi.config import Config, make_config
from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.report import Report
from lepton_mpi.vectors import Layout
from lepton_mpi.world import World, run


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
    world.agree_on("the configuration", dataclasses.asdict(config))
    threadpoolctl.threadpool_limits(run_report.thread_count(config, world))
    report = _open_report(config, world)
    with run_report.told_if_long(report, "kernels", "compiling for this processor, only once"):
        world.first_of_host_first(import_kernels)
    from lepton_mpi import evaluation
    from lepton_mpi.data import loader, order
    from lepton_mpi.models import Batch, draws
    from lepton_mpi.strategies.micro_batches import MicroBatches

    dtype = np.dtype(config.dtype)
    unpack_first = config.data_check == "full"
    data = loader.load(
        config.data, dtype, config.held_out, config.seed, world, config.y_kind, unpack_first
    )
    model = _make_model(config, world, model, data)
    layout = Layout(model.shapes)
    micro_batches = MicroBatches(
        config.global_batch, config.micro_batch or -(-config.global_batch // 8)
    )
    train_rows = data.splits["train"]
    steps = order.step_bounds(train_rows.row_count, config.global_batch)
    strategy = _make_strategy(config, world, layout, dtype, micro_batches.count, len(steps))
    parameters = layout.views(strategy.parameters)
    _initialise(config, world, layout, model, strategy)

    reader = loader.BatchReader(data, max(evaluation.BATCH_ROWS, micro_batches.rows))
    clock, step, path = world.clock, 0, None
    run_report.say_head(config, world, report, data, model, layout, strategy, micro_batches)

    for epoch in range(1, config.epochs + 1):
        report.epoch_begins(epoch, config.epochs, len(steps))
        began, loss, correct = perf_counter(), 0.0, 0.0
        rows_in_order = train_rows.indices[
            order.epoch_order(train_rows.row_count, config.seed, epoch)
        ]
        reads = micro_batches.reads(strategy.micro_batches.numbers, rows_in_order, steps)
        draws_of_steps = draws(config.seed, step, len(steps))
        for (batch_start, batch_stop), draw in zip(steps, draws_of_steps, strict=True):
            step += 1
            for vector, gradient in strategy.micro_batches:
                clock.enter("input", step)
                rows, following = next(reads)
                x, y = reader.read(train_rows, rows)
                batch = Batch(x, y, rows, draw, reader.look_ahead(train_rows, following))
                clock.enter("compute")
                if rows.size:
                    figures = model.loss_and_gradient(parameters, batch, gradient)
                    batch_loss, batch_correct = _loss_and_correct(figures)
                    loss, correct = loss + batch_loss, correct + batch_correct
                else:
                    vector[:] = 0  # the last step of an epoch may be shorter
            strategy.step(step, batch_stop - batch_start)
            report.step_done()
        clock.enter("waiting")
        loss, correct = world.sum(np.array([loss, correct], np.float64)) / train_rows.row_count
        seconds = perf_counter() - began
        _check_finite(world, loss, epoch)
        values = {
            "seconds": seconds,
            "samples_per_second": train_rows.row_count / seconds,
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
            clock.enter("checkpoint")
            path = _save(config, world, layout, strategy, data, model, step, epoch)

    result = run_report.say_end(
        config, world, report, data, model, layout, strategy, parameters, reader, path
    )
    report.close()
    return result


def import_kernels() -> None:
    """Compile, or load from the cache, every kernel of a run."""
    import lepton_mpi.collectives.flag_kernels
    import lepton_mpi.data.kernels
    import lepton_mpi.look_ahead_kernels
    import lepton_mpi.models.activation_kernels
    import lepton_mpi.models.kernels
    import lepton_mpi.models.regression_kernels
    import lepton_mpi.optimizer_kernels
    import lepton_mpi.strategies.norm_kernels
    import lepton_mpi.strategies.step_kernels  # noqa: F401


def _open_report(config: Config, world: World) -> Report:
    """Find out before the first step whether everything that will be written can be."""
    with world.agreeing():
        try:
            if world.rank == 0 and config.checkpoint:
                Path(config.checkpoint).mkdir(parents=True, exist_ok=True)
            return Report(world.rank == 0, config.progress, config.metrics)
        except OSError as error:
            raise LauncherError(f"cannot write {error.filename}: {error.strerror}") from None


def _make_model(config: Config, world: World, model: Any, data) -> Any:
    from lepton_mpi.models import make_model

    with world.agreeing():
        if model is None:
            return make_model(config, data, threaded=run_report.thread_count(config, world) > 1)
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
    from lepton_mpi.learning_rate import Schedule
    from lepton_mpi.optimizers import Settings
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


def _initialise(config: Config, world: World, layout: Layout, model: Any, strategy) -> None:
    """Random parameters, or those of a checkpoint; the same on every rank."""
    from lepton_mpi import checkpoint
    from lepton_mpi.models import initialise_uniform

    vector = strategy.parameters
    with world.agreeing():
        if config.initial is not None and world.local_rank == 0:
            checkpoint.verify(Path(config.initial))
    with world.agreeing():
        # One that several ranks share is filled by one of them.
        if world.local_rank == 0 or not strategy.is_shared:
            if config.initial is None:
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


def _check_finite(world: World, loss: float, epoch: int) -> None:
    """The loss is the same sum on every rank, so all of them stop together."""
    if not np.isfinite(loss):
        error = ConfigurationError(
            f"the loss became {loss} in epoch {epoch}: try a smaller --learning-rate"
        )
        error.agreed = True
        raise error


def _prefixed(prefix: str, figures: dict[str, Any]) -> dict[str, float]:
    names = ("loss", "accuracy", "r2")
    return {prefix + name: figures[name] for name in names if name in figures}


def _save(config, world, layout, strategy, data, model, step: int, epoch: int) -> Path | None:
    """Rank 0 writes; every rank learns whether it worked. Collective."""
    from lepton_mpi import checkpoint

    with world.agreeing():
        if world.rank == 0:
            attributes = {
                "step": step,
                "epoch": epoch,
                "seed": config.seed,
                "model": run_report.name_of(model),
                "y_kind": "targets" if data.target_count else "classes",
            }
            attributes["configuration"] = json.dumps(dataclasses.asdict(config))
            saved = checkpoint.Checkpoint(
                layout,
                strategy.parameters,
                strategy.optimizer.named_state,
                data.normalisation,
                attributes,
            )
            try:
                return checkpoint.save(Path(config.checkpoint), saved)
            except OSError as error:
                raise LauncherError(
                    f"cannot write a checkpoint to {config.checkpoint}: {error}"
                ) from None
    return None
