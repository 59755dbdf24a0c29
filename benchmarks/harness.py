"""What all benchmarks share: sizes, the header, fresh interleaved launches, rows in JSON, the printed table.

A benchmark is a program that writes rows, one dict per measured case, to the file named by ``--json``.
A comparison starts such programs again and again, in turn, each time in fresh processes::

    launch 1: A B C    launch 2: A B C    launch 3: A B C    …

so that what drifts (clock frequency, neighbours, memory layout) meets all of them alike, and then takes the
median over launches. Before each it waits until the cores are near each other, see ``core_to_core.py``. The file is replaced after every case, so what was measured before a launch ran into
its time limit is kept.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lepton_mpi.launcher import cpu_model
from lepton_mpi.options.kinds import parse_size
from lepton_mpi.starting.parents import end_with_parent

ROOT = Path(__file__).resolve().parent.parent
RUN_LOCAL = ROOT / "run_local.sh"

Row = dict[str, Any]

_NEAR_LIMIT_SECONDS = 60.0
_TRIES = 3
# Of the minute before a benchmark.
_LOAD_MAX = 0.5


# -- launches ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launch:
    """One command that writes rows to the file given by ``--json``, which ``run`` appends.

    Attributes
    ----------
    label : str
        For the progress line.
    command : tuple of str
    environment : mapping
        Added to this process's own.
    limit_seconds : float
        The command is ended after that.
    """

    label: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    limit_seconds: float = 600.0


@dataclass(frozen=True)
class Outcome:
    """Rows that a launch wrote, its exit code (None after the time limit) and the end of its output."""

    rows: list[Row]
    exit_code: int | None
    output: str

    @property
    def problem(self) -> str:
        """Why the launch failed, in one line; empty if it did not."""
        if self.exit_code == 0:
            return ""
        said = [line for line in self.output.splitlines() if line.strip(" -=")]
        what = (
            "was ended by the time limit"
            if self.exit_code is None
            else f"ended with exit code {self.exit_code}"
        )
        return f"{what}: {said[-1].strip()}" if said else what


def mpi_command(ranks: int, *arguments: str) -> tuple[str, ...]:
    """``python`` with ``arguments`` on ``ranks`` ranks of the MPI that LEPTON_MPI names."""
    return (str(RUN_LOCAL), "mpi", str(ranks), "python", *arguments)


def run(launch: Launch) -> Outcome:
    """Run one launch to its end or time limit; nothing it started outlives this call."""
    with tempfile.TemporaryDirectory() as folder:
        rows, output = Path(folder, "rows.json"), Path(folder, "output")
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [*launch.command, "--json", str(rows)],
                cwd=ROOT,
                env={**os.environ, **launch.environment},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(os.getpid()),
            )
        try:
            exit_code = process.wait(launch.limit_seconds)
        except subprocess.TimeoutExpired:
            exit_code = None
        finally:
            _end_session(process)
        written = json.loads(rows.read_text()) if rows.exists() else []
        return Outcome(written, exit_code, output.read_text(errors="replace"))


def run_with_progress(launch: Launch, title: str, tries: int = _TRIES) -> Outcome:
    """``run``, with a line on stderr saying what ran, for how long, on what cores, and what went wrong.

    It is started when cores are near each other, after a minute at the latest, and started again, ``tries`` times in all, if
    they are not when it ends. ``core_to_core_ns`` of its rows is before it and after it.
    """
    from benchmarks import core_to_core  # not where only an engine runs

    for _ in range(tries):
        before = core_to_core.wait_until_near(_NEAR_LIMIT_SECONDS)
        began = time.monotonic()
        outcome = run(launch)
        text = f"{title}: {launch.label}, {time.monotonic() - began:.1f} s"
        after = core_to_core.nanoseconds()
        if before is not None:
            text += f", core to core {before:.0f} and {after:.0f} ns"
            for row in outcome.rows:
                row["core_to_core_ns"] = [round(before), round(after)]
        text += f"; {outcome.problem}" if outcome.problem else ""
        print(text, file=sys.stderr, flush=True)
        if outcome.problem or before is None or after <= core_to_core.NEAR_NANOSECONDS:
            break
    return outcome


def _end_session(process: subprocess.Popen) -> None:
    # First politely: a launcher that is killed leaves its ranks behind, one that is told ends them.
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(5)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


# -- rows ----------------------------------------------------------------------------------------


def write_rows(path: str | Path, rows: Sequence[Row]) -> None:
    """Replace the file ``path`` by the list of ``rows``, one row a line, so that a reader never sees half of it."""
    temporary = Path(f"{path}.{os.getpid()}.part")
    temporary.write_text(
        "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8"
    )
    temporary.replace(path)


def over_launches(rows: Iterable[Row], key: Callable[[Row], Any]) -> list[Row]:
    """One row per ``key``: of the launches' times the median (``min_us``: the least, ``wrong``: the most)."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    combined = []
    for group in groups.values():
        row = dict(group[0], launches=len(group), launch_us=[row["time_us"] for row in group])
        for name in ("time_us", "p99_us", "limit_us"):
            values = [each[name] for each in group if each.get(name) is not None]
            row[name] = statistics.median(values) if values else None
        row["min_us"] = min(each["min_us"] for each in group)
        row["wrong"] = max(each["wrong"] for each in group)
        combined.append(row)
    return combined


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a file that ``write_rows`` wrote; ends the program in one line if there is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SystemExit(f"cannot read rows from {path}: {reason}") from None


