"""How fast does ``predict`` go through a CSV file, beside its reading alone and ``prepare``, in how much memory, and are the bytes the same on any ranks?

    ./run_local.sh bench predict --rows 10M --json FILE

A table of ``--rows`` rows of ``--features`` numbers is written, a network of 128 units is trained on its first rows, and then on each number of
ranks, in fresh processes, the file is read and its rows are predicted with the probability of both classes, ``--launches`` times in turn.

    read      seconds of reading: the blocks that predict reads, by the same ranks, and nothing more
    predict   seconds of the whole, the written file included
    of read   the first over the second
    prepare   with --prepare: seconds of ``python -m lepton_mpi prepare`` on the file by as many ranks
    MiB       of the largest rank, at its peak, libraries included

The exit code is 1 if the bytes differ between numbers of ranks, a rank takes more than 512 MiB, or the median of "of read" is below 0.8; 4 if the files do
not fit on the disk.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

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

_MIB = 1 << 20
_PEAK_MAX, _OF_READ_MIN = 512 * _MIB, 0.8
# Lines that are made once, and written again and again: what a number costs to read does not depend on what was before it.
_LINES = 100_000
_LIMIT_SECONDS = 7200.0
_COLUMNS = (
    Column("ranks", "ranks", 5),
    Column("rows", "rows", 9),
    Column("read", "read s", 8, ".2f"),
    Column("predict", "predict s", 9, ".2f"),
    Column("of_read", "of read", 7, ".2f"),
    Column("prepare", "prepare s", 9, ".2f"),
    Column("mib", "MiB", 6, ".0f"),
    Column("digest", "bytes of the file", 32),
)


def main() -> int:
    """Measure, print and write; returns the exit code."""
    options = _parser().parse_args()
    facts = machine() | {"rows": options.rows, "features": options.features}
    print_header("predict, rows of a CSV file", facts)
    with tempfile.TemporaryDirectory(prefix="lepton-predict-", dir=options.folder) as name:
        folder = Path(name)
        # A number takes 8 bytes at most; the answers 30 a row, and a prepared file half of the table.
        need = options.rows * (options.features * 8 * (1.5 if options.prepare else 1) + 40)
        if shutil.disk_usage(folder).free < 1.1 * need:
            print(
                f"benchmarks.predict: {name}: expected {need / 1e9:.1f} GB of free disk, got less; --folder names another place",
                file=sys.stderr,
            )
            return 4
        table, checkpoint = _set_up(folder, options.rows, options.features)
        print_titles(_COLUMNS)
        rows = []
        for ranks in options.ranks:
            rows.append(_measured(ranks, options, folder, table, checkpoint) | facts)
            print_row(_COLUMNS, rows[-1])
            if options.json:
                write_rows(options.json, rows)
    problems = list(find_problems(rows))
    for problem in problems:
        print(problem)
    return int(bool(problems))


def _parser() -> argparse.ArgumentParser:
    made = command_line("predict", __doc__)
    made.add_argument("--rows", type=row_count, default=row_count("1M"), help="as 200K or 10M; default: 1M")  # fmt: skip
    made.add_argument("--features", type=int, default=30, help="default: 30")
    made.add_argument("--ranks", nargs="+", type=int, default=[1, 2, 3, 8], help="default: 1 2 3 8")
    made.add_argument("--launches", type=int, default=3, help="of each; default: 3")
    made.add_argument("--prepare", action="store_true", help="time prepare, too")
    made.add_argument("--folder", help="where the files are for a while; default: that of the system")  # fmt: skip
    made.add_argument("--json", metavar="FILE", help="where rows are written")
    return made


def row_count(text: str) -> int:
    """Rows that a text says. Raises ValueError.

    >>> [row_count(text) for text in ("500", "200K", "10M")]
    [500, 200000, 10000000]
    """
    unit = {"K": 1000, "M": 1_000_000}.get(text[-1:].upper(), 1)
    count = int(text if unit == 1 else text[:-1]) * unit
    if count < 1:
        raise ValueError
    return count


def _set_up(folder: Path, rows: int, features: int) -> tuple[Path, Path]:
    """The table, and a checkpoint of a network that reads its columns."""
    lines = _lines(min(_LINES, rows), features)
    names = ",".join(f"f{number}" for number in range(features))
    table, sample = folder / "table.csv", folder / "sample.csv"
    with table.open("wb") as file:
        file.write(f"{names}\n".encode())
        block = b"".join(lines)
        for _ in range(rows // len(lines)):
            file.write(block)
        file.write(b"".join(lines[: rows % len(lines)]))
    labelled = [line.rstrip() + b",%d\n" % (line[:1] == b"-") for line in lines[:20_000]]
    sample.write_bytes(f"{names},label\n".encode() + b"".join(labelled))
    prepared, runs = folder / "sample.h5", folder / "runs"
    _command("lepton_mpi", "prepare", str(sample), str(prepared), "--label", "label")
    words = ("--data", str(prepared), "--checkpoint", str(runs), "--epochs", "1", "--hidden", "128")
    _command("lepton_mpi.train", *words)
    return table, runs


def _lines(count: int, features: int) -> list[bytes]:
    """Of numbers with four decimals."""
    x = np.random.default_rng(0).standard_normal((count, features))
    form = ",".join(["%.4f"] * features) + "\n"
    return [(form % tuple(row)).encode() for row in x.tolist()]


def _command(module: str, *words: str) -> None:
    subprocess.run([sys.executable, "-m", module, *words], check=True, stdout=subprocess.DEVNULL)


def _measured(
    ranks: int, options: argparse.Namespace, folder: Path, table: Path, checkpoint: Path
) -> Row:
    """Medians over launches, reading and predicting in turn."""
    found: dict[str, list[Row]] = {"read": [], "predict": []}
    out = folder / "predicted.csv"
    for _ in range(options.launches):
        for what, done in found.items():
            out.unlink(missing_ok=True)
            words = ("--what", what, "--checkpoint", str(checkpoint), "--input", str(table))
            engine = ("-m", "benchmarks.engines.predict_ranks", *words, "--out", str(out))
            launch = Launch(f"{what} n={ranks}", mpi_command(ranks, *engine), limit_seconds=_LIMIT_SECONDS)  # fmt: skip
            outcome = run(launch)
            if not outcome.rows:
                raise SystemExit(f"benchmarks.predict: {what} on {ranks} ranks: {outcome.problem}")
            done += outcome.rows
    row: Row = {
        what: statistics.median(each["seconds"] for each in done) for what, done in found.items()
    }
    pairs = zip(found["read"], found["predict"], strict=True)
    row["of_read"] = statistics.median(read["seconds"] / whole["seconds"] for read, whole in pairs)
    row["peak"] = max(each["peak"] for each in found["predict"])
    digests = {each["digest"] for each in found["predict"]}
    row |= {"ranks": ranks, "mib": row["peak"] / _MIB, "digest": " ".join(sorted(digests))}
    if options.prepare:
        row["prepare"] = _seconds_of_prepare(ranks, table, folder)
    return row


def _seconds_of_prepare(ranks: int, table: Path, folder: Path) -> float:
    out = folder / "table.h5"
    words = (str(table), str(out), "--label", "f0", "--task", "regression", "--force")
    began = time.perf_counter()
    command = mpi_command(ranks, "-m", "lepton_mpi", "prepare", *words)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    out.unlink()
    return seconds


def find_problems(rows: Sequence[Row]) -> Iterator[str]:
    """One line for each mark that is missed.

    >>> good = {"ranks": 1, "peak": 1, "of_read": 0.9, "digest": "a"}
    >>> list(find_problems([good, good | {"ranks": 2, "digest": "b", "of_read": 0.5}]))
    ['2 ranks: other bytes than 1 rank', '2 ranks: expected 0.8 of the speed of reading, got 0.50']
    """
    for row in rows:
        name = f"{row['ranks']} rank{'s' * (row['ranks'] != 1)}"
        if row["digest"] != rows[0]["digest"] or " " in row["digest"]:
            yield f"{name}: other bytes than {rows[0]['ranks']} rank{'s' * (rows[0]['ranks'] != 1)}"
        if row["peak"] > _PEAK_MAX:
            yield f"{name}: expected at most {_PEAK_MAX / _MIB:g} MiB a rank, got {row['peak'] / _MIB:.0f}"
        if row["of_read"] < _OF_READ_MIN:
            yield f"{name}: expected {_OF_READ_MIN} of the speed of reading, got {row['of_read']:.2f}"


if __name__ == "__main__":
    raise SystemExit(main())
