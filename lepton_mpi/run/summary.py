"""What a training run says at its head and at its end: on screen, in the metrics file, and to who called it."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_mpi import __version__
from lepton_mpi.data.order import BlockShuffle, FullShuffle
from lepton_mpi.options.config import Config
from lepton_mpi.run import advice, class_weights, evaluation, freezing, memory_forecast, per_rank
from lepton_mpi.run.resume import name_of
from lepton_mpi.wording import grouped, size_text
from lepton_mpi.world import memory
from lepton_mpi.world.world import World

if TYPE_CHECKING:
    from lepton_mpi.run.run import Run

# A larger share of the time is explained; half of it is usual with twice as many ranks as cores.
_WAITING_SHARE_EXPLAINED = 0.3


def say_head(run: Run) -> None:
    """World, data, model, training and strategy, a line each; every rank calls it, the report knows who speaks."""
    config, world, report, data = run.config, run.world, run.report, run.data
    report.say("world", _world_text(config, world))
    if config.recipe:
        report.say("recipe", f"{config.recipe} (options that are not given come from it)")
    counts = ", ".join(
        f"{grouped(rows.row_count)} {split}" for split, rows in _in_order(data.splits)
    )
    report.say("data", f"{data.name}: {counts} {data.inputs_text}, {data.outputs_text}")
    for note in data.notes:
        report.say("", note)
    report.say("loader", f"{data.way.name} ({data.way.reason}), {_shuffled(run.shuffle)}")
    for note in run.start.notes:
        report.say("resume", note)
    if config.epochs is not None and run.start.epoch > config.epochs:
        done = run.start.epoch - 1
        many = f"{done} epoch{'s are' if done > 1 else ' is'}"
        report.say(
            "", f"nothing is left to train: {many} done, --epochs {config.epochs} asks for no more"
        )
    for note in run.start.initial_notes:
        report.say("initial", note)
    parameters = f"{grouped(run.layout.size)} parameters, {config.dtype}"
    report.say("model", f"{name_of(run.model)}, {parameters}")
    if weighted := class_weights.sentence(run.model, data):
        report.say("weighted", weighted)
    if frozen := freezing.sentence(run.model):
        report.say("frozen", frozen)
    if config.report_memory:
        for line in run.model.memory_lines(run.micro_batches.rows, np.dtype(config.dtype)):
            report.say("planned", line)
        if run.model.synchronised:
            held = len(run.strategy.numbers)
            report.say(
                "planned",
                f"{held} times on rank 0, and a gradient each: micro-batches are computed together",
            )
        for line in memory_forecast.lines(run):
            report.say("predicted", line)
    batches = run.micro_batches
    report.say(
        "training",
        f"{config.optimizer} {config.peak_rate:g}, global batch {config.batch_rows} in {batches.count} "
        f"micro-batches of {batches.rows}",
    )
    if run.derived.values:
        report.say("derived", str(run.derived))
    if world.size > batches.count:
        report.say(
            "idle",
            f"{world.size - batches.count} of {world.size} ranks have nothing to compute: a step has {batches.count} micro-batches; "
            f"--micro-batch {max(1, -(-config.batch_rows // world.size))}, or a larger --global-batch",
        )
    report.say("strategy", str(run.strategy))
    _record_start(run)


def _record_start(run: Run) -> None:
    """The line of the metrics file that says what runs."""
    config, world, data = run.config, run.world, run.data
    run.report.record(
        "start",
        world_size=world.size,
        hosts=world.host_count,
        mpi=world.mpi,
        versions=_versions(world),
        data=data.name,
        model=name_of(run.model),
        rows={split: rows.row_count for split, rows in data.splits.items()},
        loader=data.way.name,
        shuffle=run.shuffle.name,
        parameters=run.layout.size,
        frozen=[name for name in run.layout.shapes if name in run.model.frozen],
        **run.strategy.facts(),
        derived=list(run.derived.values),
        configuration=dataclasses.asdict(config),
    )


def _world_text(config: Config, world: World) -> str:
    ranks = f"{world.size} rank{'s' * (world.size > 1)} on {world.host_count} host{'s' * (world.host_count > 1)}"
    is_crowded = world.local_size > world.cores
    cores = f"{world.cores} core{'s' * (world.cores > 1)}{' by cpu.max' * world.has_core_quota}"
    crowded = f", {cores} for {world.local_size} ranks" if is_crowded else ""
    if world.has_core_quota and not is_crowded:
        crowded = f", {cores}"
    threads = thread_count(config, world)
    per_rank = "1 thread a rank" if threads == 1 else f"{threads} BLAS threads a rank"
    return f"{ranks}{crowded}, {world.mpi}, {per_rank}"


def evaluate(run: Run, split: str) -> dict[str, Any]:
    """Figures of the model on the rows of a split, with the parameters of ``Strategy.consensus``. Collective."""
    consensus = run.strategy.consensus()
    # Models keep what they have prepared for views that they know.
    is_known = consensus is run.strategy.parameters
    parameters = run.parameters if is_known else run.layout.views(consensus)
    return evaluation.evaluate(
        *(run.model, parameters, run.data.splits[split], run.task, run.reader, run.world)
    )


def say_end(run: Run) -> dict[str, Any]:
    """Test figures, time split, digest: printed, recorded and returned. Collective."""
    world, report, strategy = run.world, run.report, run.strategy
    test = evaluate(run, "test")
    world.clock.enter("end")
    digest = run.layout.digest(strategy.consensus())
    world.agree_on("the digest of the final parameters", digest)
    seconds, shares = _time_split(run)
    accounts = per_rank.gather(run)
    slow = per_rank.slow_rank(accounts)
    rows = run.train_rows.row_count
    trained = max(0, (run.epoch + 1 - run.start.epoch) * rows - run.start.row)
    result = {
        "world_size": world.size,
        "samples_per_second": trained / seconds if seconds else 0.0,
        "seconds": seconds,
        "time_split": shares,
        "weights_digest": digest,
        "checkpoint": str(run.checkpoint) if run.checkpoint else None,
    }
    if test:
        result |= run.task.result(test)
        report.say("test", run.task.sentence(test))
    elif not run.data.splits["test"].row_count:
        report.say("test", "none: the data have no test rows")
    advised = advice.advise(advice.facts_of(run, test or run.validation))
    result["advice"] = advised
    measured = strategy.figures()
    result |= measured
    report.say("time", _time_text(seconds, shares, measured))
    if slow:
        report.say("waiting", f"for {slow}")
    elif shares["waiting"] > _WAITING_SHARE_EXPLAINED:
        of_host = world.local_size, world.cores, run.config.batch_rows
        report.say("waiting", advice.waiting_text(*of_host, shares["waiting"]))
    if run.config.report_memory:
        for line in memory.report(world, strategy.memory(), strategy.parameters.nbytes):
            report.say("memory", line)
    if run.checkpoint:
        report.say("checkpoint", str(run.checkpoint))
    for line in advised:
        report.say("advice", line)
    report.say("weights", f"{digest} (BLAKE2b)")
    report.record(
        "end",
        **result,
        **_best(run),
        ranks=[account.record() for account in accounts],
        slow_rank=slow.record() if slow else None,
    )
    return result


def _best(run: Run) -> dict[str, Any]:
    """The best epoch, and whether a higher or a lower score is better."""
    if run.best is None or not run.best.epoch:
        return {}
    return {**run.best.result(), "best_is": run.task.better[run.best.score]}


def _versions(world: World) -> dict[str, str]:
    """Of what decides the figures and the times."""
    packages = {name: metadata.version(name) for name in ("numpy", "numba", "mpi4py")}
    return {
        "lepton_mpi": __version__,
        "python": platform.python_version(),
        **packages,
        "mpi": world.mpi,
        "cpu": world.cpu,
    }


def _time_split(run: Run) -> tuple[float, dict[str, float]]:
    """Seconds in steps, mean over ranks, and each phase's share of them. Collective."""
    names = per_rank.STEP_PHASES
    seconds = run.phase_seconds()
    split = run.world.sum(np.array([seconds[name] for name in names])) / run.world.size
    total = split.sum() or 1.0  # of a run that had nothing left to train
    return float(split.sum()), dict(zip(names, (split / total).tolist(), strict=True))


