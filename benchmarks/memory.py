"""Does a run take as much memory as was predicted before its first step?

    ./run_local.sh bench memory --json FILE

Predicted is what ``--report-memory`` prints: ``lepton_mpi/run/memory_forecast.py``. Measured is the growth of the peak of resident memory
(VmHWM) over a process that has trained the same model on next to nothing, so that Python, libraries, kernels and MPI are there. Of a rank
what its host shares counts in full, as Linux counts resident memory; of the host it counts once. With ``validation`` a share of the
rows is evaluated after each epoch. The exit code is 1 if a case of 100 MiB or more is off by more than 5 %, or gives no result.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.engines.launches import case_options
from benchmarks.harness import Column, Launch, Row, command_line, measure, mpi_command

_MIB = 1 << 20
_SHARE_OFF_MAX, _CHECKED_BYTES = 0.05, 100 * _MIB
_COLUMNS = (
    Column("model", "model", 15),
    Column("rows_per_rank", "rows/rank", 9),
    Column("micro_rows", "micro", 5),
    Column("validation", "validation", 10, ".1f"),
    Column("allreduce", "allreduce", 9),
    Column("ranks", "ranks", 5),
    Column("predicted_mib", "rank: predicted", 15, ".1f"),
    Column("measured_mib", "measured", 8, ".1f"),
    Column("ratio", "ratio", 6, ".3f"),
    Column("predicted_host_mib", "host: predicted", 15, ".1f"),
    Column("measured_host_mib", "measured", 8, ".1f"),
    Column("ratio_host", "ratio", 6, ".3f"),
)


class Case(NamedTuple):
    """A model, rows of a rank and of a micro-batch, the share that is evaluated, and the way that gradients are summed."""

    model: str
    rows_per_rank: int
    micro_rows: int
    validation: float = 0.0
    allreduce: str = "auto"


CASES = (
    Case("mlp-784-128-10", 64, 64),
    Case("mlp-10m", 64, 64),
    Case("mlp-10m", 512, 64, 0.5),
    Case("resnet-20", 64, 64),
    Case("resnet-20", 600, 75, 0.5),
    Case("gpt-4x128", 8, 8),
    Case("gpt-4x128", 600, 100, 0.5),
    Case("gpt-6x384", 8, 2),
    Case("gpt-6x384", 8, 8),
    Case("gpt-6x384", 8, 8, 0.0, "mpi"),
    Case("wide-and-deep", 256, 256),
)


def main() -> int:
    """Measure, print and write; returns the exit code."""
    options = parse_command_line()
    launches = (
        _launch(case, ranks)
        for case in CASES
        if case.model in options.models
        for ranks in options.ranks
    )
    title = "memory of a run beside libraries and kernels, MiB"
    return measure(title, _COLUMNS, launches, find_problems, options.json, completed)


def parse_command_line() -> argparse.Namespace:
    """Options."""
    parser = command_line("memory", __doc__)
    models = list(dict.fromkeys(case.model for case in CASES))
    parser.add_argument("--models", nargs="+", choices=models, default=models)
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2], help="default: 1 2")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    if min(options.ranks) < 1:
        parser.error(f"--ranks: expected numbers of at least 1, got {min(options.ranks)}")
    return options


def _launch(case: Case, ranks: int) -> Launch:
    words = (
        *case_options(case.model, case.rows_per_rank, 2, 2),
        *("--micro-rows", str(case.micro_rows), "--validation", str(case.validation)),
        *("--allreduce", case.allreduce),
    )
    command = mpi_command(ranks, "-m", "benchmarks.engines.memory_ranks", *words)
    return Launch(f"{case.model} on {ranks} ranks", command)


def completed(row: Row) -> Row:
    """With ratios, measured over predicted, and MiB."""
    for name in ("predicted", "measured", "predicted_host", "measured_host"):
        row[f"{name}_mib"] = row[name] / _MIB
    row["ratio"] = row["measured"] / row["predicted"]
    row["ratio_host"] = row["measured_host"] / row["predicted_host"]
    return row


def find_problems(rows: Sequence[Row]) -> Iterator[str]:
    """One line for each prediction that is too far off."""
    for row in rows:
        for kind, of in (("", "a rank"), ("_host", "the host")):
            is_large = max(row[f"measured{kind}"], row[f"predicted{kind}"]) >= _CHECKED_BYTES
            if is_large and not abs(row[f"ratio{kind}"] - 1) <= _SHARE_OFF_MAX:
                yield (
                    f"{row['model']} on {row['ranks']} ranks, {of}: expected {row[f'predicted{kind}_mib']:.1f} MiB, got "
                    f"{row[f'measured{kind}_mib']:.1f}"
                )


if __name__ == "__main__":
    sys.exit(main())