# -- options -------------------------------------------------------------------------------------


def constant_of(names: Sequence[str]) -> Callable[[str], tuple[str, int]]:
    """Type of an option NAME=BYTES, with one of ``names``, for argparse."""

    def parse(text: str) -> tuple[str, int]:
        name, _, byte_count = text.partition("=")
        if name not in names:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, got {name!r}")
        return name, parse_size(byte_count)

    return parse


# -- header and table ----------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What a reader must know of the machine and the code: CPU, cores, L3 bytes, load, commit, date."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "l3_bytes": l3_bytes(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def l3_bytes() -> int:
    """Size of the largest cache that core 0 sees; 32 MiB where the system does not say."""
    sizes = [
        path.read_text().strip()
        for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    ]
    return max((parse_size(size) for size in sizes), default=32 << 20)


def command_line(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of a benchmark, with its docstring as it stands."""
    parser = argparse.ArgumentParser(prog=f"benchmarks.{name}", description=description)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def print_header(title: str, facts: Mapping[str, Any]) -> None:
    """Title and facts as lines that start with #; on stderr, whether other programs run."""
    load = facts.get("load")
    if isinstance(load, float) and load > _LOAD_MAX:
        print(f"load {load}: other programs disturb all numbers", file=sys.stderr)
    print(f"# {title}")
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"# {name:<{width}}  {value}")
    print(flush=True)


@dataclass(frozen=True)
class Column:
    """One column: where its value is in a row, its title, width and format."""

    key: str
    title: str
    width: int
    form: str = ""

    def cell(self, row: Row) -> str:
        """The row's value, right-aligned; '-' where there is none."""
        value = row.get(self.key)
        return f"{'-' if value is None else format(value, self.form):>{self.width}}"


def print_titles(columns: Sequence[Column]) -> None:
    """First line of a table."""
    print("  ".join(f"{column.title:>{column.width}}" for column in columns), flush=True)


def print_row(columns: Sequence[Column], row: Row) -> None:
    """One line of a table."""
    print("  ".join(column.cell(row) for column in columns), flush=True)


def measure(
    title: str,
    columns: Sequence[Column],
    launches: Iterable[Launch],
    find_problems: Callable[[Sequence[Row]], Iterable[str]],
    json_file: str | None,
    completed: Callable[[Row], Row] = dict,
) -> int:
    """Run each, print its rows as ``completed`` makes them, and write all of them to ``json_file`` as they come; returns the exit code.

    It is 1 if one gave no row, or ``find_problems`` has a line about rows; these lines are printed.
    """
    facts = machine()
    print_header(title, facts)
    print_titles(columns)
    rows: list[Row] = []
    problems: list[str] = []
    for launch in launches:
        outcome = run(launch)
        if not outcome.rows:
            problems.append(f"{launch.label}: {outcome.problem}")
        for row in map(completed, outcome.rows):
            print_row(columns, row)
            rows.append({**row, **facts})
        if json_file:
            write_rows(json_file, rows)
    problems += find_problems(rows)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ("git", *arguments), cwd=ROOT, capture_output=True, text=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (
            "+changes" if git("status", "--porcelain") else ""
        )
    except FileNotFoundError:
        return "unknown"
