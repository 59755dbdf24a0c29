"""How fast is each layer, forward and backward, beside torch's, on one core?

    ./run_local.sh bench layers --json FILE
    ./run_local.sh bench layers --layers 'Conv2d 3x3 16' LayerNorm

Each engine runs in fresh processes, in turn: this one's layers on their own, and torch's modules on one thread, eager, of images
in the faster of both layouts (``way``). Times are medians over launches of the median call; the backward pass makes the gradients by the
input and by all parameters. GFLOP/s are of the products of both passes. "x torch" is torch's time over this engine's.
``diff.`` is the largest difference of what both compute, over the largest number of that array; the exit code is 1 if one is
above 1e-4, or if a layer could not be measured.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.engines.layer_cases import CASES, LayerCase, chosen
from benchmarks.harness import (
    Column,
    Launch,
    Row,
    command_line,
    machine,
    print_header,
    print_row,
    print_titles,
    run_with_progress,
    write_rows,
)
from benchmarks.peers.environment import SET_UP_LIMIT_SECONDS, TORCH, try_out

_COLUMNS = (
    Column("layer", "layer", 24),
    Column("shape", "shape", 14),
    Column("forward_us", "forward us", 10, ".1f"),
    Column("backward_us", "backward us", 11, ".1f"),
    Column("torch_forward_us", "torch's", 9, ".1f"),
    Column("torch_backward_us", "torch's", 9, ".1f"),
    Column("forward_ratio", "x torch", 7, ".2f"),
    Column("backward_ratio", "x torch", 7, ".2f"),
    Column("gflops", "GFLOP/s", 7, ".1f"),
    Column("torch_gflops", "torch's", 7, ".1f"),
    Column("difference", "diff.", 8, ".1e"),
    Column("way", "way", 14),
)
_DIFFERENCE_MAX = 1e-4
# Of the share of zeros, where both draw random numbers of their own.
_SHARE_MAX = 0.01
_ENGINES = {
    "lepton_mpi": "benchmarks.engines.layer_lepton",
    "torch": "benchmarks.engines.layer_torch",
}

Values = Mapping[str, np.ndarray]


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    options = parse_command_line()
    try:
        return compare(options)
    except KeyboardInterrupt:
        return 130


def parse_command_line() -> argparse.Namespace:
    """Options."""
    parser = command_line("layers", __doc__)
    names = [case.name for case in CASES]
    parser.add_argument(
        "--layers", nargs="+", choices=names, default=names, metavar="LAYER", help=", ".join(names)
    )
    parser.add_argument("--launches", type=int, default=3, help="of each engine; default: 3")
    parser.add_argument("--seconds", type=float, default=0.2, help="of each pass; default: 0.2")
    parser.add_argument("--alone", action="store_true", help="without torch, and without a check")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    if options.launches < 1:
        parser.error(f"--launches: expected at least 1, got {options.launches}")
    return options


def compare(options: argparse.Namespace) -> int:
    """Measure, print and write."""
    facts: dict[str, object] = dict(machine())
    engines = ["lepton_mpi"]
    with tempfile.TemporaryDirectory(prefix="lepton-layers-") as folder:
        if not options.alone:
            trial = _launch("torch", ["LayerNorm"], 0.01, Path(folder, "trial.npz"))
            version = try_out("torch", TORCH, trial)
            facts["torch"] = version or "could not be set up"
            engines += ["torch"] if version else []
        print_header("layers: microseconds on one core, medians over launches", facts)
        measured: list[Row] = []
        values: dict[str, Values] = {}
        for number in range(1, options.launches + 1):
            for engine in engines:
                path = Path(folder, f"{engine}.npz")
                launch = _launch(engine, options.layers, options.seconds, path)
                measured += run_with_progress(launch, f"launch {number}").rows
                if engine not in values and path.exists():
                    with np.load(path) as stored:
                        values[engine] = dict(stored)
    rows = list(joined_rows(chosen(options.layers), measured, values))
    print_titles(_COLUMNS)
    for row in rows:
        print_row(_COLUMNS, row)
    if options.json:
        write_rows(options.json, [{**row, **facts} for row in rows])
    problems = list(find_problems(chosen(options.layers), rows, engines))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def _launch(engine: str, layers: Sequence[str], seconds: float, values: Path) -> Launch:
    python = sys.executable if engine == "lepton_mpi" else TORCH.python
    words = ("-m", _ENGINES[engine], "--values", str(values), "--seconds", str(seconds))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    command = (python, *words, "--layers", *layers)
    return Launch(engine, command, dict.fromkeys(names, "1"), SET_UP_LIMIT_SECONDS)


def joined_rows(
    cases: Sequence[LayerCase], measured: Sequence[Row], values: Mapping[str, Values]
) -> Iterator[Row]:
    """A row for each layer that this engine has measured, with torch's times beside its own."""
    for case in cases:
        own, other = (
            _median_row([r for r in measured if (r["layer"], r["engine"]) == (case.name, engine)])
            for engine in _ENGINES
        )
        if not own:
            continue
        row = {
            name: own[name] for name in ("layer", "shape", "forward_us", "backward_us", "gflops")
        }
        if other:
            row |= {
                f"torch_{name}": other[name] for name in ("forward_us", "backward_us", "gflops")
            }
            row |= {"way": other.get("way"), "launches": own["launches"]}
            for name in ("forward", "backward"):
                if own[f"{name}_us"]:
                    row[f"{name}_ratio"] = other[f"{name}_us"] / own[f"{name}_us"]
        if len(values) == len(_ENGINES):
            row["difference"] = difference(case, *(values[engine] for engine in _ENGINES))
        yield row


def _median_row(rows: Sequence[Row]) -> Row:
    """Of several launches; empty without any."""
    if not rows:
        return {}
    found = dict(rows[0], launches=len(rows))
    for name in ("forward_us", "backward_us", "gflops"):
        if rows[0][name] is not None:
            found[name] = statistics.median(row[name] for row in rows)
    return found


def difference(case: LayerCase, own: Values, other: Values) -> float:
    """Largest over the arrays of a layer: of elements, relatively to the largest; of random ones the shares of zeros.

    Infinite if there are none, or of different lengths.
    """
    found = [
        np.inf if own.get(name) is None or own[name].shape != array.shape
        else _of_arrays(own[name], array, case.is_random)
        for name, array in other.items()
        if name.split("|")[0] == case.name
    ]  # fmt: skip
    return float(max(found, default=np.inf))


def _of_arrays(own: np.ndarray, other: np.ndarray, is_random: bool) -> float:
    if is_random:
        share = abs(np.mean(own == 0) - np.mean(other == 0)) * _DIFFERENCE_MAX / _SHARE_MAX
        return float(share)
    # NaN stays, and is no number below any limit.
    return float(np.max(np.abs(own - other)) / max(1e-30, np.max(np.abs(other))))


def find_problems(
    cases: Sequence[LayerCase], rows: Sequence[Row], engines: Sequence[str]
) -> Iterator[str]:
    """One line for each layer that has no time, or another result."""
    found = {row["layer"]: row for row in rows}
    for case in cases:
        row = found.get(case.name)
        if row is None:
            yield f"{case.name}: lepton_mpi could not be measured"
        elif "torch" in engines and not row.get("difference", np.inf) <= _DIFFERENCE_MAX:
            far = row.get("difference")
            said = "no values of both" if far is None else f"{far:.1e} from torch's"
            yield f"{case.name}: expected values within {_DIFFERENCE_MAX:g} of torch's, got {said}"


if __name__ == "__main__":
    sys.exit(main())
