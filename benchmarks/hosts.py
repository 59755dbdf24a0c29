"""How fast is an allreduce between hosts, and how far from what the wire allows? On emulated hosts, as root.

    ./run_local.sh bench hosts --hosts 2 --ranks-per-host 2 --rate 1gbit --json FILE

The hosts are network namespaces of this machine (emulated_hosts.py), the rate of their links is measured in the
same run (wire.py), and lepton_mpi and Open MPI's own Allreduce run over them in turn, in fresh processes.

    of wire = (2 (H-1)/H N / rate) / time       for H hosts: no allreduce sends less from its busiest host

An idle link passes a burst of 128 KiB at once, so the 4 MiB that are timed together at least (lepton_mpi/collectives/choosing/timing.py)
can come out 3 % above what the wire allows.
The exit code is 1 if a sum was wrong or a launch of lepton_mpi failed, 4 if there can be no emulated hosts here.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

from benchmarks.emulated_hosts import EmulatedHosts, add_host_options, hosts_from
from benchmarks.harness import (
    Column,
    Launch,
    Row,
    machine,
    over_launches,
    print_header,
    print_row,
    print_titles,
    run_with_progress,
    write_rows,
)
from benchmarks.host_runs import HostsUnavailableError
from benchmarks.wire import Wire, measure_wire
from lepton_mpi.options.kinds import parse_size
from lepton_mpi.wording import size_text

SIZES = ("1M", "4M", "16M", "64M")
_COLUMNS = (
    Column("bytes", "bytes", 10),
    Column("library", "library", 10),
    Column("algorithm", "algorithm", 24),
    Column("mode", "mode", 7),
    Column("tuned", "tuned", 5),
    Column("min_us", "min us", 10, ".0f"),
    Column("time_us", "p50 us", 10, ".0f"),
    Column("p99_us", "p99 us", 10, ".0f"),
    Column("algbw_gbs", "algbw", 7, ".4f"),
    Column("of_wire", "of wire", 7, ".3f"),
    Column("wrong", "#wrong", 6),
)

# Open MPI sums on each host first and between hosts then (coll/han). Other than its defaults are worth a try:
# larger and smaller pieces, and one flat algorithm over all ranks, as without that module.
_FLAT = {"OMPI_MCA_coll_han_priority": "0", "OMPI_MCA_coll_tuned_use_dynamic_rules": "1"}
TUNINGS: dict[str, dict[str, str]] = {
    "han 512K": {"OMPI_MCA_coll_han_allreduce_segsize": str(512 << 10)},
    "han 4M": {"OMPI_MCA_coll_han_allreduce_segsize": str(4 << 20)},
    "flat ring": {**_FLAT, "OMPI_MCA_coll_tuned_allreduce_algorithm": "4"},
    "flat segmented ring": {**_FLAT, "OMPI_MCA_coll_tuned_allreduce_algorithm": "5"},
    "flat rabenseifner": {**_FLAT, "OMPI_MCA_coll_tuned_allreduce_algorithm": "6"},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit code."""
    options, hosts = parse_command_line(arguments)
    try:
        with hosts:
            return compare(hosts, options)
    except HostsUnavailableError as error:
        print(f"benchmarks.hosts: {error}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        return 130


def parse_command_line(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, EmulatedHosts]:
    """Options, and the hosts that they describe, not yet made."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.hosts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_host_options(parser)
    parser.add_argument(
        "--sizes", nargs="+", type=parse_size, metavar="BYTES", help=f"default: {' '.join(SIZES)}"
    )
    parser.add_argument(
        "--algorithms",
        nargs="+",
        default=["auto"],
        metavar="NAME",
        help="lepton_mpi's; default: auto",
    )
    modes = ("shared", "private", "array")
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=modes,
        default=["shared", "array"],
        help="default: shared array",
    )
    parser.add_argument(
        "--launches", type=int, default=3, help="fresh launches of each; default: 3"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.3, help="to measure one case for; default: 0.3"
    )
    parser.add_argument(
        "--timeout", type=float, default=600, help="seconds after which a launch is ended"
    )
    parser.add_argument(
        "--tuned",
        action="store_true",
        help=f"Open MPI with other settings, too: {', '.join(TUNINGS)}",
    )
    parser.add_argument("--no-peer", action="store_true", help="lepton_mpi alone")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    options = parser.parse_args(arguments)
    options.sizes = sorted(set(options.sizes or map(parse_size, SIZES)))
    try:
        return options, hosts_from(options)
    except ValueError as error:
        parser.error(str(error))


def compare(hosts: EmulatedHosts, options: argparse.Namespace) -> int:
    """Measure, print and write everything; 1 if a sum was wrong or lepton_mpi failed, else 0."""
    wires: list[Wire] = []
    measured: list[Row] = []
    lost = 0
    for number in range(1, options.launches + 1):
        title = f"launch {number} of {options.launches}"
        wires.append(measure_wire(hosts))
        ours = run_with_progress(_lepton_launch(hosts, options), title)
        lost += ours.exit_code != 0
        measured += ours.rows
        for tuning in _tunings(options):
            outcome = run_with_progress(_open_mpi_launch(hosts, tuning, options), title)
            label = {
                "library": "openmpi",
                "algorithm": tuning,
                "mode": "array",
                "tuned": tuning != "default",
            }
            measured += [{**row, **label} for row in outcome.rows]
    rate = statistics.median(wire.gbit_s for wire in wires)
    rows = combine(measured, hosts.ranks_per_host, rate)
    _print(hosts, options, wires, rate, rows)
    if options.json:
        write_rows(options.json, [{**row, **machine(), "wire_tool": wires[0].tool} for row in rows])
    wrong = sum(row["wrong"] for row in rows)
    if wrong or lost:
        print(f"{wrong} wrong elements, {lost} launches of lepton_mpi failed")
    return 1 if wrong or lost else 0


def combine(
    measured: Sequence[Row], ranks_per_host: Sequence[int], rate_gbit_s: float
) -> list[Row]:
    """Medians over launches by size, with their fraction of the wire's lower bound."""
    rows = over_launches(
        measured, lambda row: (row["bytes"], row["library"], row["algorithm"], row["mode"])
    )
    place = {
        "ranks": sum(ranks_per_host),
        "hosts": len(ranks_per_host),
        "ranks_per_host": ranks_per_host[0]
        if len(set(ranks_per_host)) == 1
        else list(ranks_per_host),
        "rate_gbit_s": rate_gbit_s,
    }
    for row in rows:
        bound_us = wire_seconds(row["bytes"], len(ranks_per_host), rate_gbit_s) * 1e6
        algbw = row["bytes"] / row["time_us"] * 1e-3
        row |= {
            **place,
            "wire_us": bound_us,
            "of_wire": bound_us / row["time_us"],
            "algbw_gbs": algbw,
        }
    rows.sort(key=lambda row: (row["bytes"], row["library"], row["tuned"]))
    return rows


def wire_seconds(byte_count: int, host_count: int, rate_gbit_s: float) -> float:
    """The least time in which any allreduce of ``byte_count`` bytes can be done over links of that rate.

    >>> wire_seconds(125_000_000, 2, 1.0)
    1.0
    """
    return 2 * (host_count - 1) / host_count * byte_count * 8e-9 / rate_gbit_s


# -- launches ------------------------------------------------------------------------------------


def _lepton_launch(hosts: EmulatedHosts, options: argparse.Namespace) -> Launch:
    program = [sys.executable, "-m", "benchmarks.allreduce", "--seconds", str(options.seconds)]
    program += ["--timeout", str(options.timeout / 2), "--sizes", *map(str, options.sizes)]
    program += ["--modes", *options.modes, "--forms", "out_of_place"]
    program += ["--algorithms", *options.algorithms]
    return Launch("lepton_mpi", tuple(hosts.mpirun(program)), hosts.environment(), options.timeout)


def _open_mpi_launch(hosts: EmulatedHosts, tuning: str, options: argparse.Namespace) -> Launch:
    program = [sys.executable, "-m", "benchmarks.peers.mpi", "--seconds", str(options.seconds)]
    program += ["--cases", *(f"{size}:in_place" for size in options.sizes)]
    environment = hosts.environment() | TUNINGS.get(tuning, {})
    return Launch(f"openmpi {tuning}", tuple(hosts.mpirun(program)), environment, options.timeout)


def _tunings(options: argparse.Namespace) -> list[str]:
    return [] if options.no_peer else ["default", *(TUNINGS if options.tuned else ())]


# -- results -------------------------------------------------------------------------------------


def _print(
    hosts: EmulatedHosts,
    options: argparse.Namespace,
    wires: Sequence[Wire],
    rate: float,
    rows: Sequence[Row],
) -> None:
    facts = {
        **machine(),
        "hosts": f"{len(hosts.names)} emulated, with {', '.join(map(str, hosts.ranks_per_host))} ranks",
        "links": f"{hosts.rate or 'no limit'}, each direction",
        "wire": f"{rate:.3f} Gbit/s both ways at once, by {wires[0].tool}; "
        f"of each launch: {', '.join(f'{wire.gbit_s:.3f}' for wire in wires)}",
        "MPI": next((row["version"] for row in rows), "no result"),
        "launches": options.launches,
    }
    print_header(
        "allreduce between hosts: time in us, algbw in GB/s (1e9 bytes), medians over launches",
        facts,
    )
    print_titles(_COLUMNS)
    for row in rows:
        print_row(_COLUMNS, {**row, "tuned": "yes" if row["tuned"] else "no"})
    _print_ratios(rows)


def _print_ratios(rows: Sequence[Row]) -> None:
    """A line per size: how many times the time of Open MPI lepton_mpi's goes into."""
    for size in sorted({row["bytes"] for row in rows}):
        here = [row for row in rows if row["bytes"] == size]
        ours = [row["time_us"] for row in here if row["library"] == "lepton_mpi"]
        for name, tuned in (("as it comes", (False,)), ("at its best", (False, True))):
            theirs = [
                row["time_us"]
                for row in here
                if row["library"] == "openmpi" and row["tuned"] in tuned
            ]
            if ours and theirs and (len(tuned) == 1 or any(row["tuned"] for row in here)):
                ratio = min(theirs) / min(ours)
                print(f"{size_text(size):>8}: {ratio:.2f}x as fast as Open MPI's Allreduce {name}")


if __name__ == "__main__":
    raise SystemExit(main())
