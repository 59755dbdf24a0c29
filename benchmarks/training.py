"""How many samples a second does training take, beside torch, Keras and scikit-learn?

    ./run_local.sh bench training --peers --json FILE
    ./run_local.sh bench training --table FILE

Every engine trains the same model on the same rows in the same order from the same initial parameters with Adam,
in fresh processes and in turn. torch runs in one process and, on more ranks, as DistributedDataParallel over gloo; Keras
and scikit-learn have one process only. A row holds the median over launches of the median over epochs, the first
left out. "of limit" is the time of the step's matrix products alone, measured at the end of the same run, over
that of the step; "loss off" how far the final training loss is from that of torch on as many ranks, relatively.
The exit code is 1 if losses differ by more than 1 % or this engine could not be measured.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.engines.launches import PEERS, Peer, case_options, launches, set_up
from benchmarks.harness import (
    Column,
    Row,
    machine,
    over_launches,
    print_header,
    print_row,
    print_titles,
    run_with_progress,
    write_rows,
)
from benchmarks.training_table import print_training_table

_COLUMNS = (
    Column("model", "model", 15),
    Column("rows_per_rank", "rows/rank", 9),
    Column("engine", "engine", 24),
    Column("ranks", "ranks", 5),
    Column("threads", "threads", 7),
    Column("samples_per_second", "samples/s", 10, ".0f"),
    Column("step_us", "step us", 10, ".1f"),
    Column("of_limit", "of limit", 8, ".2f"),
    Column("python_us", "python us", 9, ".1f"),
    Column("input_share", "input", 6, ".3f"),
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
    Setting("mlp-784-128-10", 64, 60),
    Setting("mlp-784-128-10", 256, 30),
    Setting("logistic-30", 64, 150),
    # Every process of torch holds all rows: 410 MB on 8 ranks.
    Setting("logistic-10000", 64, 20),
    Setting("mlp-10m", 64, 6, (1, 2)),
)


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    options = parse_command_line()
    if options.table:
        print_training_table(options.table)
        return 0
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
    peers_help = f"all, or some of: {', '.join(PEERS)}"
    parser.add_argument("--peers", nargs="*", choices=PEERS, metavar="ENGINE", help=peers_help)
    parser.add_argument("--launches", type=int, default=3, help="of each engine; default: 3")
    parser.add_argument("--epochs", type=int, default=5, help="of a launch; default: 5")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    parser.add_argument(
        "--table", metavar="FILE.json", help="print the rows as a table in Markdown"
    )
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error("--epochs: expected 2 or more, since the first is left out")
    options.peers = list(PEERS) if options.peers == [] else options.peers or []
    return options


def compare(options: argparse.Namespace) -> int:
    """Measure, print and write."""
    facts: dict[str, object] = dict(machine())
    versions = {name: set_up(PEERS[name]) for name in options.peers}
    facts |= {name: version or "could not be set up" for name, version in versions.items()}
    peers = [PEERS[name] for name, version in versions.items() if version]
    print_header("training: samples per second, medians over launches", facts)
    print_titles(_COLUMNS)
    rows: list[Row] = []
    settings = [setting for setting in SETTINGS if setting.model in options.models]
    for setting in settings:
        measured = measure(setting, options, peers)
        for row in measured:
            print_row(_COLUMNS, row)
        rows += [{**row, **facts} for row in measured]
        if options.json:
            write_rows(options.json, rows)
    problems = list(find_problems(settings, rows))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def measure(setting: Setting, options: argparse.Namespace, peers: list[Peer]) -> list[Row]:
    """All engines on one setting, in turn."""
    measured: list[Row] = []
    case = case_options(setting.model, setting.rows_per_rank, setting.steps, options.epochs)
    for number in range(1, options.launches + 1):
        title = f"{setting.model}, {setting.rows_per_rank} rows, launch {number}"
        for launch in launches(case, setting.ranks, peers):
            measured += run_with_progress(launch, title).rows
    rows = over_launches(measured, key=_entrant)
    for row in rows:
        row["step_us"] = row["time_us"]
        row["samples_per_second"] = row["rows_per_rank"] * row["ranks"] / row["step_us"] * 1e6
        same = [other for other in measured if _entrant(other) == _entrant(row)]
        fractions = [other["of_limit"] for other in same if "of_limit" in other]
        row["of_limit"] = statistics.median(fractions) if fractions else None
        row["loss_off"] = _loss_off(row, rows)
    return rows


def _entrant(row: Row) -> tuple:
    return row["engine"], row["ranks"], row["threads"]


def _loss_off(row: Row, rows: list[Row]) -> float | None:
    """How far the final loss is from that of torch on as many ranks, relatively; None without torch."""
    for other in rows:
        if other["engine"] in ("torch", "torch-ddp") and other["ranks"] == row["ranks"]:
            return abs(row["final_loss"] / other["final_loss"] - 1)
    return None


def find_problems(settings: list[Setting], rows: list[Row]) -> Iterator[str]:
    """One line for each loss that is wrong, and for each setting on which this engine has no row."""
    for row in rows:
        # A loss that is no number fails this, too.
        if row["loss_off"] is not None and not row["loss_off"] <= _LOSS_OFF_MAX:
            yield (
                f"{row['model']}, {row['rows_per_rank']} rows: the final loss of {row['engine']} on {row['ranks']} ranks "
                f"is {row['final_loss']:.6f}, {row['loss_off']:.1e} from torch's"
            )
    measured = {
        (row["model"], row["rows_per_rank"]) for row in rows if row["engine"] == "lepton_mpi"
    }
    for setting in settings:
        if (setting.model, setting.rows_per_rank) not in measured:
            yield f"{setting.model}, {setting.rows_per_rank} rows: lepton_mpi could not be measured"


if __name__ == "__main__":
    sys.exit(main())
