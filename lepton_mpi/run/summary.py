"""What a training run says at its head and at its end: on screen, in the metrics file, and to who called it."""

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from lepton_mpi.options.config import Config
from lepton_mpi.run.report import Report
from lepton_mpi.wording import grouped
from lepton_mpi.world.world import World, mpi_library


@contextmanager
def told_if_long(report: Report, title: str, text: str, seconds: float = 2.0) -> Iterator[None]:
    """Say ``text`` if the block has not ended after so long, so that nobody takes the silence for a hang."""
    timer = threading.Timer(seconds, report.say, (title, text))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def say_head(
    config, world, report, data, model, layout, strategy, micro_batches, shuffle, start
) -> None:
    """World, data, model, training and allreduce, a line each; every rank calls it, ``report`` knows who speaks."""
    ranks = f"{world.size} rank{'s' * (world.size > 1)} on {world.host_count} host{'s' * (world.host_count > 1)}"
    is_crowded = world.local_size > world.cores
    crowded = f", {world.cores} cores for {world.local_size} ranks" if is_crowded else ""
    threads = thread_count(config, world)
    per_rank = "1 thread a rank" if threads == 1 else f"{threads} BLAS threads a rank"
    report.say("world", f"{ranks}{crowded}, {mpi_library()}, {per_rank}")
    counts = ", ".join(
        f"{grouped(rows.row_count)} {split}" for split, rows in _in_order(data.splits)
    )
    shape = "x".join(map(str, data.feature_shape)) or "1"
    report.say("data", f"{data.name}: {counts} rows of shape {shape}, {data.outputs_text}")
    report.say("loader", f"{data.way.name} ({data.way.reason}), {_shuffled(shuffle)}")
    for note in start.notes:
        report.say("resume", note)
    report.say("model", f"{name_of(model)}, {grouped(layout.size)} parameters, {config.dtype}")
    buckets = strategy.bucket_count
    report.say(
        "training",
        f"{config.optimizer} {config.learning_rate:g}, global batch {config.global_batch} in {micro_batches.count} "
        f"micro-batches of {micro_batches.rows}",
    )
    report.say(
        "allreduce",
        f"{strategy.choice.algorithm} in {buckets} bucket{'s' * (buckets > 1)} "
        f"({strategy.choice.reason})",
    )
    report.record(
        "start",
        world_size=world.size,
        hosts=world.host_count,
        mpi=mpi_library(),
        rows={split: rows.row_count for split, rows in data.splits.items()},
        loader=data.way.name,
        shuffle=shuffle.name,
        parameters=layout.size,
        allreduce=strategy.choice.algorithm,
        allreduce_reason=strategy.choice.reason,
        configuration=dataclasses.asdict(config),
    )


def say_end(
    config, world, report, data, model, layout, strategy, parameters, reader, path, rows_trained
) -> dict[str, Any]:
    """Test figures, time split, digest: printed, recorded and returned. Collective."""
    from lepton_mpi.run import evaluation

    test = evaluation.evaluate(
        model, parameters, data.splits["test"], data.class_names, reader, world
    )
    world.clock.enter("end")
    names = ("compute", "communication", "waiting", "input")
    split = world.sum(np.array([world.clock.seconds[name] for name in names])) / world.size
    total = split.sum() or 1.0  # of a run that had nothing left to train
    shares = dict(zip(names, (split / total).tolist(), strict=True))
    digest = layout.digest(strategy.parameters)
    world.agree_on("the digest of the final parameters", digest)
    seconds = float(split.sum())
    result = {
        "world_size": world.size,
        "samples_per_second": rows_trained / seconds if seconds else 0.0,
        "seconds": seconds,
        "time_split": shares,
        "weights_digest": digest,
        "checkpoint": str(path) if path else None,
    }
    if test:
        result |= {"test_" + name: value for name, value in test.items()}
        if "macro_recall" in test:
            result["macro_recall"] = test["macro_recall"]
        report.say("test", evaluation.sentence(test))
    elif not data.splits["test"].row_count:
        report.say("test", "none: the data have no test rows")
    parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    if strategy.exchange_seconds is not None:
        total, exposed = world.sum(np.array(strategy.exchange_seconds))
        result["hidden_share"] = float(1 - exposed / total) if total else 0.0
        parts += (
            f"; {result['hidden_share']:.0%} of the exchange between hosts hidden behind compute"
        )
    report.say("time", f"{seconds:.2f} s in steps: {parts}")
    if config.report_memory:
        from lepton_mpi.world import memory

        for line in memory.report(world, strategy.vector_counts, strategy.parameters.nbytes):
            report.say("memory", line)
    if path:
        report.say("checkpoint", str(path))
    report.say("weights", f"{digest} (BLAKE2b)")
    report.record("end", **result)
    return result | {"parameters": dict(parameters)}


def _shuffled(shuffle) -> str:
    if shuffle.name == "full":
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


def name_of(model: Any) -> str:
    """How the model describes itself, or the name of its class: never an address in memory."""
    described = type(model).__str__ is not object.__str__
    return str(model) if described else type(model).__name__


def _in_order(splits: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, splits[name]) for name in ("train", "validation", "test")]
