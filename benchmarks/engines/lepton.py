"""This engine's run of a case, through its own training loop: ``mpirun -n 2 python -m benchmarks.engines.lepton …``."""

import json
import tempfile
import time
from pathlib import Path

from lepton_mpi import launcher

# Of an epoch; a network of layers takes a hundred times as long as logistic regression.
_BARE_STEPS, _BARE_NETWORK_STEPS = 1_000, 100


def main() -> int:
    """Train, then measure the matrix products alone; rank 0 writes the row."""
    from benchmarks.engines.cases import parser

    made = parser(with_networks=True)
    made.add_argument("--allreduce", default="auto")
    made.add_argument(
        "--micro-rows", type=int, default=0, help="of a kernel call; 0: all of a rank"
    )
    options = made.parse_args()
    launcher.limit_threads(options.threads)
    from lepton_mpi.world import world

    return world.run(lambda ranks: _measure(ranks, options), 600)


def _measure(world, options) -> None:
    from benchmarks.engines.cases import CASES, training_row
    from benchmarks.engines.networks import NETWORKS
    from benchmarks.harness import write_rows

    case = CASES.get(options.case) or NETWORKS[options.case]
    rows = options.rows_per_rank * world.size
    # Of rank 0's process, and removed at its end.
    made = tempfile.TemporaryDirectory(prefix="lepton-training-") if world.rank == 0 else None
    folder = Path(world.comm.bcast(made and made.name))
    micro = options.micro_rows or options.rows_per_rank
    path = write_case(world, folder / "rows.h5", case, rows * options.steps)
    epochs, end, model = train_case(world, options, case, (rows, micro), path, options.epochs)
    if options.case in CASES:
        products = products_seconds(world, case, options.rows_per_rank)
    else:
        products = _products_of_layers(world, model, options.rows_per_rank, micro)
    bare = _bare_step_seconds(world, options, case, folder)
    if world.rank == 0:
        name = "lepton_mpi" if options.allreduce == "auto" else "lepton_mpi-mpi-allreduce"
        row = training_row(options, name, world.size, epochs)
        row |= {"products_us": products * 1e6, "of_limit": products * 1e6 / row["step_us"]}
        row |= {"python_us": bare * 1e6, "micro_rows": micro}
        # Reading rows, and waiting for them.
        row["input_share"] = end.get("time_split", {}).get("input")
        # Between hosts: how much of the exchange went on behind compute.
        row["hidden_share"] = end.get("hidden_share")
        write_rows(options.json, [row])
        made.cleanup()


def train_case(
    world, options, case, cut: tuple[int, int], path: Path, epochs: int, hooks=(), more=None
):
    """(seconds, mean loss) of every epoch, and what the end reports, on rank 0; nothing on the others. And the model.

    ``cut`` are the rows of a step and of a micro-batch, ``more`` options of the run.
    """
    from benchmarks.engines.cases import SEED
    from lepton_mpi import QuietHook
    from lepton_mpi.options.config import Config
    from lepton_mpi.run import fit

    models = []

    class Keep(QuietHook):
        def before_epoch(self, run) -> None:
            models[:] = [run.model]

    metrics = path.with_suffix(".jsonl")
    chosen = {
        **case.config,
        "data": str(path),
        "global_batch": cut[0],
        "micro_batch": cut[1],
        "epochs": epochs,
        "validation_split": 0.0,
        "test_split": 0.0,
        "seed": SEED,
        "allreduce": options.allreduce,
        "threads": options.threads,
        "metrics": str(metrics),
        "progress": "none",
    }
    fit.train(Config(**chosen | (more or {})), world, hooks=[Keep(), *hooks])
    if world.rank:
        return [], {}, *models
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    found = [(r["seconds"], r["loss"]) for r in records if r["event"] == "epoch"]
    return found, records[-1], *models


