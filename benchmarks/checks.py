"""What do checks of a run cost, of its step: ``--check-every 500``, ``--on-nan skip`` and ``rollback``, and all together?

    ./run_local.sh bench checks --json FILE

The model is trained without checks and with each in turn, in one process a rank; every step is timed. "check us" is what one check of
``--check-every`` adds to the steps around it: the digests, two messages, and a micro-batch that is computed twice; "steps" how many steps of
the same run take as long, and "share" that divided by the steps between two checks. "slower" is what the other steps take longer than those
of the run without checks in the same turn, which a machine whose clock changes shows, too: the median over turns, the least and the most.
The look for numbers that are not finite behind ``--on-nan stop`` is a part of every run, and of "none".

The exit code is 1 if "share" is above 1 %.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

from benchmarks.harness import Column, Launch, Row, command_line, measure, mpi_command

_SHARE_MAX = 0.01
_COLUMNS = (
    Column("model", "model", 15),
    Column("rows_per_rank", "rows/rank", 9),
    Column("ranks", "ranks", 5),
    Column("way", "way", 15),
    Column("step_us", "step us", 9, ".1f"),
    Column("check_us", "check us", 9, ".1f"),
    Column("check_steps", "steps", 7, ".1f"),
    Column("share", "share", 7, ".2%"),
    Column("slower", "slower", 8, ".1%"),
    Column("slower_min", "least", 8, ".1%"),
    Column("slower_max", "most", 8, ".1%"),
)


def main() -> int:
    """Measure, print and write; returns the exit code."""
    options = parse_command_line()
    launches = (
        _launch(rows, ranks, options) for rows in options.rows_per_rank for ranks in options.ranks
    )
    title = "what checks add to a step"
    return measure(title, _COLUMNS, launches, find_problems, options.json)


def parse_command_line() -> argparse.Namespace:
    """Options."""
    parser = command_line("checks", __doc__)
    add = parser.add_argument
    add("--model", default="mlp-784-128-10", help="of benchmarks/training.py, fully connected")
    add("--rows-per-rank", nargs="+", type=int, default=[64, 256], help="default: 64 256")
    add("--ranks", nargs="+", type=int, default=[1, 2], help="default: 1 2")
    add("--every", type=int, default=500, help="steps between two checks; default: 500")
    add("--turns", type=int, default=7, help="default: 7")
    add("--epochs", type=int, default=9, help="of 1 000 steps, in each turn; default: 9")
    add("--json", metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    if min(*options.rows_per_rank, *options.ranks, options.turns) < 1:
        parser.error("--rows-per-rank, --ranks, --turns: expected numbers of at least 1")
    if options.every < 10 or options.epochs < 3:
        parser.error("--every, --epochs: expected at least 10 steps, and 3 epochs")
    return options


def _launch(rows_per_rank: int, ranks: int, options: argparse.Namespace) -> Launch:
    words = ("--case", options.model, "--rows-per-rank", str(rows_per_rank))
    words += ("--every", str(options.every), "--turns", str(options.turns))
    words += ("--epochs", str(options.epochs))
    command = mpi_command(ranks, "-m", "benchmarks.engines.checks_ranks", *words)
    return Launch(f"{rows_per_rank} rows on {ranks} ranks", command, limit_seconds=1200.0)


def find_problems(rows: Sequence[Row]) -> Iterator[str]:
    """One line for each row of ``--check-every`` that costs too much."""
    for row in rows:
        if not row["share"] <= _SHARE_MAX:
            yield (
                f"{row['model']}, {row['rows_per_rank']} rows, {row['ranks']} ranks: expected at most {_SHARE_MAX:.0%} of a step for "
                f"--check-every {row['every']}, got {row['share']:.2%}"
            )


if __name__ == "__main__":
    sys.exit(main())
