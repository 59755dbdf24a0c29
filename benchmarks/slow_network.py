"""Training over a slow network: what a codec makes of the step of a large model, and ``diloco`` of the samples a second.

    ./run_local.sh bench slow_network --json FILE               as root; both parts, on 2 emulated hosts of 2 ranks at 100 Mbit/s
    ./run_local.sh bench slow_network --parts steps --ways sync "sync, int8" --delay 20
    ./run_local.sh bench slow_network --parts overlap --delay 20

``steps``: an MLP of 10 million parameters, 64 rows a rank, each codec in turn, some launches. "step" is the median over epochs after the
first, with all that an epoch's last step still has to send; "faster" is how many times less than that of ``sync`` as it is.
"bytes" are those that the kernel counts at the interface of the host that sends most, in a step, headers included, and "counted"
what the strategy says that a host has sent, by the formulas of the codecs; "off" is how far the first is from the second.

``training``: 153 600 rows of a task that a random network makes, 4 epochs, by ``sync`` and by ``diloco`` that meets every 50 steps: the same
columns over all epochs, and the accuracy on 48 000 test rows. "below sync" is by how much less it is.

``overlap``: steps of 64 rows of the same network, and ``diloco`` that meets every 20 of them, so that a meeting takes about as long as the steps
between two; without and with ``--overlap-steps``. "hidden" is the part of the exchange that steps have hidden, as the line ``time`` says it.

Hosts share this machine's cores; a codec's share of a step is that of two hosts on the cores of one.
The exit code is 1 if a way could not be run, and 4 if there can be no emulated hosts here.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from benchmarks.emulated_hosts import EmulatedHosts
from benchmarks.harness import (
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

_RANKS_PER_HOST = (2, 2)
_HOSTS = len(_RANKS_PER_HOST)
_CASE, _ROWS, _EPOCHS = "mlp-10m", 64, 3
# Steps of an epoch: the end of each is some kilobytes, which are little beside what the steps of a strong codec send.
_EPOCH_STEPS, _EPOCH_STEPS_LONG = 24, 6
_LONG = ("sync", "sync, bf16")

CODECS = ("bf16", "int8", "int4", "sign", "topk:0.01", "randomk:0.01", "powersgd:2", "auto")
STEPS: dict[str, tuple[str, ...]] = {
    "sync": (),
    **{f"sync, {codec}": ("--compress", codec) for codec in CODECS},
}
_DILOCO = ("--strategy", "diloco", "--sync-every", "50")
TRAINING: dict[str, tuple[str, ...]] = {
    "sync": (),
    "diloco, ranks": _DILOCO,
    "diloco, hosts": (*_DILOCO, "--workers", "hosts"),
    "diloco, 3 fragments": (*_DILOCO, "--fragments", "3"),
    "diloco, ranks, int8": (*_DILOCO, "--compress", "int8"),
}
_TRAINED = (
    *("--model", "mlp", "--hidden", "512", "512", "--global-batch", "256", "--epochs", "4"),
    *("--optimizer", "adam", "--learning-rate", "0.001", "--schedule", "cosine"),
)
_OFTEN = ("--strategy", "diloco", "--sync-every", "20", "--across-epochs", "true")
OVERLAP: dict[str, tuple[str, ...]] = {
    "waits, hosts": (*_OFTEN, "--workers", "hosts"),
    "overlaps 10, hosts": (*_OFTEN, "--workers", "hosts", "--overlap-steps", "10"),
    "overlaps 19, hosts": (*_OFTEN, "--workers", "hosts", "--overlap-steps", "19"),
    "waits, ranks": _OFTEN,
    "overlaps 19, ranks": (*_OFTEN, "--overlap-steps", "19"),
}
_OVERLAP_ROWS = 60_000
_OVERLAPPED = (
    *("--model", "mlp", "--hidden", "512", "512", "--global-batch", "64", "--epochs", "2"),
    *("--optimizer", "adam", "--learning-rate", "0.001", "--schedule", "cosine"),
)
_TASK_ROWS, _FEATURES, _CLASSES = 240_000, 64, 10
_COLUMNS = [
    Column("way", "way", 20),
    Column("step_seconds", "step (s)", 9, ".4f"),
    Column("faster", "faster", 7, ".1f"),
    Column("bytes_per_step", "bytes", 11, ".0f"),
    Column("counted", "counted", 11, ".0f"),
    Column("off", "off", 7, ".4f"),
    Column("fewer", "fewer", 7, ".1f"),
]
_TRAINING_COLUMNS = [
    *(Column("way", "way", 20), Column("samples_per_second", "samples/s", 10, ".0f")),
    *(Column("faster", "faster", 7, ".1f"), Column("bytes_per_step", "bytes", 11, ".0f")),
    *(Column("fewer", "fewer", 7, ".1f"), Column("score", "accuracy", 8, ".4f")),
    Column("below_sync", "below sync", 10, ".4f"),
]
_OVERLAP_COLUMNS = [
    *(Column("way", "way", 20), Column("samples_per_second", "samples/s", 10, ".0f")),
    *(Column("faster", "faster", 7, ".2f"), Column("hidden_share", "hidden", 7, ".2f")),
    Column("score", "accuracy", 8, ".4f"),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit code."""
    options = parse_command_line(arguments)
    parts = {
        "steps": compare_steps,
        "training": compare_training,
        "overlap": compare_overlap,
    }
    rows: list[Row] = []
    lost = 0
    try:
        with EmulatedHosts(_RANKS_PER_HOST, options.rate, delay_ms=options.delay) as hosts:
            for part in options.parts:
                delay = f", {options.delay:g} ms" * (options.delay > 0)
                print_header(
                    f"{part} on {_HOSTS} hosts of 2 ranks at {options.rate}{delay}", machine()
                )
                found, missing = parts[part](options, hosts)
                common = {
                    "part": part,
                    "rate": options.rate,
                    "delay_ms": options.delay,
                    **machine(),
                }
                rows += [{**row, **common} for row in found]
                lost += missing
                if options.json:
                    write_rows(options.json, rows)
    except HostsUnavailableError as error:
        print(f"benchmarks.slow_network: {error}")
        return 4
    except KeyboardInterrupt:
        return 130
    return 1 if lost else 0