def _bare_step_seconds(world, options, case, folder: Path) -> float:
    """A step of as many layers with next to no arithmetic, on one row a rank, on rank 0.

    That is the interpreter, the calls of kernels, and the ranks' meeting.
    """
    from benchmarks.engines.networks import NETWORKS

    steps = _BARE_NETWORK_STEPS if options.case in NETWORKS else _BARE_STEPS
    path = write_case(world, folder / "bare.h5", case.bare, world.size * steps)
    epochs, _, _ = train_case(world, options, case.bare, (world.size, 1), path, 4)
    return min((seconds for seconds, _ in epochs[1:]), default=0.0) / steps


def write_case(world, path: Path, case, row_count: int) -> Path:
    """By rank 0; collective."""
    import h5py

    if world.rank == 0:
        with h5py.File(path, "w") as file:
            for name, array in case.arrays(row_count).items():
                file[name] = array
            for name, attributes in case.attributes.items():
                (file[name] if name else file).attrs.update(attributes)
    world.comm.Barrier()
    return path


def _products_of_layers(world, model, rows: int, micro_rows: int) -> float:
    """As ``products_seconds``, of a network of layers."""
    import numpy as np

    from benchmarks.engines.layer_products import seconds_of_products

    plan = model.plan(micro_rows, np.dtype(np.float32))
    return seconds_of_products(world, plan) * (rows / micro_rows)


def products_seconds(world, case, rows: int) -> float:
    """Seconds that the matrix products of one step take on all ranks at once, each on ``rows`` rows.

    By BLAS or by the engine's own kernels, whichever is faster.
    """
    import numpy as np

    ways = (_blas_calls(case, rows), _own_calls(case, rows))
    times: list[list[float]] = [[], []]
    for _ in range(7):
        for calls, list_ in zip(ways, times, strict=True):
            world.comm.Barrier()
            began, repeats = time.perf_counter(), 0
            while time.perf_counter() - began < 0.05:
                for kernel, arguments in calls:
                    kernel(*arguments)
                repeats += 1
            list_.append((time.perf_counter() - began) / repeats)
    # With more ranks than cores a rank has only a part of one, and so does the training.
    medians = world.comm.allgather([float(np.median(list_)) for list_ in times])
    return min(max(each) for each in zip(*medians, strict=True))


def _blas_calls(case, rows: int) -> list[tuple]:
    from benchmarks.engines import product_kernels as kernels

    if case.is_logistic:
        x, w, z = _matrix(rows, case.widths[0]), _matrix(case.widths[0]), _matrix(rows)
        return [(kernels.product_vector, (x, w, z)), (kernels.product_vector_left, (x, z, w))]
    calls = []
    for layer, (inputs, outputs) in enumerate(zip(case.widths[:-1], case.widths[1:], strict=True)):
        x, w, y = _matrix(rows, inputs), _matrix(inputs, outputs), _matrix(rows, outputs)
        calls += [(kernels.product, (x, w, y)), (kernels.product_left, (x, y, w))]
        if layer:
            calls.append((kernels.product_right, (y, w, x)))
    return calls


def _own_calls(case, rows: int) -> list[tuple]:
    """The same, with the kernels of the engine."""
    import numpy as np

    from benchmarks.engines import product_kernels as blas
    from lepton_mpi.kernels import product_kernels, row_kernels

    calls = []
    for kernel, arguments in _blas_calls(case, rows):
        if kernel is blas.product:
            x, w, y = arguments
            calls.append((product_kernels.product, (x, np.arange(rows), w, y)))
        elif kernel is blas.product_left:
            x, y, w = arguments
            calls.append((product_kernels.product_left, (x, np.arange(rows), y, w, 0, len(w))))
        elif kernel is blas.product_right:
            y, w, x = arguments
            size = product_kernels.right_scratch_size(rows, *w.shape[::-1])
            numbers, scratch = np.arange(max(rows, len(w))), np.empty(size, np.float32)
            calls.append((product_kernels.product_right, (y, numbers, w, scratch, x)))
        elif kernel is blas.product_vector:
            calls.append((row_kernels.dots, (arguments[0], np.arange(rows), *arguments[1:])))
        else:
            x, z, w = arguments
            calls.append((row_kernels.weighted_sum, (x, np.arange(rows), z, True, w)))
    return calls


def _matrix(*shape: int):
    import numpy as np

    return np.ones(shape, np.float32)


if __name__ == "__main__":
    raise SystemExit(main())
