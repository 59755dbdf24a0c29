"""A file of rows whose blocks have checksums, and the same without, for tests of reading."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from lepton_mpi.data.files import block_sums
from lepton_mpi.prepare import writing
from tests.serial.raw_files import prepare

ROWS, WIDTH = 700, 24


def with_checksums(folder: Path) -> Path:
    """``rows.h5`` of ``prepare --layout contiguous`` with several blocks of each data set, and ``old.h5`` without checksums, as earlier versions wrote it."""
    x = np.random.default_rng(0).integers(0, 256, (ROWS, WIDTH)).astype(np.uint8)
    np.savez(folder / "rows.npz", x=x, y=np.arange(ROWS) % 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing.RowWriter.__init__, "__defaults__", (2000,))
        prepare(folder / "rows.npz", folder / "rows.h5", "--layout", "contiguous")
    shutil.copyfile(folder / "rows.h5", folder / "old.h5")
    with h5py.File(folder / "old.h5", "r+") as file:
        del file[block_sums.FOLDER]
    return folder
