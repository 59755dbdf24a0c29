"""A run in which each micro-batch takes a time of its own, asleep, on the job's last rank ``LEPTON_SLOW_RANK`` times as long.

Options are those of ``lepton_mpi.train``, ``--data`` a file of ``write_data``, and ``--json FILE`` for the row: rows a second of all ranks, and of rank 0, in the
second half of the steps, when shares have settled.
"""

import os
import sys
import time
from pathlib import Path

import h5py
import numpy as np

from benchmarks.harness import write_rows
from lepton_mpi import QuietHook
from lepton_mpi.options import sources
from lepton_mpi.run.fit import train
from lepton_mpi.world.world import World, run

SLOW = 3.0
_SECONDS, _ROWS, _MICRO_BATCH, _BATCH = 0.004, 24_000, 5, 200


def write_data(path: Path) -> None:
    """The rows of the run, two classes that are easy to tell apart."""
    x = np.random.default_rng(0).standard_normal((_ROWS, 16)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["train/x"], file["train/y"] = x, (x[:, 0] > 0).astype(np.int32)


class Slow:
    """Softmax regression that sleeps."""

    seconds = _SECONDS

    def __init__(self, feature_shape, class_count):
        self.shapes = {"w": (int(np.prod(feature_shape)), class_count)}

    def loss_and_gradient(self, parameters, batch, gradient):
        """Cross-entropy, summed over the rows, after a sleep of ``seconds``."""
        time.sleep(self.seconds)
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
    at = words.index("--json")
    path, words = words[at + 1], words[:at] + words[at + 2 :]
    common = ("--epochs", "1", "--progress", "none", "--global-batch", str(_BATCH))
    chosen = sources.from_command_line(
        [*words, *common, "--micro-batch", str(_MICRO_BATCH), "--learning-rate", "0.001"]
    )

    def work(world: World) -> None:
        factor = float(os.environ.get("LEPTON_SLOW_RANK", "1"))
        Slow.seconds = _SECONDS * (factor if world.rank == world.size - 1 else 1.0)
        speed = Speed(_ROWS // _BATCH)
        train(chosen.config, world, Slow, [speed], given=chosen.given)
        rows, seconds = world.comm.allgather((speed.rows, speed.seconds)), speed.seconds
        if world.rank == 0:
            total = sum(count for count, _ in rows)
            longest = max(each for _, each in rows)
            write_rows(
                path,
                [{"rows_per_second": total / longest, "rows_of_first": speed.rows / seconds}],
            )

    return run(work, chosen.config.timeout)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
