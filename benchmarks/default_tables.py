"""What do the options that follow from the data score, beside those of earlier versions and scikit-learn's models, on the same split?

    ./run_local.sh bench default_tables [--sets iris many-classes] [--seeds 3] [--json FILE]

Twelve tables: scikit-learn's toy sets and generated ones, of 100 to 200 000 rows, with few and many classes and features, one class of few rows, targets
that are not scaled, counts of letters in texts, and images. Each is prepared, and trained twice, by the rule of ``lepton_mpi/run/defaults.py`` and with
what earlier versions took for the options that it derives; only the epochs were by rule before. The score is the accuracy or r2 on the test rows, the median over
seeds; ``mlp``, ``linear`` and ``boosting`` are scikit-learn's, see ``public_peers.py``, of seed 0.

A table passes if the rule scores no less than earlier versions but for 0.01, which is noise; the exit code is 1 if one does not.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import public_peers
from benchmarks.harness import (
    Column,
    Row,
    command_line,
    machine,
    print_header,
    print_row,
    print_titles,
    write_rows,
)
from benchmarks.public_tables import score_of
from lepton_mpi.options.by_rule import EARLIER
from lepton_mpi.options.config import OPTIONS

Arrays = tuple[np.ndarray, np.ndarray]

_NOISE = 0.01
_COLUMNS = (
    Column("set", "set", 14),
    Column("rows", "rows", 7),
    Column("features", "feat.", 5),
    Column("outputs", "classes", 7),
    Column("score", "by rule", 7, ".4f"),
    Column("earlier", "earlier", 7, ".4f"),
    Column("mlp", "mlp", 7, ".4f"),
    Column("linear", "linear", 7, ".4f"),
    Column("boosting", "boost.", 7, ".4f"),
    Column("difference", "diff.", 7, "+.4f"),
    Column("passed", "pass", 4),
)


def _toy(name: str) -> Callable[[], Arrays]:
    def make() -> Arrays:
        from sklearn import datasets

        found = getattr(datasets, f"load_{name}")()
        return (found.images if name == "digits" else found.data), found.target

    return make


def _classes(rows: int, features: int, **more: Any) -> Callable[[], Arrays]:
    def make() -> Arrays:
        from sklearn.datasets import make_classification

        x, y = make_classification(rows, features, random_state=rows + features, **more)
        return x, y

    return make


def _unscaled_targets() -> Arrays:
    """Friedman's function, of size 3 000 000, of features of sizes from 0.001 to 1000."""
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(5000, 10, noise=1.0, random_state=7)
    return x * np.array([1, 1e3, 1e-3, 1, 50, 1, 1, 1, 1, 1]), y * 1e5 + 3e6


def _texts() -> Arrays:
    """Counts of three letters, hashed to 2048, in pieces of 120 letters of the 20 longest help topics of Python; the topic is the class."""
    from pydoc_data.topics import topics

    from sklearn.feature_extraction.text import HashingVectorizer

    longest = sorted(topics, key=lambda name: (-len(topics[name]), name))[:20]
    pieces = [
        (topics[name][start : start + 120], number)
        for number, name in enumerate(longest)
        for start in range(0, min(12_000, len(topics[name])) - 120, 120)
    ]
    count = HashingVectorizer(
        analyzer="char", ngram_range=(3, 3), n_features=2048, norm=None, alternate_sign=False
    )
    x = count.transform([text for text, _ in pieces]).toarray()
    return x.astype(np.float32), np.array([number for _, number in pieces])


SETS: dict[str, Callable[[], Arrays]] = {
    "iris": _toy("iris"),
    "wine": _toy("wine"),
    "breast-cancer": _toy("breast_cancer"),
    "diabetes": _toy("diabetes"),
    "images": _toy("digits"),
    "100-rows": _classes(100, 10, n_informative=5),
    "200k-rows": _classes(200_000, 20, n_informative=10, n_clusters_per_class=6),
    "many-classes": _classes(10_000, 40, n_informative=20, n_classes=100, n_clusters_per_class=1),
    "many-features": _classes(1000, 2000, n_informative=30, n_classes=3),
    "rare-class": _classes(5000, 20, n_informative=6, weights=[0.95]),
    "large-targets": _unscaled_targets,
    "texts": _texts,
}


# Whole numbers may be either, so prepare asks.
_OF_TARGETS = ("diabetes", "large-targets")


def main() -> int:
    """Print a line for each table as it is measured; returns the exit code."""
    options = _parser().parse_args()
    facts = machine()
    print_header("options by rule", facts | {"seeds": options.seeds})
    print_titles(_COLUMNS)
    rows: list[Row] = []
    for name in options.sets:
        with tempfile.TemporaryDirectory(prefix="lepton-defaults-") as folder:
            rows.append(measure(name, range(options.seeds), Path(folder)) | facts)
        print_row(_COLUMNS, rows[-1])
        if options.json:
            write_rows(options.json, rows)
    passed = sum(row["passed"] == "yes" for row in rows)
    print(f"\n{passed} of {len(rows)} tables: at least the score of earlier versions less {_NOISE}")
    return int(passed < len(rows))


def _parser() -> argparse.ArgumentParser:
    made = command_line("default_tables", __doc__)
    names = list(SETS)
    made.add_argument("--sets", nargs="+", choices=names, default=names, metavar="NAME")
    made.add_argument("--seeds", type=int, default=3, help="splits of each table; default: 3")
    made.add_argument("--json", metavar="FILE", help="where rows are written")
    return made


def measure(name: str, seeds: Sequence[int], folder: Path) -> Row:
    """A row of the table. Raises CalledProcessError with the message of a command that fails."""
    x, y = SETS[name]()
    np.savez(folder / "arrays.npz", x=x, y=y)
    earlier = [
        word
        for option, value in EARLIER.items()
        if option != "epochs"
        for word in (OPTIONS[option].flag, OPTIONS[option].shown(value))
    ]
    scores: dict[str, list[float]] = {"score": [], "earlier": []}
    row: Row = {"set": name, "rows": len(x), "features": x[0].size}
    for seed in seeds:
        path, of_seed = folder / f"{seed}.h5", ("--seed", str(seed))
        task = ("--task", "regression" if name in _OF_TARGETS else "classification")
        _run("lepton_mpi", "prepare", str(folder / "arrays.npz"), str(path), *task, *of_seed)
        for kind, words in (("score", []), ("earlier", earlier)):
            said = _run("lepton_mpi.train", "--data", str(path), *of_seed, *words)
            scores[kind].append(score_of(said))
        if seed == seeds[0]:
            found = public_peers.read(path)
            row |= public_peers.scores(found, seed, boosts=True)
            row["outputs"] = found.outputs if found.has_classes else 0
    row |= {kind: statistics.median(values) for kind, values in scores.items()}
    row["difference"] = row["score"] - row["earlier"]
    row["passed"] = "yes" if row["difference"] >= -_NOISE else "no"
    return row | {"by_seed": scores}


def _run(module: str, *words: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", module, *words], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(f"benchmarks.default_tables: {module}: {ended.stderr.strip()[-500:]}")
    return ended.stdout


if __name__ == "__main__":
    raise SystemExit(main())
