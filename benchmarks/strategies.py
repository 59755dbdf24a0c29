"""Which strategy, which codec: the same tasks trained by each, on one host and over slow networks, beside ``sync``.

    ./run_local.sh bench strategies --json FILE --plot FILE.svg           scores, seconds, bytes; the last two as root
    ./run_local.sh bench strategies --straggler --json FILE               what is left of the speed beside a slow rank

A line for each way of training, on 4 ranks: of one host, and of 2 emulated hosts (emulated_hosts.py) with 2 ranks each, whose
links have the rate that is asked for. "score" is that of the test rows, "validation" that of the validation rows, by which settings are chosen; with ``--seeds`` they are
means of runs that differ by their seed. "below sync" is by how much the score is less, in points of accuracy or parts of the loss, of the same network;
"bytes/step" is what the busiest host's link has sent, by the kernel's counters, headers included, and "fewer" how many times
less than ``sync`` sends: a run of all epochs less one of a single epoch, so that neither start nor evaluation counts; with
``--compress-after`` less one of so many epochs that the warm-up is in it. "of run" is as "fewer", with the warm-up's steps counted.
The picture has validation loss over time and over bytes.

With ``--straggler`` every micro-batch takes a time of its own, asleep, on the job's last rank three times as long. "of ideal" is the
speed in rows, over the sum of what all ranks could do; "others" is that of a rank that is not slow until its own last step, over what it does
where none is. With ``--turns`` besides, the slow rank is another one in each step, drawn at random, which no share of the work can make up for.

The exit code is 1 if a way could not be trained, 4 if there can be no emulated hosts here and nothing else was asked for.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import mean

from benchmarks.emulated_hosts import EmulatedHosts
from benchmarks.engines.slow_rank import SECONDS
from benchmarks.harness import (
    Column,
    Launch,
    Row,
    command_line,
    machine,
    mpi_command,
    print_header,
    print_row,
    print_titles,
    run,
    write_rows,
)
from benchmarks.host_runs import HostsUnavailableError
from benchmarks.strategies_straggler import straggler

_RANKS_PER_HOST = (2, 2)
_RANKS = sum(_RANKS_PER_HOST)
_ONE_HOST = "one host"


@dataclass(frozen=True)
class Task:
    """What is trained: options, and which figure of the end is the score; the higher the better, unless ``is_loss``."""

    words: tuple[str, ...]
    epochs: int
    figure: str = "accuracy"
    is_loss: bool = False

    def score(self, record: Row, rows: str) -> float:
        """Of the "test" or "val" rows; the higher the better."""
        value = record[f"{rows}_{self.figure}"]
        return -value if self.is_loss else value


TASKS = {
    "digits": Task(("--recipe", "digits", "--schedule", "cosine", "--learning-rate", "0.01"), 30),
    "digits_resnet8": Task(("--recipe", "digits_resnet8"), 40),
    "gpt 2x64": Task(
        (
            *("--data", "python_topics", "--model", "gpt", "--layers", "2", "--width", "64"),
            *("--optimizer", "adam", "--learning-rate", "0.003", "--schedule", "cosine"),
            *("--global-batch", "16", "--context", "64"),
        ),
        4,
        "loss",
        is_loss=True,
    ),
}
# Codecs that leave out most of a gradient: a fifth of the steps or more without them, from which Adam's variance stays.
_WARM_UP = ("--compress-after", "150", "--freeze-variance-after", "150")
# Few meetings have no use for more momentum.
_OUTER = ("--across-epochs", "true", "--outer-rate", "1", "--outer-momentum", "0.3")
# By name: the options. H is short, since the tasks are: a few hundred steps.
WAYS: dict[str, tuple[str, ...]] = {
    "sync": (),
    "delayed": ("--strategy", "delayed"),
    "local, H = 4": ("--strategy", "local", "--sync-every", "4"),
    "local, H = 16": ("--strategy", "local", "--sync-every", "16"),
    "hierarchical, H = 8": ("--strategy", "hierarchical"),
    "diloco, H = 50": ("--strategy", "diloco", *_OUTER),
    "diloco, hosts, H = 20": (
        *("--strategy", "diloco", "--workers", "hosts", "--sync-every", "20"),
        *_OUTER,
    ),
    "diloco, hosts, H = 50": ("--strategy", "diloco", "--workers", "hosts", *_OUTER),
    "elastic, H = 4": ("--strategy", "elastic"),
    "bounded, S = 4": ("--strategy", "bounded"),
    "gossip, one_peer": ("--strategy", "gossip"),
    "gossip, asynchronous": ("--strategy", "gossip", "--asynchronous", "true"),
    "gossip, ring": ("--strategy", "gossip", "--topology", "ring"),
    "gossip, exponential": ("--strategy", "gossip", "--topology", "exponential"),
    "adasum": ("--strategy", "adasum"),
    **{f"sync, {codec}": ("--compress", codec) for codec in ("bf16", "int8", "int4", "powersgd:4")},
    **{
        f"sync, {codec}": ("--compress", codec, *_WARM_UP)
        for codec in ("sign", "topk:0.01", "randomk:0.1")
    },
}
# Beside those of WAYS, by task and way; chosen by "validation" (results/strategies_settings.txt), equal for all seeds.
OF_TASK: dict[tuple[str, str], tuple[str, ...]] = {
    **{
        ("gpt 2x64", f"sync, {codec}"): (
            "--compress-after",
            "800",
            "--freeze-variance-after",
            "800",
        )
        for codec in ("sign", "topk:0.01", "randomk:0.1", "powersgd:4")
    },
    **{
        ("gpt 2x64", f"diloco, hosts, H = {every}"): ("--outer-momentum", "0") for every in (20, 50)
    },
}
_COLUMNS = [
    Column("task", "task", 14),
    Column("network", "network", 9),
    Column("way", "way", 20),
    Column("validation", "validation", 10, ".4f"),
    Column("score", "score", 7, ".4f"),
    Column("below_sync", "below sync", 10, ".2%"),
    Column("seconds", "seconds", 8, ".2f"),
    Column("samples_per_second", "samples/s", 10, ".0f"),
    Column("waiting", "waiting", 7, ".2f"),
    Column("bytes_per_step", "bytes/step", 10, ".0f"),
    Column("fewer", "fewer", 6, ".1f"),
    Column("fewer_of_run", "of run", 6, ".1f"),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit code."""
    options = parse_command_line(arguments)
    try:
        if options.table:
            rows, lost = combine(options.table, options.rates), 0
        else:
            rows, lost = straggler(options, WAYS, _RANKS) if options.straggler else compare(options)
    except HostsUnavailableError as error:
        print(f"benchmarks.strategies: {error}")
        return 4
    except KeyboardInterrupt:
        return 130
    if options.json:
        write_rows(options.json, [machine() | row for row in rows])
    if options.plot:
        from benchmarks.strategies_picture import draw

        draw(rows, options.plot)
    return 1 if lost else 0


