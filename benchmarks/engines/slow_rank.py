"""Runs in one job, in which each micro-batch takes a time of its own, asleep, on a slow rank several times as long.

``--data`` is a file of ``write_data``, ``--cases`` a JSON list of objects: ``words``, options of ``lepton_mpi.train``; ``factor``, by how many times the job's last rank is
slower, or with ``turns`` one that is drawn anew in each step. ``--json FILE`` gets a row of each: rows a second of all ranks, and of rank 0 until
its last step, in the second half of the steps, when shares have settled. ``--seconds`` are those of a micro-batch.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import h5py
import numpy as np

from benchmarks.harness import Row, write_rows
from lepton_mpi import QuietHook
from lepton_mpi.options import sources
from lepton_mpi.run.fit import train
from lepton_mpi.world.world import World, run

SLOW = 3.0
SECONDS, _ROWS, _MICRO_BATCH, _BATCH = 0.004, 24_000, 5, 200


def write_data(path: Path) -> None:
    """The rows of the run, two classes that are easy to tell apart."""
    x = np.random.default_rng(0).standard_normal((_ROWS, 16)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["train/x"], file["train/y"] = x, (x[:, 0] > 0).astype(np.int32)


class Slow:
    """Softmax regression that sleeps."""

    seconds = SECONDS
    # Of all ranks this one, and by how many times a drawn one is slower; 1 where none is drawn.
    rank, size, drawn_factor = 0, 1, 1.0

    def __init__(self, feature_shape, class_count):
        self.shapes = {"w": (int(np.prod(feature_shape)), class_count)}

    def loss_and_gradient(self, parameters, batch, gradient):
        """Cross-entropy, summed over the rows, after a sleep of ``seconds``."""
        is_drawn = batch.draw % self.size == self.rank
        time.sleep(self.seconds * (self.drawn_factor if is_drawn else 1.0))
        x = batch.x.reshape(len(batch.x), -1)
        z = x @ parameters["w"]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        rows = np.arange(len(x))
        loss = -np.log(np.maximum(p[rows, batch.y], 1e-30)).sum()
        p[rows, batch.y] -= 1
        gradient["w"][:] = x.T @ p
        return float(loss)


class Speed(QuietHook):
    """Rows of this rank, and seconds, in the second half of the run's steps."""

    def __init__(self, steps: int) -> None:
        self._first, self.rows, self._began, self.seconds = steps // 2, 0, 0.0, 0.0

    def after_step(self, run) -> None:
        """Count."""
        if run.step == self._first:
            self._began = time.perf_counter()
        elif run.step > self._first:
            self.rows += len(run.strategy.numbers) * _MICRO_BATCH
            self.seconds = time.perf_counter() - self._began


def main(words: list[str]) -> int:
    """Train; rank 0 writes."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--json", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--cases", required=True)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args(words)

    def work(world: World) -> None:
        rows = [
            _measure(world, options.data, options.seconds, **case)
            for case in json.loads(options.cases)
        ]
        if world.rank == 0:
            write_rows(options.json, rows)

    return run(work, 600)


def _measure(
    world: World, data: str, seconds: float, words: list[str], factor: float, turns: bool
) -> Row:
    """Of one case, on every rank."""
    common = ("--data", data, "--epochs", "1", "--progress", "none", "--global-batch", str(_BATCH))
    more = ("--micro-batch", str(_MICRO_BATCH), "--learning-rate", "0.001")
    chosen = sources.from_command_line([*words, *common, *more])
    Slow.rank, Slow.size = world.rank, world.size
    Slow.drawn_factor = factor if turns else 1.0
    is_slow = world.rank == world.size - 1 and not turns
    Slow.seconds = seconds * (factor if is_slow else 1.0)
    speed = Speed(_ROWS // _BATCH)
    train(chosen.config, world, Slow, [speed], given=chosen.given)
    rows = world.comm.allgather((speed.rows, speed.seconds))
    total, longest = sum(count for count, _ in rows), max(each for _, each in rows)
    return {"rows_per_second": total / longest, "rows_of_first": rows[0][0] / rows[0][1]}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
