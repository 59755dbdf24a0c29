"""How many samples a second does training take, beside torch, Keras and scikit-learn?

    ./run_local.sh bench training --peers --json FILE
    ./run_local.sh bench training --table FILE

Every engine trains the same model on the same rows in the same order from the same initial parameters with the same
optimizer, in fresh processes and in turn. The fully connected models have as many rows on every rank; the rows of networks of
layers are those of a step over all ranks, which share them. torch runs in one process and, on more ranks, as DistributedDataParallel over gloo; Keras
and scikit-learn have one process only. A row holds the median over launches of the median over epochs, the first
left out. "of limit" is the time of the step's matrix products alone, measured at the end of the same run, over
that of the step; "way" is the one of several that a peer found to be the fastest; "loss off" how far the final training loss is from that of torch on as many ranks, relatively.
The exit code is 1 if losses differ by more than 1 % or this engine could not be measured.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.engines.launches import PEERS, Peer, case_options, launches, set_up
from benchmarks.engines.networks import NETWORKS
from benchmarks.harness import (
    Column,
    Row,
    command_line,
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
    Column("way", "way", 22),
)
_LOSS_OFF_MAX = 0.01


@dataclass(frozen=True)
class Setting:
    """A model, the rows of a batch, and the steps of an epoch.

    Attributes
    ----------
    rows : int
        Of every rank, or of a step over all ranks, which share them, if they are ``in_all``.
    micro_rows : int
        Of a kernel call of this engine; 0: all of a rank.
    """

    model: str
    rows: int
    steps: int
    ranks: tuple[int, ...] = (1, 2, 8)
    in_all: bool = False
    micro_rows: int = 0

    def rows_of(self, ranks: int) -> int:
        """Of one of so many ranks."""
        return self.rows // ranks if self.in_all else self.rows

    @property
    def title(self) -> str:
        """Model and rows."""
        return f"{self.model}, {self.rows} rows" + " in all" * self.in_all


SETTINGS = (
    Setting("mlp-784-128-10", 64, 60),
    Setting("mlp-784-128-10", 256, 30),
    Setting("logistic-30", 64, 150),
    # Every process of torch holds all rows: 410 MB on 8 ranks.
    Setting("logistic-10000", 64, 20),
    Setting("mlp-10m", 64, 6, (1, 2)),
    Setting("resnet-20", 64, 6, in_all=True),
    # 12 rows, as others measure it, are no whole number on each of 8 ranks.
    Setting("gpt-4x128", 16, 20, in_all=True),
    Setting("gpt-6x384", 16, 2, in_all=True),
    Setting("wide-and-deep", 512, 50, in_all=True),
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
    parser = command_line("training", __doc__)
    models = sorted({setting.model for setting in SETTINGS})
    parser.add_argument("--models", nargs="+", choices=models, default=models)
    parser.add_argument("--ranks", nargs="+", type=int, help="default: 1 2 8, of mlp-10m 1 2")
    parser.add_argument(
        "--micro-rows",
        type=int,
        help="rows of a kernel call of this engine, for networks of layers; default: of gpt and wide-and-deep as in SETTINGS, of "
        "resnet-20 always those of a rank, since torch normalises over them",
    )
    peers_help = f"all, or some of: {', '.join(PEERS)}"
    parser.add_argument("--peers", nargs="*", choices=PEERS, metavar="ENGINE", help=peers_help)
    parser.add_argument("--launches", type=int, default=3, help="of each engine; default: 3")
    parser.add_argument("--epochs", type=int, default=5, help="of a launch; default: 5")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    parser.add_argument(
        "--table", metavar="FILE.json", help="print the rows as a table in Markdown"
    )
    options = parser.parse_args()
    if options.micro_rows is not None and options.micro_rows < 1:
        parser.error(f"--micro-rows: expected at least 1, got {options.micro_rows}")
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
    settings = chosen_settings(options.models, options.ranks, options.micro_rows)
    for setting in settings:
        measured = measure(setting, options, peers)
        for row in measured:
            print_row(_COLUMNS, row)
        rows += [{**row, **facts} for row in measured]
        if options.json:
            write_rows(options.json, rows)
    for line in ratio_lines(rows):
        print(line)
    problems = list(find_problems(settings, rows))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def chosen_settings(
    models: Sequence[str], ranks: Sequence[int] | None, micro_rows: int | None
) -> list[Setting]:
    """Those of the models, on the asked for ranks only."""
    found = []
    for setting in SETTINGS:
        if setting.model not in models:
            continue
        if ranks:
            setting = replace(setting, ranks=tuple(n for n in setting.ranks if n in ranks))
        network = NETWORKS.get(setting.model)
        if micro_rows and network and not network.mixes_rows:
            setting = replace(setting, micro_rows=micro_rows)
        if setting.ranks:
            found.append(setting)
    return found


def measure(setting: Setting, options: argparse.Namespace, peers: list[Peer]) -> list[Row]:
    """All engines on one setting, in turn."""
    measured: list[Row] = []
    for number in range(1, options.launches + 1):
        for ranks in setting.ranks:
            rows = setting.rows_of(ranks)
            case = case_options(setting.model, rows, setting.steps, options.epochs)
            micro_rows = min(setting.micro_rows, rows)
            for launch in launches(case, (ranks,), peers, micro_rows):
                measured += run_with_progress(launch, f"{setting.title}, launch {number}").rows
    rows = over_launches(measured, key=_entrant)
    for row in rows:
        row["rows_in_all"] = setting.rows if setting.in_all else None
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


def ratio_lines(rows: Sequence[Row]) -> Iterator[str]:
    """How many times as fast as torch this engine is where all ranks share a step's rows, a line for each model."""
    for model in dict.fromkeys(row["model"] for row in rows if row.get("rows_in_all")):
        rates = {
            (row["engine"], row["ranks"], row["threads"]): row["samples_per_second"]
            for row in rows
            if row["model"] == model and row.get("rows_in_all")
        }
        parts = []
        for ranks in sorted({key[1] for key in rates if key[0] == "lepton_mpi"}):
            mine = rates["lepton_mpi", ranks, 1]
            peers = {
                f"torch on {ranks} thread{'s' * (ranks > 1)}": ("torch", 1, ranks),
                f"DistributedDataParallel on {ranks} ranks": ("torch-ddp", ranks, 1),
            }
            parts += [
                f"{mine / rates[key]:.2f} x {name}" for name, key in peers.items() if key in rates
            ]
        if parts:
            yield f"{model}: lepton_mpi on as many ranks is {', '.join(parts)}"


def find_problems(settings: Sequence[Setting], rows: Sequence[Row]) -> Iterator[str]:
    """One line for each loss that is wrong, and for each setting on which this engine has no row."""
    for row in rows:
        # A loss that is no number fails this, too.
        if row["loss_off"] is not None and not row["loss_off"] <= _LOSS_OFF_MAX:
            yield (
                f"{row['model']}, {row['rows_per_rank']} rows: the final loss of {row['engine']} on {row['ranks']} ranks "
                f"is {row['final_loss']:.6f}, {row['loss_off']:.1e} from torch's"
            )
    measured = {
        (row["model"], row["rows_per_rank"], row["ranks"])
        for row in rows
        if row["engine"] == "lepton_mpi"
    }
    for setting in settings:
        for ranks in setting.ranks:
            if (setting.model, setting.rows_of(ranks), ranks) not in measured:
                yield f"{setting.title}: lepton_mpi could not be measured on {ranks} ranks"


if __name__ == "__main__":
    sys.exit(main())
