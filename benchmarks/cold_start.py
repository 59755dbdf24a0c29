"""How long does a first run take, with no kernel compiled, and do many that start at once do no harm to each other?

    ./run_local.sh bench cold_start [--ranks 8] [--json FILE]
    ./run_local.sh bench cold_start --starts 50                     50 cold starts one after the other
    ./run_local.sh bench cold_start --starts 50 --together 2        two jobs at a time into one folder

A start is a whole default run, the embedded digits, into an empty folder of compiled kernels ("cold"); the first one is
made once more ("warm"). What is beyond that is what compiling costs. CPU seconds are those of all ranks together, so they
hardly depend on what else the machine does. A table shows what each module's kernels have of them; those of a kernel
that is compiled as a part of another one count for its own module.

A cold start is wrong if it fails, ends with other weights than the others, or compiles a kernel twice; the exit code is 1 then.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from benchmarks.harness import (
    ROOT,
    Column,
    Row,
    command_line,
    machine,
    mpi_command,
    print_header,
    print_row,
    print_titles,
    write_rows,
)
from lepton_mpi.starting.parents import end_with_parent

_LIMIT_SECONDS = 1800.0
_COLUMNS = [
    Column("start", "start", 5),
    Column("state", "state", 5),
    Column("seconds", "seconds", 8, ".1f"),
    Column("cpu_seconds", "cpu s", 8, ".1f"),
    Column("kernel_seconds", "kernels s", 9, ".1f"),
    Column("kernel_count", "compiled", 8),
    Column("wrong", "#wrong", 6),
]


def main() -> int:
    """Print a line for each start, and the share of each module; returns the exit code."""
    options = _parser().parse_args()
    facts = {"ranks": options.ranks, "jobs at once": options.together}
    print_header("cold start of the default run", machine() | facts)
    print_titles(_COLUMNS)
    rows: list[Row] = []
    for number in range(0, options.starts, options.together):
        with tempfile.TemporaryDirectory(prefix="lepton-cold-") as folder:
            for state in ("cold", "warm") if number == 0 else ("cold",):
                found = _start_together(options.ranks, options.together, state, Path(folder))
                rows += [{"start": number + job} | row for job, row in enumerate(found)]
                for row in rows[-len(found) :]:
                    print_row(_COLUMNS, row)
        if options.json:
            write_rows(options.json, rows)
    _print_medians(rows)
    _print_shares([row for row in rows if row["state"] == "cold"])
    weights = {row["weights"] for row in rows if row["weights"]}
    return int(len(weights) != 1 or any(row["wrong"] for row in rows))


def _parser() -> argparse.ArgumentParser:
    made = command_line("cold_start", __doc__)
    made.add_argument("--ranks", type=int, default=8, help="of each job; default: 8")
    made.add_argument("--starts", type=int, default=1, help="cold starts; default: 1")
    made.add_argument("--together", type=int, default=1, help="jobs at once; default: 1")
    made.add_argument("--json", metavar="FILE", help="where rows are written")
    return made


def _start_together(ranks: int, count: int, state: str, folder: Path) -> list[Row]:
    """Start ``count`` jobs with one folder of kernels; a row for each."""
    environment = {**os.environ, "LEPTON_CACHE_DIR": str(folder), "TMPDIR": str(folder)}
    jobs = []
    for job in range(count):
        told = folder / f"{state}-{job}.json"
        command = mpi_command(ranks, "-m", "benchmarks.engines.cold_start_ranks", str(told))
        jobs.append((told, time.monotonic(), _started(command, environment, told)))
    rows = [_ended(*job) | {"state": state} for job in jobs]
    # Of all jobs together: none should compile what another one has compiled.
    compiled = Counter((name, types) for row in rows for _, name, types, _ in row["compiled"])
    twice = sum(compiled.values()) - len(compiled)
    rows[0]["wrong"] += twice if state == "cold" else len(compiled)
    return rows


def _started(command: tuple[str, ...], environment: dict[str, str], told: Path) -> subprocess.Popen:
    with told.with_suffix(".txt").open("wb") as sink:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_parent(os.getpid()),
        )


def _ended(told: Path, began: float, process: subprocess.Popen) -> Row:
    """Wait for a job's end."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_LIMIT_SECONDS)
    seconds = time.monotonic() - began
    if process.poll() is None:
        process.terminate()
    row: Row = {"seconds": seconds, "wrong": 0, "compiled": [], "weights": None}
    if process.returncode != 0 or not told.exists():
        said = told.with_suffix(".txt").read_text(errors="replace")
        print(f"exit code {process.returncode} after {seconds:.0f} s: {said}", file=sys.stderr)
        return row | {"wrong": 1}
    row |= json.loads(told.read_text(encoding="utf-8"))
    said = re.search(r"compiled in ([\d.]+) s", told.with_suffix(".txt").read_text("utf-8"))
    row["kernel_seconds"] = float(said[1]) if said else 0.0
    row["kernel_count"] = len(row["compiled"])
    return row


def _print_medians(rows: list[Row]) -> None:
    for state in ("cold", "warm"):
        of_state = [row for row in rows if row["state"] == state and not row["wrong"]]
        if len(of_state) > 1:
            medians = {
                name: statistics.median(row[name] for row in of_state)
                for name in ("seconds", "cpu_seconds", "kernel_seconds")
            }
            print_row(_COLUMNS, {"start": "p50", "state": state} | medians)


def _print_shares(rows: list[Row]) -> None:
    """CPU seconds of each module's kernels, the mean over cold starts."""
    seconds: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for row in rows:
        for module, _, _, cpu_seconds in row["compiled"]:
            seconds[module] += cpu_seconds / len(rows)
            counts[module] += 1
    total = sum(seconds.values()) or 1.0
    print(f"\n{'cpu s':>8} {'share':>6} {'kernels':>7}  module")
    for module, spent in sorted(seconds.items(), key=lambda each: -each[1]):
        count = counts[module] / len(rows)
        print(f"{spent:>8.2f} {spent / total:>6.0%} {count:>7.0f}  {module}")
    print(f"{total:>8.2f} {1:>6.0%} {sum(counts.values()) / len(rows):>7.0f}  all")


if __name__ == "__main__":
    raise SystemExit(main())
