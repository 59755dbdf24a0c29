"""How fast do shuffled samples come from an HDF5 file, beside h5py, torch's DataLoader and a NumPy memmap?

    ./run_local.sh bench loader --json FILE
    ./run_local.sh bench loader --limit 512M --limit-bytes 4G --json FILE      also under a limit on memory
    ./run_local.sh bench loader --table FILE

Every engine gives float32 batches of 64, (x - shift) * scale, with labels, in random order, each process its share of the
rows. Measured are samples a second and GB/s of what is stored, for samples of 1 KB and 150 KB, contiguous, chunked and
gzip files, on 1, 2 and 8 ranks, with the file in the page cache ("warm") and not ("dropped").

    engine             is
    lepton_mpi         its three ways: rows in host memory, mapped, streamed in shuffled blocks
    h5py-index, h5py-row, torch-dataloader, memmap      see engines/loader_peers.py
    sequential-read    no engine but the limit: the same file from end to end in pieces of 8 MiB

"of limit" is the time of that read, in the same run, of the same file in the same state by as many processes, over
that of an epoch; for rows in host memory that of a copy of as many bytes. README.md in this folder says more.
The exit code is 1 if a row was wrong or lepton_mpi could not be measured, and 4 if the files do not fit on the disk.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.engines.loader_case import CACHES, DataFile
from benchmarks.harness import (
    Column,
    Row,
    command_line,
    machine,
    print_header,
    print_row,
    print_titles,
    run_with_progress,
    write_rows,
)
from benchmarks.loader_files import LAYOUTS, SAMPLES, plan_files, space_problem, write_file
from benchmarks.loader_launches import (
    OURS,
    PEERS,
    WAYS,
    combine,
    launches,
    mark_lines,
    our_training,
    ratio_lines,
    set_up,
)
from benchmarks.loader_table import print_loader_table
from benchmarks.memory_group import memory_group
from lepton_mpi.options.kinds import parse_size
from lepton_mpi.wording import size_text

_COLUMNS = (
    Column("sample_bytes", "sample", 7),
    Column("file_bytes", "file bytes", 11),
    Column("layout", "layout", 10),
    Column("cache", "cache", 7),
    Column("ranks", "ranks", 5),
    Column("engine", "engine", 16),
    Column("way", "way", 8),
    Column("samples_per_second", "samples/s", 10, ".0f"),
    Column("gbs", "GB/s", 8, ".3f"),
    Column("of_limit", "of limit", 8, ".3f"),
    Column("wait_share", "waited", 6, ".2f"),
    Column("peak_rss", "peak RSS", 11),
    Column("pss", "PSS", 11),
    Column("wrong", "#wrong", 6),
)
_LIMIT_RANKS = 2
_ENVIRONMENT_EXIT = 4


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    options = parse_command_line()
    if options.table:
        print_loader_table(options.table)
        return 0
    # Else the files would stay where a time limit or a closed terminal ends the run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with tempfile.TemporaryDirectory(prefix="lepton-loader-", dir=options.folder) as folder:
            return compare(options, Path(folder))
    except KeyboardInterrupt:
        return 130


def parse_command_line() -> argparse.Namespace:
    """Options; sizes are bytes."""
    parser = command_line("loader", __doc__)
    add = parser.add_argument
    bytes_help = "of a file before it is packed; default: 1G"
    add("--bytes", nargs="+", type=parse_size, default=[1 << 30], metavar="SIZE", help=bytes_help)
    add("--samples", nargs="+", choices=SAMPLES, default=list(SAMPLES), help="default: all")
    add("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS), help="default: all")
    add("--caches", nargs="+", choices=CACHES, default=list(CACHES), help="default: both")
    add("--ranks", nargs="+", type=int, default=[1, 2, 8], metavar="N", help="default: 1 2 8")
    add("--ways", nargs="*", choices=WAYS, default=list(WAYS), help="of lepton_mpi; default: all")
    peers_help = f"maybe none; default: {' '.join(PEERS)}"
    add("--peers", nargs="*", choices=PEERS, default=list(PEERS), metavar="P", help=peers_help)
    add("--launches", type=int, default=1, help="fresh launches of each; default: 1")
    add("--seconds", type=float, default=0.5, help="time to measure one case; default: 0.5")
    limit_help = "stream a larger file under this limit on memory, too, for example 512M"
    add("--limit", type=parse_size, metavar="SIZE", help=limit_help)
    limit_bytes_help = "of the file for that; default: 8 times the limit"
    add("--limit-bytes", type=parse_size, metavar="SIZE", help=limit_bytes_help)
    folder_help = "where the data files are made and removed again; default: for temporary files"
    add("--folder", type=Path, help=folder_help)
    add("--json", metavar="FILE", help="write the rows there, too")
    add("--table", metavar="FILE.json", help="print the rows as a table in Markdown")
    options = parser.parse_args()
    if options.folder and not options.folder.is_dir():
        parser.error(f"--folder: expected a folder, got {options.folder}")
    if min(options.ranks) < 1 or options.launches < 1:
        parser.error("--ranks, --launches: expected numbers from 1")
    options.limit_bytes = options.limit_bytes or 8 * (options.limit or 0)
    return options


def compare(options: argparse.Namespace, folder: Path) -> int:
    """Make the files, measure, print and write."""
    planned = plan_files(folder, options.samples, options.layouts, options.bytes, options.ranks)
    limited = _limit_files(options, folder)
    # Those for the limit are made when the others are gone.
    for problem in filter(None, (space_problem(folder, files) for files in (planned, limited))):
        print(problem, file=sys.stderr)
        return _ENVIRONMENT_EXIT
    facts: dict[str, object] = dict(machine())
    with _files(planned) as files:
        trial = min(files, key=lambda file: (file.layout != "contiguous", file.path.stat().st_size))
        versions = {name: version for name in options.peers if (version := set_up(name, trial))}
        print_header(
            "loader: shuffled samples, medians over launches",
            {**facts, "launches": options.launches, "seconds": options.seconds, **versions},
        )
        print_titles(_COLUMNS)
        rows: list[Row] = []
        for sample_bytes in sorted({file.sample_bytes for file in files}):
            alike = [file for file in files if file.sample_bytes == sample_bytes]
            for ranks in options.ranks:
                rows += _told(measure(alike, ranks, list(versions), options), facts)
                if options.json:
                    write_rows(options.json, rows)
    for line in (*ratio_lines(rows), *mark_lines(rows)):
        print(line)
    under_limit = _told(measure_limited(limited, options), facts) if options.limit else []
    if options.json:
        write_rows(options.json, rows + under_limit)
    problems = list(find_problems(rows + under_limit, planned, options))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


@contextmanager
def _files(planned: dict[DataFile, tuple[int, ...]]) -> Iterator[list[DataFile]]:
    """The files, made, and removed at the end."""
    try:
        for file, shape in planned.items():
            print(f"making {file.path.name}", file=sys.stderr, flush=True)
            write_file(file, shape)
        yield list(planned)
    finally:
        for file in planned:
            file.path.unlink(missing_ok=True)


def measure(
    files: Sequence[DataFile], ranks: int, peers: list[str], options: argparse.Namespace
) -> list[Row]:
    """All engines on files of one kind of sample, in turn."""
    measured: list[Row] = []
    for number in range(1, options.launches + 1):
        title = f"{files[0].sample_bytes} bytes a sample, launch {number} of {options.launches}"
        for launch in launches(files, ranks, options.caches, options.seconds, options.ways, peers):
            # Processes that share a page cache write to none of each other's memory.
            measured += run_with_progress(launch, title, tries=1).rows
    return combine(measured)


# -- under a limit on memory -----------------------------------------------------------------------


def _limit_files(options: argparse.Namespace, folder: Path) -> dict[DataFile, tuple[int, ...]]:
    """The files for that, one for each kind of sample; none if it was not asked for."""
    if not options.limit:
        return {}
    size = [options.limit_bytes]
    return plan_files(folder, options.samples, options.layouts[:1], size, [_LIMIT_RANKS])


def measure_limited(
    planned: dict[DataFile, tuple[int, ...]], options: argparse.Namespace
) -> list[Row]:
    """Train an epoch on each file, streamed from the disk, on 2 ranks in a group of processes with that limit."""
    rows = []
    for file, shape in planned.items():
        with _files({file: shape}) as files, memory_group(options.limit) as group:
            launch = our_training(files[0], _LIMIT_RANKS, "dropped")
            title = f"under {size_text(options.limit)}"
            outcome = run_with_progress(group.inside(launch) if group else launch, title, tries=1)
        measured = combine(outcome.rows)
        seen = {"limit_bytes": options.limit, "limit_set": group is not None}
        if group:
            seen |= {
                "program_peak": group.program_peak,
                "group_peak": group.peak,
                "failed_charges": group.failed_charges,
                "kills": group.kills,
            }
        rows += [{**row, **seen} for row in measured]
        print(limit_line(file, seen, measured, outcome.problem))
    return rows


def limit_line(file: DataFile, seen: dict, rows: Sequence[Row], problem: str) -> str:
    """What an epoch of training took under the limit, or why there was none.

    The mark is met if an epoch came to its end, nothing was killed, and the memory measured was below the limit: in a
    group that of its processes without page cache, else the sum of the ranks' peaks.
    """
    name = f"training on {size_text(file.row_count * file.sample_bytes)} of {size_text(file.sample_bytes)} samples"
    limit = size_text(seen["limit_bytes"])
    if not rows:
        return (
            f"NOT MET  {name} under {limit}: {problem or 'no row'}, {seen.get('kills', 0)} killed"
        )
    peak = seen["program_peak"] if seen["limit_set"] else rows[0]["peak_rss"]
    is_met = peak < seen["limit_bytes"] and not seen.get("kills", 0)
    how = (
        f"with page cache {size_text(seen['group_peak'])}, limit touched {seen['failed_charges']} times, "
        f"{seen['kills']} killed"
        if seen["limit_set"]
        else "only measured, as the sum of the ranks' peaks"
    )
    return (
        f"{'met' if is_met else 'NOT MET':<8} {name} under {limit}: peak {size_text(peak)}, {how}; "
        f"{rows[0]['samples_per_second']:.0f} samples/s, "
        f"{rows[0]['wait_share']:.1%} of the time for input"
    )


# -- what comes out --------------------------------------------------------------------------------


def _told(rows: Iterable[Row], facts: dict[str, object]) -> list[Row]:
    """The rows with what a reader must know of the machine, after printing them."""
    told = []
    for row in rows:
        print_row(_COLUMNS, row)
        if row.get("cache_problem"):
            print(f"the row above: {row['cache_problem']}")
        told.append({**row, **facts})
    return told


def find_problems(
    rows: Sequence[Row], files: Iterable[DataFile], options: argparse.Namespace
) -> Iterator[str]:
    """One line for each engine that gave wrong rows, and for each case of ours that could not be measured."""
    for row in rows:
        if row["wrong"]:
            yield (
                f"{' '.join(filter(None, (row['engine'], row['way'])))}, {row['layout']}, {row['sample_bytes']} bytes a sample, "
                f"{row['cache']}, {row['ranks']} ranks: {row['wrong']} wrong rows"
            )
    measured = {
        (row["way"], row["layout"], row["sample_bytes"], row["row_count"], row["ranks"])
        for row in rows
        if row["engine"] == OURS
    }
    for file in files:
        for way in options.ways:
            if file.layout not in WAYS[way]:
                continue
            for ranks in options.ranks:
                case = way, file.layout, file.sample_bytes, file.row_count, ranks
                if case not in measured:
                    yield f"{OURS} {way} on {file.path.name}, {ranks} ranks: could not be measured"


if __name__ == "__main__":
    raise SystemExit(main())
