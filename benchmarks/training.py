"""How many samples a second does training take, beside torch in one process and its DistributedDataParallel?

    ./run_local.sh bench training --peers --json FILE

Every engine trains the same model on the same rows in the same order from the same initial parameters with Adam,
in fresh processes and in turn. A row holds the median over launches of the median over epochs, the first
left out. "of limit" is the time of the step's matrix products alone, measured at the end of the same run, over
that of the step; "loss off" how far the final training loss is from that of torch, relatively.
The exit code is 1 if losses differ by more than 1 % or this engine could not be measured.
"""

import argparse
import statistics
import sys
from dataclasses import dataclass

from benchmarks.harness import (
    Column,
    Launch,
    Row,
    machine,
    mpi_command,
    over_launches,
    print_header,
    print_row,
    print_titles,
    run_with_progress,
    write_rows,
)
from benchmarks.peers.environment import FOLDER, set_up

_COLUMNS = (
    Column("model", "model", 15),
    Column("rows_per_rank", "rows/rank", 9),
    Column("engine", "engine", 24),
    Column("ranks", "ranks", 5),
    Column("threads", "threads", 7),
    Column("samples_per_second", "samples/s", 10, ".0f"),
    Column("step_us", "step us", 10, ".1f"),
    Column("of_limit", "of limit", 8, ".2f"),
    Column("final_loss", "loss", 8, ".4f"),
    Column("loss_off", "loss off", 9, ".1e"),
)
_LOSS_OFF_MAX = 0.01


@dataclass(frozen=True)
class Setting:
    """A model, the rows of a rank's batch, and the steps of an epoch."""

    model: str
    rows_per_rank: int
    steps: int
    ranks: tuple[int, ...] = (1, 2, 8)


SETTINGS = (
    Setting("mlp-784-128-10", 64, 100),
    Setting("mlp-784-128-10", 256, 50),
    Setting("logistic-30", 64, 200),
    Setting("logistic-10000", 64, 50),
    Setting("mlp-10m", 64, 6, (1, 2)),
)


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    options = parse_command_line()
    try:
        return compare(options)
    except KeyboardInterrupt:
        return 130


def parse_command_line() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(prog="benchmarks.training", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    models = sorted({setting.model for setting in SETTINGS})
    parser.add_argument("--models", nargs="+", choices=models, default=models)
    parser.add_argument("--peers", action="store_true", help="torch, too")
    parser.add_argument("--launches", type=int, default=3, help="of each engine; default: 3")
    parser.add_argument("--epochs", type=int, default=5, help="of a launch; default: 5")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    return parser.parse_args()


def compare(options: argparse.Namespace) -> int:
    """Measure, print and write."""
    facts: dict[str, object] = dict(machine())
    if options.peers:
        version = set_up("gloo")
        facts["torch"] = version or "could not be set up"
        options.peers = version is not None
    print_header("training: samples per second, medians over launches", facts)
    print_titles(_COLUMNS)
    rows: list[Row] = []
    for setting in SETTINGS:
        if setting.model in options.models:
            measured = measure(setting, options)
            for row in measured:
                print_row(_COLUMNS, row)
            rows += [{**row, **facts} for row in measured]
            if options.json:
                write_rows(options.json, rows)
    off = [row["loss_off"] for row in rows if row.get("loss_off") is not None]
    lost = not any(row["engine"] == "lepton_mpi" for row in rows)
    if lost or max(off, default=0.0) > _LOSS_OFF_MAX:
        print(f"losses differ by {max(off, default=0.0):.1e}; this engine measured: {not lost}")
        return 1
    return 0


def measure(setting: Setting, options: argparse.Namespace) -> list[Row]:
    """All engines on one setting, in turn."""
    measured: list[Row] = []
    for number in range(1, options.launches + 1):
        title = f"{setting.model}, {setting.rows_per_rank} rows, launch {number}"
        for launch in launches(setting, options):
            measured += run_with_progress(launch, title).rows
    rows = over_launches(measured, key=lambda r: (r["engine"], r["ranks"], r["threads"]))
    for row in rows:
        row["step_us"] = row["time_us"]
        row["samples_per_second"] = row["rows_per_rank"] * row["ranks"] / row["step_us"] * 1e6
        same = [r for r in measured if _key(r) == _key(row)]
        fractions = [r["products_us"] / r["step_us"] for r in same if "products_us" in r]
        row["of_limit"] = statistics.median(fractions) if fractions else None
        torch = [
            r["final_loss"]
            for r in rows
            if r["engine"].startswith("torch") and r["ranks"] == row["ranks"]
        ]
        row["loss_off"] = abs(row["final_loss"] / torch[0] - 1) if torch else None
    return rows


def _key(row: Row) -> tuple:
    return row["engine"], row["ranks"], row["threads"]


def launches(setting: Setting, options: argparse.Namespace) -> list[Launch]:
    """One of each engine."""
    common = (
        *("--case", setting.model, "--rows-per-rank", str(setting.rows_per_rank)),
        *("--steps", str(setting.steps), "--epochs", str(options.epochs)),
    )
    made = []
    for ranks in setting.ranks:
        ways = ("auto",) if ranks == 1 else ("auto", "mpi")
        for allreduce in ways:
            words = ("-m", "benchmarks.engines.lepton", *common, "--allreduce", allreduce)
            made.append(Launch(f"lepton_mpi {allreduce} n={ranks}", mpi_command(ranks, *words)))
        if options.peers:
            threads = (1, 2) if ranks == 1 else (1,)
            made += [_torch(common, ranks, count) for count in threads]
    return made


def _torch(common: tuple[str, ...], ranks: int, threads: int) -> Launch:
    python = str(FOLDER / "bin" / "python")
    words = ("-m", "benchmarks.engines.torch_engine", *common, "--ranks", str(ranks))
    environment = {"OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": "lo"}
    command = (python, *words, "--threads", str(threads))
    return Launch(f"torch n={ranks} threads={threads}", command, environment)


if __name__ == "__main__":
    sys.exit(main())
