"""How long does a checkpoint stop the ranks, with --async-save and without, beside a copy of as many bytes in memory?

    ./run_local.sh bench saves --parameters 100M --json FILE

A model of one large table is trained with Adam, and saved in the middle of an epoch. A pause lasts from the end of a step to the
beginning of the next one: the parameters are looked at for numbers that are not finite, then copied (way ``async``) or written
(way ``at once``). "x copy" is the median of the pauses over that of plain copies (NumPy) of the same vectors by the same ranks, each its
share, one after each save. "file s" is what one takes to write, "step ms" a step without a save, "writing" one while a file is written.
The last file of ``async`` is compared with that of the same step that was written at once, bit for bit.

The exit code is 1 if a bit differs, or if "x copy" of 100 MiB or more is above 1.2. Five times the bytes are needed on the disk: two files of each way, and the one that is being written.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

from benchmarks.harness import Column, Launch, Row, command_line, measure, mpi_command

_MIB = 1 << 20
_RATIO_MAX, _CHECKED_BYTES = 1.2, 100 * _MIB
_COLUMNS = (
    Column("parameters", "parameters", 11),
    Column("ranks", "ranks", 5),
    Column("way", "way", 8),
    Column("mib", "MiB", 8, ".1f"),
    Column("pause_ms", "pause ms", 9, ".1f"),
    Column("pause_max_ms", "max", 9, ".1f"),
    Column("copy_ms", "copy ms", 8, ".1f"),
    Column("ratio", "x copy", 7, ".2f"),
    Column("write_seconds", "file s", 7, ".2f"),
    Column("step_ms", "step ms", 8, ".1f"),
    Column("writing_ms", "writing", 8, ".1f"),
    Column("wrong", "#wrong", 6),
)
_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}


def main() -> int:
    """Measure, print and write; returns the exit code."""
    options = parse_command_line()
    launches = (
        _launch(count, ranks, options) for count in options.parameters for ranks in options.ranks
    )
    title = "pauses for checkpoints of parameters and Adam's state, float32"
    return measure(title, _COLUMNS, launches, find_problems, options.json)


def parse_command_line() -> argparse.Namespace:
    """Options."""
    parser = command_line("saves", __doc__)
    add = parser.add_argument
    add(
        "--parameters", nargs="+", type=count_of, default=[10**7], help="such as 100M; default: 10M"
    )
    add("--ranks", nargs="+", type=int, default=[2], help="default: 2")
    add("--saves", type=int, default=5, help="so many pauses; default: 5")
    add("--folder", default=None, help="where files are written; default: that of temporary files")
    add("--json", metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    if min(*options.ranks, options.saves) < 1:
        parser.error("--ranks, --saves: expected numbers of at least 1")
    return options


def count_of(text: str) -> int:
    """Parameters.

    >>> count_of("100M"), count_of("5000")
    (100000000, 5000)
    """
    unit = _UNITS.get(text[-1:].upper(), 1)
    digits = text[:-1] if unit > 1 else text
    if not digits.isdecimal() or int(digits) < 1:
        raise argparse.ArgumentTypeError(f"expected a number such as 5000 or 100M, got {text!r}")
    return int(digits) * unit


def _launch(count: int, ranks: int, options: argparse.Namespace) -> Launch:
    words = ("--parameters", str(count), "--saves", str(options.saves))
    words += ("--folder", options.folder) if options.folder else ()
    command = mpi_command(ranks, "-m", "benchmarks.engines.saves_ranks", *words)
    return Launch(f"{count} parameters on {ranks} ranks", command, limit_seconds=1200.0)


def find_problems(rows: Sequence[Row]) -> Iterator[str]:
    """One line for each row that is wrong, or a pause that is too long."""
    for row in rows:
        what = f"{row['parameters']} parameters on {row['ranks']} ranks, {row['way']}"
        if row["wrong"]:
            yield f"{what}: {row['wrong']} vectors of the file differ from those that were written at once"
        is_large = row["bytes"] >= _CHECKED_BYTES and row["way"] == "async"
        if is_large and not row["ratio"] <= _RATIO_MAX:
            yield f"{what}: expected a pause of at most {_RATIO_MAX} copies, got {row['ratio']:.2f}"


if __name__ == "__main__":
    sys.exit(main())
