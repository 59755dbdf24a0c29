"""Does ``wide_and_deep`` order risks as boosted trees do, on a table with categories?

    ./run_local.sh bench risk_table [--json FILE]

The table is ``loans``, which comes with the package: who defaults is uncertain, and two of its categories go together. A line
for the recipe, for its parts alone, and for scikit-learn's HistGradientBoostingClassifier, which takes categories as such, at its
defaults and at settings that suit the table better. All are trained on the training rows; AUC is that of the test rows. "truth" is
that of the probabilities from which the table was drawn, over all of its rows: more than chance nobody is above it.

The recipe is wrong if it is more than 0.01 below the best of the trees; the exit code is 1 then.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.harness import (
    Column,
    Row,
    machine,
    print_header,
    print_row,
    print_titles,
    write_rows,
)
from lepton_mpi import fit
from lepton_mpi.data.embedded import make_loans
from lepton_mpi.data.files import hdf5
from lepton_mpi.tasks.ranking import twice_ordered

_ALLOWED = 0.01
_COLUMNS = [
    Column("way", "way", 36),
    Column("auc", "AUC", 8, ".4f"),
    Column("seconds", "seconds", 8, ".1f"),
    Column("wrong", "#wrong", 6),
]
# Options beside those of the recipe.
_OWN: dict[str, dict[str, Any]] = {
    "wide_and_deep, the recipe": {},
    "wide_and_deep without crosses": {"crosses": ()},
    "wide_and_deep without hidden layers": {"hidden": ()},
}
_TREES: dict[str, dict[str, Any]] = {
    "trees, defaults": {},
    "trees, smaller": {"max_leaf_nodes": 8, "max_iter": 300},
    "trees, smaller and slower": {
        "max_leaf_nodes": 8,
        "max_iter": 400,
        "learning_rate": 0.03,
    },
}


def main() -> int:
    """Print a line for each way; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print_header("AUC of the test rows of loans", machine())
    print_titles(_COLUMNS)
    ways: dict[str, Callable[[], float]] = {"truth": _of_truth}
    ways |= {name: lambda more=more: _of_trees(more) for name, more in _TREES.items()}
    ways |= {name: lambda more=more: _of_own(more) for name, more in _OWN.items()}
    rows: list[Row] = []
    for name, measure in ways.items():
        began = time.perf_counter()
        row: Row = {
            "way": name,
            "auc": measure(),
            "seconds": time.perf_counter() - began,
            "wrong": 0,
        }
        if name == "wide_and_deep, the recipe":
            best = max(other["auc"] for other in rows if other["way"] in _TREES)
            row["wrong"] = int(row["auc"] < best - _ALLOWED)
        rows.append(row)
        print_row(_COLUMNS, row)
    if options.json:
        write_rows(options.json, rows)
    return int(any(row["wrong"] for row in rows))


def _of_truth() -> float:
    cells, probability = make_loans.make_table()
    return _auc(np.array([row[-1] == "yes" for row in cells]), probability)


def _of_own(more: Mapping[str, Any]) -> float:
    return float(fit(recipe="loans", progress="none", **more)["test_auc"])


def _of_trees(more: Mapping[str, Any]) -> float:
    from sklearn.ensemble import HistGradientBoostingClassifier

    with h5py.File(hdf5.locate("loans")) as file:
        parts = {
            split: [file[f"{split}/{name}"][()] for name in ("x", "inputs/categories", "y")]
            for split in ("train", "test")
        }
    (x, codes, y), (test_x, test_codes, test_y) = parts["train"], parts["test"]
    are_categories = np.arange(x.shape[1] + codes.shape[1]) >= x.shape[1]
    trees = HistGradientBoostingClassifier(
        categorical_features=are_categories, random_state=0, **more
    )
    trees.fit(np.hstack([x, codes]), y)
    return _auc(test_y == 1, trees.predict_proba(np.hstack([test_x, test_codes]))[:, 1])


def _auc(is_high: np.ndarray, scores: np.ndarray) -> float:
    low, high = np.sort(scores[~is_high]), scores[is_high]
    return twice_ordered(low, high) / (2 * low.size * high.size)


if __name__ == "__main__":
    raise SystemExit(main())