def parse_command_line(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options."""
    parser = command_line("strategies", __doc__)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS), metavar="WAY")
    rates_help = "of the links between 2 hosts, as tc writes them, and 0 for one host; default: 0 1gbit 100mbit"
    parser.add_argument("--rates", nargs="+", default=["0", "1gbit", "100mbit"], help=rates_help)
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="runs that a score is the mean of"
    )
    also_help = "ways that are given by their options, such as '--strategy local --sync-every 2'"
    parser.add_argument("--also", nargs="+", default=[], metavar="OPTIONS", help=also_help)
    parser.add_argument("--straggler", action="store_true", help="beside a slow rank, on one host")
    turns_help = "with --straggler: the slow rank is drawn anew in each step"
    parser.add_argument("--turns", action="store_true", help=turns_help)
    sleep_help = (
        "with --straggler: seconds of a micro-batch; longer where other programs want the cores"
    )
    parser.add_argument("--sleep", type=float, default=SECONDS, help=sleep_help)
    table_help = (
        "run nothing: print, write and draw the rows for --rates of files that --json has written"
    )
    parser.add_argument("--table", nargs="+", metavar="FILE", help=table_help)
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    parser.add_argument("--plot", metavar="FILE", help="draw loss over time and over bytes")
    return parser.parse_args(arguments)


def compare(options: argparse.Namespace) -> tuple[list[Row], int]:
    """Every task, network and way; the rows, and how many could not be trained."""
    print_header(f"training by each strategy and codec on {_RANKS} ranks", machine())
    print_titles(_COLUMNS)
    rows: list[Row] = []
    lost = 0
    for rate in options.rates:
        with ExitStack() as ends:
            hosts = None
            if rate != "0":
                hosts = ends.enter_context(EmulatedHosts(_RANKS_PER_HOST, rate))
            for name in options.tasks:
                for way in [*options.ways, *options.also]:
                    words = options_of(name, way)
                    if hosts is None and "--compress" in words:
                        continue  # nothing is compressed inside a host
                    row = train(name, way, hosts, rate, options.seeds)
                    lost += row is None
                    if row is not None:
                        rows.append(row | _beside_sync(row, rows))
                        print_row(_COLUMNS, rows[-1])
                    if options.json:  # a run that is ended early leaves what it has found
                        write_rows(options.json, [{**each, **machine()} for each in rows])
    return rows, lost


def options_of(name: str, way: str) -> tuple[str, ...]:
    """Of a way by its name, or by the options themselves."""
    words = WAYS[way] if way in WAYS else tuple(way.split())
    return (*words, *OF_TASK.get((name, way), ()))


def combine(files: Sequence[str], rates: Sequence[str]) -> list[Row]:
    """Print the rows of several files for these rates, each beside ``sync`` of its task and network; of like rows the last is taken."""
    networks = [_ONE_HOST if rate == "0" else rate for rate in rates]
    found: dict[tuple[str, str, str], Row] = {}
    for file in files:
        for row in json.loads(Path(file).read_text()):
            if row["network"] in networks:
                found[row["task"], row["network"], row["way"]] = row
    tasks, ways = list(TASKS), list(WAYS)

    def place(row: Row) -> tuple[int, str, int]:
        way = row["way"]
        return tasks.index(row["task"]), row["network"], ways.index(way) if way in ways else 99

    rows = sorted(found.values(), key=place)
    rows = [row | _beside_sync(row, rows) for row in rows]
    facts = {name: ", ".join(sorted({str(row[name]) for row in rows})) for name in machine()}
    print_header(f"training by each strategy and codec on {_RANKS} ranks", facts)
    print_titles(_COLUMNS)
    for row in rows:
        print_row(_COLUMNS, row)
    return rows


def train(
    name: str, way: str, hosts: EmulatedHosts | None, rate: str, seeds: int = 1
) -> Row | None:
    """A row of one way, or None after saying why there is none; all but the score is that of seed 0."""
    task, words = TASKS[name], options_of(name, way)
    whole = _run(task, words, hosts)
    if whole is None:
        return None
    end, epochs, sent = whole
    scores, validation = [task.score(end, "test")], [task.score(epochs[-1], "val")]
    for seed in range(1, seeds):
        other = _run(replace(task, words=(*task.words, "--seed", str(seed))), words, hosts)
        if other is None:
            return None
        scores.append(task.score(other[0], "test"))
        validation.append(task.score(other[1][-1], "val"))
    bytes_per_step = None
    steps = end["steps"]
    warm_up = _warm_up_steps(words)
    if hosts is not None:
        first = 1 + warm_up // (steps // task.epochs)
        short = _run(replace(task, epochs=first), words, hosts) if task.epochs > first else None
        before, steps_before = (short[2], short[0]["steps"]) if short else (0, 0)
        bytes_per_step = (sent - before) / (steps - steps_before)
    return {
        "task": name,
        "network": _ONE_HOST if hosts is None else rate,
        "way": way,
        "options": " ".join(words),
        "validation": mean(validation),
        "score": mean(scores),
        "validations": validation,
        "scores": scores,
        "seconds": end["seconds"],
        "samples_per_second": end["samples_per_second"],
        "waiting": end["time_split"]["waiting"] + end["time_split"]["communication"],
        "bytes_per_step": bytes_per_step,
        "curve": [[epoch["seconds"], epoch["val_loss"]] for epoch in epochs],
        "steps": steps,
        "warm_up_steps": warm_up,
    }


def _warm_up_steps(words: Sequence[str]) -> int:
    """Options that come later replace those before."""
    given = [int(b) for a, b in pairwise(words) if a == "--compress-after"]
    return given[-1] if given else 0


def _run(
    task: Task, options: Sequence[str], hosts: EmulatedHosts | None
) -> tuple[Row, list[Row], int] | None:
    """The end's record, those of epochs, and the bytes that the busiest host has sent."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder, "metrics.jsonl")
        words = ("-m", "benchmarks.engines.strategy_run", *task.words, *options)
        words += ("--epochs", str(task.epochs), "--progress", "none", "--metrics", str(metrics))
        command = mpi_command(_RANKS, *words)
        environment: dict[str, str] = {}
        before = [0]
        if hosts is not None:
            command = tuple(hosts.mpirun((sys.executable, *words)))
            environment = hosts.environment()
            before = hosts.bytes_sent()
        outcome = run(Launch(" ".join(options), command, environment))
        if outcome.problem:
            print(f"{' '.join(options)}: {outcome.problem}")
            return None
        after = hosts.bytes_sent() if hosts is not None else [0]
        records = [json.loads(line) for line in metrics.read_text().splitlines()]
    (end,) = outcome.rows
    epochs = [record for record in records if record["event"] == "epoch"]
    return end, epochs, max(b - a for a, b in zip(before, after, strict=True))


def _beside_sync(row: Row, rows: Sequence[Row]) -> Row:
    """How much worse the score is, of sync's, and how many times fewer bytes were sent."""
    like = [r for r in [*rows, row] if r["way"] == "sync" and r["task"] == row["task"]]
    # Its bits, and so its score, are the same on any network.
    like.sort(key=lambda r: r["network"] != row["network"])
    if not like:
        return {"below_sync": None, "fewer": None, "fewer_of_run": None, "warm_up_bytes": None}
    sent, of_sync = row["bytes_per_step"], None
    if like[0]["network"] == row["network"]:
        of_sync = like[0]["bytes_per_step"]
    found = {"below_sync": _below(row["score"], like[0]["score"]), "warm_up_bytes": of_sync}
    if not sent or not of_sync:
        return found | {"fewer": None, "fewer_of_run": None}
    warm_up, steps = row["warm_up_steps"], row["steps"]
    of_run = (warm_up * of_sync + (steps - warm_up) * sent) / steps
    return found | {"fewer": of_sync / sent, "fewer_of_run": of_sync / of_run}


def _below(score: float, of_sync: float) -> float:
    """Of an accuracy the difference, of a loss, which is negative, the part that it is higher."""
    return of_sync - score if of_sync > 0 else score / of_sync - 1


if __name__ == "__main__":
    raise SystemExit(main())