def _time_text(seconds: float, shares: dict[str, float], measured: dict[str, float]) -> str:
    parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    if "hidden_share" in measured:
        hidden = f"{measured['hidden_share']:.0%} of the exchange between hosts"
        parts += f"; {hidden} hidden behind compute"
    if "sent_bytes_per_step" in measured:
        size = size_text(round(measured["sent_bytes_per_step"]))
        parts += f"; {size} a step between hosts, {measured['compression_ratio']:.3g} times less than uncompressed"
    return f"{seconds:.2f} s in steps: {parts}"


def _shuffled(shuffle: FullShuffle | BlockShuffle) -> str:
    if isinstance(shuffle, FullShuffle):
        return "all rows shuffled"
    blocks, rows = len(shuffle.blocks) - 1, int(shuffle.blocks[-1])
    text = (
        f"{grouped(blocks)} block{'s' * (blocks != 1)} shuffled, rows within windows of {grouped(shuffle.window_rows)} "
        "for each micro-batch"
    )
    if shuffle.window_rows * blocks < rows:
        text += ", less than a block: rows that lie together come together, unless --shuffle-buffer is larger"
    return text


def thread_count(config: Config, world: World) -> int:
    """BLAS threads of this rank."""
    return config.threads or max(1, world.cores // world.local_size)


def _in_order(splits: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, splits[name]) for name in ("train", "validation", "test")]
