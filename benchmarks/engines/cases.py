"""The fully connected models, and rows for them, as functions of fixed numbers; those of layers are in ``networks.py``. Needs NumPy only."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.engines.networks import NETWORKS
from benchmarks.harness import Row
from lepton_mpi.kernels import counter_random
from lepton_mpi.layers.initial import initialise_uniform

LEARNING_RATE, EPSILON = 1e-3, 1e-8
SEED = 0
# Streams of random numbers, apart from those of the engine; noise has one for each block of rows.
_CENTRES, _CLASSES, _NOISE = 5_000, 5_001, 5_002
# The engine's own, of data/order.py, which needs Numba; a test compares the orders.
_EPOCHS = 1_000
# All of them at once would take ten times the memory of the rows, and every process of a peer makes them.
_BLOCK_ROWS = 256


@dataclass(frozen=True)
class Case:
    """A model: ``widths`` (features, hidden, …, classes), or (features,) for logistic regression."""

    name: str
    widths: tuple[int, ...]

    @property
    def is_logistic(self) -> bool:
        return len(self.widths) == 1

    @property
    def class_count(self) -> int:
        return 2 if self.is_logistic else self.widths[-1]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """As the engine's own models name their parameters."""
        if self.is_logistic:
            return {"weight": self.widths, "bias": (1,)}
        shapes = {}
        for layer, (inputs, outputs) in enumerate(
            zip(self.widths[:-1], self.widths[1:], strict=True)
        ):
            shapes |= {
                f"layer{layer}/weight": (inputs, outputs),
                f"layer{layer}/bias": (outputs,),
            }
        return shapes

    @property
    def config(self) -> dict[str, Any]:
        """Options of the engine's run."""
        model = "logistic" if self.is_logistic else "mlp"
        return {"model": model, "hidden": self.widths[1:-1], "learning_rate": LEARNING_RATE}

    @property
    def attributes(self) -> dict[str, dict[str, Any]]:
        """Of the engine's file: without names there would be as many classes as the rows have, and a large model more than there are rows."""
        return {"": {"classes": [str(number) for number in range(self.class_count)]}}

    @property
    def bare(self) -> "Case":
        """As many layers, all of width 1."""
        return Case("bare", (1,) if self.is_logistic else (1,) * (len(self.widths) - 1) + (2,))

    def initial(self, dtype: type = np.float32) -> Mapping[str, np.ndarray]:
        """Initial parameters, those of the engine with seed ``SEED``."""
        parameters = {name: np.zeros(shape, dtype) for name, shape in self.shapes.items()}
        initialise_uniform(parameters, SEED)
        return parameters

    def arrays(self, count: int) -> Mapping[str, np.ndarray]:
        """``rows`` by their names in the engine's file."""
        return dict(zip("xy", self.rows(count), strict=True))

    def rows(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 (count, features) and classes int64 (count,): noise around a centre for each class."""
        classes, features = self.class_count, self.widths[0]
        y = (counter_random.bits(SEED, _CLASSES, count) % np.uint64(classes)).astype(np.int64)
        centres = 0.3 * (counter_random.uniform(SEED, _CENTRES, classes * features) - 0.5)
        centres = centres.astype(np.float32).reshape(classes, features)
        x = np.empty((count, features), np.float32)
        for block, start in enumerate(range(0, count, _BLOCK_ROWS)):
            part = x[start : start + _BLOCK_ROWS]
            # Four numbers of 16 bits from each hash: for noise they are fine enough.
            hashes = counter_random.bits(SEED, _NOISE + block, -(-part.size // 4))
            part[:] = hashes.view(np.uint16)[: part.size].reshape(part.shape)
            part *= np.float32(2.0**-16)
            part += centres[y[start : start + _BLOCK_ROWS]] - np.float32(0.5)
        return x, y


CASES = {
    case.name: case
    for case in (
        Case("logistic-30", (30,)),
        Case("logistic-10000", (10_000,)),
        Case("mlp-784-128-10", (784, 128, 10)),
        Case("mlp-10m", (784, 2400, 2400, 980)),
    )
}


def order(row_count: int, epoch: int) -> np.ndarray:
    """Rows of an epoch, counted from 1, in the engine's order."""
    return counter_random.permutation(SEED, _EPOCHS + epoch, row_count)


def parser(with_networks: bool = False) -> argparse.ArgumentParser:
    """Options that every engine's program has; ``with_networks``: of one that has those models, too."""
    made = argparse.ArgumentParser()
    names = [*CASES, *(NETWORKS if with_networks else ())]
    made.add_argument("--case", choices=names, required=True)
    made.add_argument("--rows-per-rank", type=int, required=True)
    made.add_argument("--steps", type=int, required=True, help="of an epoch")
    made.add_argument("--epochs", type=int, default=5)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--json", required=True)
    return made


def training_row(
    options: argparse.Namespace, engine: str, ranks: int, epochs: list[tuple[float, float]], **more
) -> Row:
    """The row of a run from (seconds, mean loss) of its epochs: the first is warm-up, of the others the median."""
    rows = options.rows_per_rank * ranks
    step = float(np.median([seconds for seconds, _ in epochs[1:]])) / options.steps
    return {
        "engine": engine,
        "model": options.case,
        "ranks": ranks,
        "threads": options.threads,
        "rows_per_rank": options.rows_per_rank,
        "samples_per_second": rows / step,
        "step_us": step * 1e6,
        "time_us": step * 1e6,
        "min_us": min(seconds for seconds, _ in epochs[1:]) / options.steps * 1e6,
        "final_loss": epochs[-1][1],
        "wrong": 0,
        **more,
    }
