"""Makes the embedded data sets from scikit-learn's copies: python lepton_mpi/data/embedded/make.py

The splits are stratified and fixed: of every class, rows are dealt to test and training by a hash of
their position. Normalisation is fitted on the training rows only. See SOURCES.md for origin and licence.
"""

from pathlib import Path

import h5py
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits

from lepton_mpi.kernels import counter_random

_SEED = 0
_TEST_FRACTION = 0.2


def main() -> None:
    """Write digits.h5 and breast_cancer.h5 beside this file."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)
    write("digits", images, digits.target, [str(name) for name in digits.target_names], "pixels")
    cancer = load_breast_cancer()
    # scikit-learn's classes are 0 malignant, 1 benign; here 1 is what is looked for.
    write("breast_cancer", cancer.data, 1 - cancer.target, ["benign", "malignant"], "standard")


def write(name: str, x: np.ndarray, y: np.ndarray, class_names: list[str], normalise: str) -> None:
    """One file of two splits, with checksums and normalisation."""
    test = np.zeros(len(y), bool)
    for label in range(len(class_names)):
        rows = np.flatnonzero(y == label)
        shuffled = rows[counter_random.permutation(_SEED, label, len(rows))]
        test[shuffled[: round(_TEST_FRACTION * len(rows))]] = True
    shift, scale = np.zeros(x.shape[1:]), np.full(x.shape[1:], 1 / 16)
    if normalise == "standard":
        shift, scale = x[~test].mean(axis=0), 1 / x[~test].std(axis=0)
    with h5py.File(
        Path(__file__).parent / f"{name}.h5", "w", libver=("v110", "v110"), track_order=False
    ) as file:
        file.attrs["classes"] = class_names
        for split, rows in (("train", ~test), ("test", test)):
            for key, values in (("x", x[rows]), ("y", y[rows].astype(np.uint8))):
                file.create_dataset(
                    f"{split}/{key}",
                    data=values,
                    chunks=values.shape,
                    compression="gzip",
                    shuffle=True,
                    fletcher32=True,
                )
        file["normalisation/shift"], file["normalisation/scale"] = shift, scale


if __name__ == "__main__":
    main()