def parse_command_line(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options."""
    parser = command_line("slow_network", __doc__)
    ways = list(dict.fromkeys([*STEPS, *TRAINING, *OVERLAP]))
    parts = ("steps", "training", "overlap")
    parser.add_argument("--parts", nargs="+", choices=parts, metavar="PART")
    parser.add_argument("--ways", nargs="+", choices=ways, default=ways, metavar="WAY")
    parser.add_argument("--rate", default="100mbit", help="of each link, as tc writes it")
    parser.add_argument("--delay", type=float, default=0.0, help="milliseconds to another host")
    parser.add_argument("--launches", type=int, default=2, help="of each way of steps, in turn")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    parser.set_defaults(parts=["steps", "training"])
    return parser.parse_args(arguments)


def compare_steps(options: argparse.Namespace, hosts: EmulatedHosts) -> tuple[list[Row], int]:
    """A row of each codec, and how many could not be run."""
    case = ("--case", _CASE, "--rows", str(_ROWS), "--epochs", str(_EPOCHS), "--optimizer", "adam")
    ways = [way for way in STEPS if way in options.ways]
    ends: dict[str, list[Row]] = {way: [] for way in ways}
    lost = 0
    for _ in range(options.launches):
        for way in ways:
            steps = ("--epoch-steps", str(steps_of(way)))
            end = _run(hosts, way, (*case, *steps, *STEPS[way]))
            ends[way] += [end] if end else []
            lost += end is None
    print_titles(_COLUMNS)
    rows: list[Row] = []
    for way in ways:
        if ends[way]:
            row = _steps_row(way, ends[way])
            rows.append(row | beside_sync(row, rows))
            print_row(_COLUMNS, rows[-1])
    return rows, lost


def steps_of(way: str) -> int:
    """Of an epoch."""
    return _EPOCH_STEPS_LONG if way in _LONG else _EPOCH_STEPS


def _steps_row(way: str, ends: Sequence[Row]) -> Row:
    """From the ends of its launches: their first epochs are warm-up."""
    seconds = [each for end in ends for each in end["epoch_seconds"][1:]]
    sent = [each for end in ends for each in end["epoch_bytes"][1:]]
    of_all = ends[0].get("sent_bytes_per_step")
    counted = None if of_all is None else of_all / _HOSTS
    if counted is None:
        counted = 2 * (_HOSTS - 1) / _HOSTS * ends[0]["parameter_bytes"]
    measured = statistics.median(sent) / steps_of(way)
    return {
        "way": way,
        "step_seconds": statistics.median(seconds) / steps_of(way),
        "bytes_per_step": measured,
        "counted": counted,
        "off": measured / counted - 1,
        "losses": ends[0]["epoch_losses"],
        "time_split": ends[0]["time_split"],
        "hidden_share": ends[0]["hidden_share"],
        "epoch_seconds": [end["epoch_seconds"] for end in ends],
    }


def compare_training(options: argparse.Namespace, hosts: EmulatedHosts) -> tuple[list[Row], int]:
    """A row of each way, and how many could not be run."""
    rows: list[Row] = []
    lost = 0
    print_titles(_TRAINING_COLUMNS)
    with tempfile.TemporaryDirectory(prefix="lepton-slow-") as folder:
        data = Path(folder, "rows.h5")
        write_task(data, _TASK_ROWS)
        for way in [way for way in TRAINING if way in options.ways]:
            end = _run(hosts, way, ("--data", str(data), *_TRAINED, *TRAINING[way]))
            lost += end is None
            if end is not None:
                row = _training_row(way, end)
                rows.append(row | beside_sync(row, rows))
                print_row(_TRAINING_COLUMNS, rows[-1])
    return rows, lost


def compare_overlap(options: argparse.Namespace, hosts: EmulatedHosts) -> tuple[list[Row], int]:
    """A row of each way, beside the one that waits, and how many could not be run."""
    rows: list[Row] = []
    lost = 0
    print_titles(_OVERLAP_COLUMNS)
    with tempfile.TemporaryDirectory(prefix="lepton-slow-") as folder:
        data = Path(folder, "rows.h5")
        write_task(data, _OVERLAP_ROWS)
        for way in [way for way in OVERLAP if way in options.ways]:
            end = _run(hosts, way, ("--data", str(data), *_OVERLAPPED, *OVERLAP[way]))
            lost += end is None
            if end is not None:
                row = _training_row(way, end, _OVERLAP_ROWS)
                of = f"waits, {way.rpartition(' ')[2]}"
                waits = next((each for each in [*rows, row] if each["way"] == of), row)
                faster = waits["step_seconds"] / row["step_seconds"]
                rows.append(row | {"faster": faster, "hidden_share": end.get("hidden_share")})
                print_row(_OVERLAP_COLUMNS, rows[-1])
    return rows, lost


def _training_row(way: str, end: Row, rows: int = _TASK_ROWS) -> Row:
    seconds, epochs = sum(end["epoch_seconds"]), len(end["epoch_seconds"])
    train_rows = round(rows * 0.8 * 0.8)
    steps = -(-train_rows // end["global_batch"]) * epochs
    return {
        "way": way,
        "samples_per_second": train_rows * epochs / seconds,
        "step_seconds": seconds / steps,
        "bytes_per_step": sum(end["epoch_bytes"]) / steps,
        "score": end["test_accuracy"],
        "time_split": end["time_split"],
        "epoch_seconds": end["epoch_seconds"],
    }


def beside_sync(row: Row, rows: Sequence[Row]) -> Row:
    """How many times faster, with how many times fewer bytes, and how much worse, than the row of ``sync`` among ``rows``."""
    sync = next((each for each in [*rows, row] if each["way"] == "sync"), None)
    if sync is None:
        return {}
    found = {
        "faster": sync["step_seconds"] / row["step_seconds"],
        "fewer": sync["bytes_per_step"] / row["bytes_per_step"],
    }
    return found | ({"below_sync": sync["score"] - row["score"]} if "score" in row else {})


def write_task(path: Path, rows: int) -> None:
    """Rows of normal numbers, and as classes the largest of 10 outputs of a random network of 24 hidden units."""
    draws = np.random.default_rng(1)
    x = draws.standard_normal((rows, _FEATURES)).astype(np.float32)
    first = 1.5 * draws.standard_normal((_FEATURES, 24)) / np.sqrt(_FEATURES)
    outputs = np.tanh(x @ first) @ draws.standard_normal((24, _CLASSES))
    with h5py.File(path, "w") as file:
        file["train/x"], file["train/y"] = x, outputs.argmax(axis=1).astype(np.int64)


def _run(hosts: EmulatedHosts, way: str, words: Sequence[str]) -> Row | None:
    """The row of a run, or None after saying why there is none."""
    program = (sys.executable, "-m", "benchmarks.engines.slow_network", *words)
    outcome = run(Launch(way, tuple(hosts.mpirun(program)), hosts.environment(), 1200.0))
    if outcome.problem:
        print(f"{way}: {outcome.problem}")
        return None
    print(f"{way}: {json.dumps(outcome.rows[0]['epoch_seconds'])}", file=sys.stderr, flush=True)
    return outcome.rows[0]


if __name__ == "__main__":
    raise SystemExit(main())
