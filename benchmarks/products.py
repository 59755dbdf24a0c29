"""How fast are a layer's matrix products, beside BLAS and beside what the core can multiply?

    ./run_local.sh bench products

Forward is ``x @ w``, gradient ``x.T @ g``, backward ``g @ w.T``; the engine's are
``lepton_mpi/kernels/product_kernels.py``, BLAS is the one that Numba calls, SciPy's OpenBLAS, on one thread. GFLOP/s are of the median call of warm data, both in turn.
"""

import statistics
import sys
import time

import numpy as np
import threadpoolctl

from benchmarks.engines import product_kernels as blas
from benchmarks.harness import (
    Column,
    Row,
    command_line,
    machine,
    print_header,
    print_row,
    print_titles,
    write_rows,
)
from lepton_mpi.kernels import product_kernels

# Rows, inputs, outputs: the networks of benchmarks/training.py, and sizes around the blocks of the kernels.
SHAPES = (
    (8, 784, 128),
    (64, 784, 128),
    (256, 784, 128),
    (64, 128, 10),
    (64, 64, 128),
    (64, 784, 2400),
    (64, 2400, 2400),
    (64, 2400, 980),
    (256, 1024, 1000),
)
_COLUMNS = (
    Column("rows", "rows", 6),
    Column("inputs", "inputs", 6),
    Column("outputs", "outputs", 7),
    Column("product", "product", 9),
    Column("time_us", "us", 10, ".1f"),
    Column("gflops", "GFLOP/s", 8, ".1f"),
    Column("blas_gflops", "BLAS", 8, ".1f"),
    Column("ratio", "times BLAS", 10, ".2f"),
    Column("wrong", "#wrong", 6),
)


def main() -> int:
    """Measure, print and write; returns 1 if a product was wrong."""
    parser = command_line("products", __doc__)
    parser.add_argument("--seconds", type=float, default=0.2, help="for each product; default: 0.2")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    threadpoolctl.threadpool_limits(1)
    facts = machine()
    print_header("matrix products of a batch with a layer, float32", facts)
    print_titles(_COLUMNS)
    rows: list[Row] = []
    for shape in SHAPES:
        for row in measure(*shape, options.seconds):
            print_row(_COLUMNS, row)
            rows.append({**row, **facts})
    if options.json:
        write_rows(options.json, rows)
    return int(any(row["wrong"] for row in rows))


def measure(rows: int, inputs: int, outputs: int, seconds: float) -> list[Row]:
    """The three products of one shape."""
    generator = np.random.default_rng(0)
    # Whole numbers, whose sums of products are exact.
    x, w, g = (
        generator.integers(-8, 9, shape).astype(np.float32)
        for shape in ((rows, inputs), (inputs, outputs), (rows, outputs))
    )
    places, numbers = np.arange(rows), np.arange(max(rows, inputs))
    scratch = np.empty(product_kernels.right_scratch_size(rows, outputs, inputs), np.float32)
    cases = {
        "forward": (
            lambda out: product_kernels.product(x, places, w, out),
            lambda out: blas.product(x, w, out),
            x @ w,
        ),
        "gradient": (
            lambda out: product_kernels.product_left(x, places, g, out, 0, len(out)),
            lambda out: blas.product_left(x, g, out),
            x.T @ g,
        ),
        "backward": (
            lambda out: product_kernels.product_right(g, numbers, w, scratch, out),
            lambda out: blas.product_right(g, w, out),
            g @ w.T,
        ),
    }
    measured = []
    for name, (own, other, expected) in cases.items():
        out = np.full_like(expected, np.nan)
        times = _in_turn([own, other], out, seconds)
        own(out)
        operations = 2e-3 * rows * inputs * outputs
        measured.append(
            {
                "rows": rows,
                "inputs": inputs,
                "outputs": outputs,
                "product": name,
                "time_us": times[0],
                "gflops": operations / times[0],
                "blas_gflops": operations / times[1],
                "ratio": times[1] / times[0],
                "wrong": int(np.count_nonzero(out != expected)),
            }
        )
    return measured


def _in_turn(kernels: list, out: np.ndarray, seconds: float) -> list[float]:
    """Median microseconds of each, in rounds of ten calls."""
    times: list[list[float]] = [[] for _ in kernels]
    end = time.perf_counter() + seconds * len(kernels)
    while time.perf_counter() < end or len(times[0]) < 3:
        for kernel, list_ in zip(kernels, times, strict=True):
            kernel(out)
            began = time.perf_counter()
            for _ in range(10):
                kernel(out)
            list_.append((time.perf_counter() - began) / 10 * 1e6)
    return [statistics.median(each) for each in times]


if __name__ == "__main__":
    sys.exit(main())
