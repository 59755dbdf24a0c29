"""How fast is every collective on plain arrays, beside MPI's own and gloo? A table in nccl-tests' convention.

Without ranks, each library in fresh processes and in turn::

    ./run_local.sh bench collectives --ranks 2 4 8 --json FILE

``bytes`` is the length of the longer of the two buffers of a rank; all-reduce, reduce and broadcast are in place.
MPI's own is that of LEPTON_MPI, called by mpi4py. sendrecv is half of the way there and back between two ranks.
The exit code is 1 if a result was wrong, or lepton_mpi could not be measured.
"""

import argparse
import statistics
import sys

from benchmarks.harness import (
    Column,
    Launch,
    Row,
    command_line,
    machine,
    mpi_command,
    over_launches,
    print_header,
    print_row,
    print_titles,
    run_with_progress,
    write_rows,
)
from benchmarks.peers.collective_cases import VERBS
from benchmarks.peers.environment import TORCH, install
from lepton_mpi.options.kinds import parse_size

SIZES = ("8", "64", "1K", "4K", "16K", "64K", "256K", "1M", "4M", "16M", "64M")
LIBRARIES = ("lepton_mpi", "mpi", "gloo")
COLUMNS = (
    Column("ranks", "ranks", 5),
    Column("verb", "collective", 14),
    Column("bytes", "bytes", 10),
    Column("library", "library", 10),
    Column("min_us", "min us", 10, ".1f"),
    Column("time_us", "p50 us", 10, ".1f"),
    Column("p99_us", "p99 us", 10, ".1f"),
    Column("algbw_gbs", "algbw", 8, ".3f"),
    Column("busbw_gbs", "busbw", 8, ".3f"),
    Column("times_faster", "x", 8, ".2f"),
    Column("wrong", "#wrong", 6),
)
# What is asked of all-reduce, up to and above 16 MiB, and of the others, beside gloo; and of all beside MPI's own.
_ALL_REDUCE_GOALS, _OTHERS_GOAL, _MPI_GOAL = (5.0, 2.0), 2.0, 1.0
_LARGE_BYTES = 16 << 20


def main() -> int:
    """Measure, print and write all; returns the exit code."""
    options = _parse_command_line()
    libraries = list(options.libraries)
    if "gloo" in libraries and (problem := install(TORCH)):
        print(f"gloo left out: {problem}", file=sys.stderr)
        libraries.remove("gloo")
    facts = machine()
    print_header(
        "collectives side by side: time in us, bandwidth in GB/s (1e9 bytes), medians over launches; x: how many times as long "
        "lepton_mpi's takes another's",
        {**facts, "launches": options.launches},
    )
    print_titles(COLUMNS)
    rows: list[Row] = []
    for ranks in options.ranks:
        measured: list[Row] = []
        for number in range(1, options.launches + 1):
            for library in libraries:
                launch = _launch(library, ranks, options)
                title = f"{ranks} ranks, launch {number} of {options.launches}"
                measured += run_with_progress(launch, title, tries=1).rows
        found = _complete(measured)
        for row in found:
            print_row(COLUMNS, row)
        rows += [{**row, **facts} for row in found]
        if options.json:
            write_rows(options.json, rows)
    _print_goals(rows)
    wrong = sum(row["wrong"] for row in rows)
    ours = {row["ranks"] for row in rows if row["library"] == "lepton_mpi"}
    return int(wrong > 0 or ours != set(options.ranks))


def _launch(library: str, ranks: int, options: argparse.Namespace) -> Launch:
    asked = ("--verbs", *options.verbs, "--sizes", *map(str, options.sizes))
    asked += ("--seconds", str(options.seconds))
    if library == "gloo":
        program = (TORCH.python, "-W", "ignore", "-m", "benchmarks.peers.gloo_collectives")
        command = (*program, "--ranks", str(ranks), *asked)
        environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    else:
        program = ("-m", "benchmarks.peers.mpi_collectives", "--library", library)
        command, environment = mpi_command(ranks, *program, *asked), {}
    return Launch(library, command, environment, options.timeout)


def _complete(measured: list[Row]) -> list[Row]:
    """Medians over launches, by collective, size and library, with what follows from them."""
    rows = over_launches(measured, key=lambda row: (row["verb"], row["bytes"], row["library"]))
    ours = {
        (row["verb"], row["bytes"]): row["time_us"]
        for row in rows
        if row["library"] == "lepton_mpi"
    }
    for row in rows:
        row["algbw_gbs"] = row["bytes"] / row["time_us"] * 1e-3
        row["busbw_gbs"] = row["algbw_gbs"] * VERBS[row["verb"]](row["ranks"])
        if time_us := ours.get((row["verb"], row["bytes"])):
            row["times_faster"] = row["time_us"] / time_us
    verbs = list(VERBS)
    return sorted(
        rows,
        key=lambda row: (
            *(verbs.index(row["verb"]), row["bytes"]),
            LIBRARIES.index(row["library"]),
        ),
    )


def _goal(row: Row) -> float:
    if row["library"] == "mpi":
        return _MPI_GOAL
    if row["verb"] != "all_reduce":
        return _OTHERS_GOAL
    return _ALL_REDUCE_GOALS[row["bytes"] > _LARGE_BYTES]


def _print_goals(rows: list[Row]) -> None:
    """How often, and where not."""
    for library in LIBRARIES[1:]:
        theirs = [row for row in rows if row["library"] == library and "times_faster" in row]
        if not theirs:
            continue
        missed = [row for row in theirs if row["times_faster"] < _goal(row)]
        median = statistics.median(row["times_faster"] for row in theirs)
        print(
            f"beside {library}: {len(theirs) - len(missed)} of {len(theirs)} cases reach what is asked; median {median:.1f} times "
            "as fast"
        )
        for row in missed:
            print(
                f"  {row['ranks']} ranks, {row['verb']}, {row['bytes']} bytes: {row['times_faster']:.2f} of {_goal(row):g}"
            )


def _parse_command_line() -> argparse.Namespace:
    parser = command_line("collectives", __doc__)
    add = parser.add_argument
    add("--ranks", nargs="+", type=int, default=[2, 4, 8], metavar="N", help="default: 2 4 8")
    add("--verbs", nargs="+", choices=VERBS, default=list(VERBS), help="default: all")
    sizes_help = f"with K, M, G for powers of 1024; default: {' '.join(SIZES)}"
    add("--sizes", nargs="+", type=parse_size, metavar="BYTES", help=sizes_help)
    add("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES, help="default: all")
    add("--launches", type=int, default=3, help="fresh launches of each; default: 3")
    add("--seconds", type=float, default=0.1, help="time to measure one case; default: 0.1")
    add("--timeout", type=float, default=600, help="seconds after which a launch is ended")
    add("--json", metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    options.sizes = sorted(set(options.sizes or map(parse_size, SIZES)))
    return options


if __name__ == "__main__":
    raise SystemExit(main())
