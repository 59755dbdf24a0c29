"""How fast do gradients become new parameters: sum and update alone, beside the two ways that MPI offers?

    ./run_local.sh bench update --json FILE
    ./run_local.sh bench update --sizes 1e7 --tuned        also under the settings in peers/; takes long

Time is from "every rank's gradient is complete" to "every rank may read the new parameters".

    library      way              what happens
    lepton_mpi   shared           SharedParameters.step, as run/loop.py calls it: one copy of parameters and state a host
    lepton_mpi   allreduce        its fastest allreduce, and an update of all parameters on every rank
    an MPI       allreduce        MPI_Allreduce, and an update of all parameters on every rank
    an MPI       reduce_scatter   MPI_Reduce_scatter, update of the own slice, MPI_Allgather (ZeRO stage 1)

All of them update by the same kernel. "of limit" is the time that memory takes for the least traffic there can
be, (n + 2 + 2 s) N bytes for n ranks and s vectors of state, over that of the step; "x best MPI" how many times as
fast as the fastest way of the fastest MPI. README.md in this folder says more.
The exit code is 1 if parameters were wrong or lepton_mpi could not be measured.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
from benchmarks.peers.environment import set_up
from benchmarks.update_launches import LIBRARIES, is_ours, measure
from lepton_mpi.optimizers.registry import OPTIMIZERS
from lepton_mpi.options.config import Config

SIZES = ("1e4", "1e5", "1e6", "1e7", "1e8")
_COLUMNS = (
    Column("parameters", "parameters", 11),
    Column("optimizer", "optimizer", 9),
    Column("ranks", "ranks", 5),
    Column("library", "library", 10),
    Column("way", "way", 14),
    Column("form", "form", 8),
    Column("tuning", "setting", 22),
    Column("min_us", "min us", 11, ".1f"),
    Column("time_us", "p50 us", 11, ".1f"),
    Column("p99_us", "p99 us", 11, ".1f"),
    Column("of_limit", "of limit", 8, ".2f"),
    Column("ratio", "x best MPI", 10, ".2f"),
    Column("wrong", "#wrong", 6),
)


@dataclass(frozen=True)
class Goal:
    """The row of way "shared" at 10 million parameters has at least ``value`` under ``key``."""

    title: str
    key: str
    ranks: int
    value: float


_GOAL_PARAMETERS = 10_000_000
GOALS = (
    Goal("x best MPI", "ratio", 2, 3.0),
    Goal("x best MPI", "ratio", 8, 6.0),
    Goal("of limit", "of_limit", 2, 0.75),
)


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    options = parse_command_line()
    try:
        return compare(options)
    except KeyboardInterrupt:
        return 130


def parse_command_line() -> argparse.Namespace:
    """Options; ``sizes`` are numbers of parameters, ascending; ``peers`` names of libraries."""
    parser = command_line("update", __doc__)
    add = parser.add_argument
    sizes_help = f"numbers of parameters; default: {' '.join(SIZES)}"
    add("--sizes", nargs="+", type=_count, metavar="COUNT", help=sizes_help)
    add("--ranks", nargs="+", type=int, default=[2, 8], metavar="N", help="default: 2 8")
    add("--optimizer", choices=OPTIMIZERS.built_in, default="adam", help="default: adam")
    peers_help = f"MPIs to compare with, maybe none; default: {' '.join(LIBRARIES)}"
    add("--peers", nargs="*", choices=LIBRARIES, metavar="LIBRARY", help=peers_help)
    add("--tuned", action="store_true", help="MPIs also under the settings in peers/")
    add("--launches", type=int, default=3, help="fresh launches of each; default: 3")
    add("--seconds", type=float, default=0.3, help="time to measure one case; default: 0.3")
    add("--timeout", type=float, default=300, help="seconds after which a step counts as hung")
    bucket_help = f"default: {Config.bucket_bytes}, as in training"
    add("--bucket-bytes", type=int, default=Config.bucket_bytes, help=bucket_help)
    add("--json", metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    options.sizes = sorted(set(options.sizes or map(_count, SIZES)))
    options.peers = LIBRARIES if options.peers is None else options.peers
    return options


def compare(options: argparse.Namespace) -> int:
    """Measure, print and write all; 1 if parameters were wrong or lepton_mpi could not be measured."""
    versions = {library: version for library in options.peers if (version := set_up(library))}
    facts = machine()
    our_mpi = os.environ.get("LEPTON_MPI", "openmpi")
    print_header(
        "sum of gradients and update of parameters: medians over launches",
        {**facts, "launches": options.launches, "lepton_mpi on": our_mpi, **versions},
    )
    print_titles(_COLUMNS)
    rows: list[Row] = []
    for ranks in options.ranks:
        at_ranks = measure(ranks, list(versions), facts["cores"], options)
        for row in at_ranks:
            print_row(_COLUMNS, row)
        rows += [{**row, **facts} for row in at_ranks]
        if options.json:
            write_rows(options.json, rows)
    print_goals(rows)
    return _verdict(rows, options)


def print_goals(rows: Sequence[Row]) -> None:
    """A line per goal that was measured."""
    for goal, row in _measured_goals(rows):
        verdict = "met" if row[goal.key] >= goal.value else "NOT MET"
        where = f"{goal.ranks} ranks, {_GOAL_PARAMETERS} parameters"
        print(f"{verdict:<8} {goal.title} >= {goal.value:g}, {where}: {row[goal.key]:.2f}")


def _measured_goals(rows: Sequence[Row]) -> Iterator[tuple[Goal, Row]]:
    for goal in GOALS:
        for row in rows:
            case = row["way"], row["ranks"], row["parameters"]
            if case == ("shared", goal.ranks, _GOAL_PARAMETERS) and row[goal.key] is not None:
                yield goal, row


def _verdict(rows: Sequence[Row], options: argparse.Namespace) -> int:
    wrong = sum(row["wrong"] for row in rows)
    if wrong:
        print(f"{wrong} wrong parameters; see the column #wrong")
    measured = {row["ranks"] for row in rows if is_ours(row)}
    for ranks in set(options.ranks) - measured:
        print(f"lepton_mpi on {ranks} ranks could not be measured")
    return int(wrong > 0 or measured != set(options.ranks))


def _count(text: str) -> int:
    count = float(text)
    if count < 1 or count != int(count):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(count)


if __name__ == "__main__":
    raise SystemExit(main())
