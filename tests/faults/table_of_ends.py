"""The table of ends: every kind on every MPI that is asked for, and what is not as promised. Exit code 1 if anything is not.

python -m tests.faults.table_of_ends --mpi openmpi mpich intel --json ends.json
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.faults import ends

_HEAD = "| what happens | MPI | s | exit code | named | lines | processes left | files left | after the next start |"


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--mpi", nargs="+", default=["openmpi"], choices=["openmpi", "mpich", "intel", "system"]
    )
    parser.add_argument("--kinds", default="", help="a pattern of their names")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--show", action="store_true", help="what each job printed")
    parser.add_argument("--table", nargs="+", type=Path, help="print the short table of such files")
    parser.add_argument(
        "--lost-host",
        action="store_true",
        help="that alone, with Open MPI of this environment; as root",
    )
    chosen = parser.parse_args()
    if chosen.table:
        print(
            *_short([row for path in chosen.table for row in json.loads(path.read_text())]),
            sep="\n",
        )
        return 0
    print(_HEAD, "|---" * 9 + "|", sep="\n", flush=True)
    rows = (
        [_row_of(ends.see_lost_host, "openmpi", True)]
        if chosen.lost_host
        else [
            _row(kind, mpi, chosen.show)
            for kind in ends.by_name(chosen.kinds)
            for mpi in chosen.mpi
        ]
    )
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")
    wrong = [row for row in rows if row["faults"]]
    print(f"{len(rows)} ends, {len(wrong)} not as promised")
    for row in wrong:
        print(f"{row['kind']}, {row['mpi']}: {'; '.join(row['faults'])}")
    return 1 if wrong else 0


def _row(kind: ends.Kind, mpi: str, shows: bool) -> dict:
    return _row_of(lambda folder: ends.see(kind, mpi, folder), mpi, shows)


def _row_of(see: Callable[[Path], ends.Seen], mpi: str, shows: bool) -> dict:
    with tempfile.TemporaryDirectory(prefix="lepton-ends-") as folder:
        seen = see(Path(folder) / "job")
    kind = seen.kind
    named = "yes" if seen.is_named and kind.says else "no" if kind.says else "-"
    cells = (kind.name, mpi, f"{seen.seconds:.1f}", seen.code, named, len(seen.lines))
    cells += (len(seen.processes), len(seen.files), len(seen.stay))
    print("|", " | ".join(map(str, cells)), "|", flush=True)
    faults = seen.faults()
    if shows or faults:
        print(*faults, *seen.lines, sep="\n    ", file=sys.stderr, flush=True)
    return {
        "kind": kind.name, "mpi": mpi, "seconds": round(seen.seconds, 2), "code": seen.code, "named": named,
        "lines": len(seen.lines), "processes": seen.processes, "files": seen.files, "stay": seen.stay, "faults": faults,
    }  # fmt: skip


def _short(rows: list[dict]) -> list[str]:
    """A line a kind: seconds until the last process has gone and exit code by MPI, most lines printed, what was left."""
    names = {
        "openmpi": "Open MPI",
        "mpich": "MPICH",
        "intel": "Intel MPI",
        "system": "the MPI on PATH",
    }
    kinds, mpis = (list(dict.fromkeys(row[key] for row in rows)) for key in ("kind", "mpi"))
    heads = [f"{names[mpi]}: s, exit code" for mpi in mpis]
    lines = [
        f"| what happens | {' | '.join(heads)} | named | lines | left |",
        "|---" * (len(mpis) + 4) + "|",
    ]
    for kind in kinds:
        found = {row["mpi"]: row for row in rows if row["kind"] == kind}
        cells = [
            f"{found[mpi]['seconds']:.1f}, {found[mpi]['code']}" if mpi in found else ""
            for mpi in mpis
        ]
        named = {row["named"] for row in found.values()}
        cells += ["no" if "no" in named else "yes" if "yes" in named else "-"]
        cells += [str(max(row["lines"] for row in found.values()))]
        left = (
            max(len(row["processes"]) for row in found.values()),
            max(len(row["stay"]) for row in found.values()),
        )
        lines.append(f"| {' | '.join([kind, *cells])} | {left[0]} processes, {left[1]} files |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
