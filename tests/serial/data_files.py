"""HDF5 files for the tests of ``data/``, and a host of one rank to load them on."""

from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from lepton_mpi.data import loader
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.data.dataset import DataSet
from lepton_mpi.data.loader import Wanted
from lepton_mpi.data.reads import reads_in_order
from lepton_mpi.world.watchdog import PhaseClock

HELD_OUT = {"validation": 0.2, "test": 0.2}


class OneRank:
    """What the loader needs of the world, for one process; ``agreeing`` agrees with nobody."""

    def __init__(
        self, local_rank: int = 0, local_size: int = 1, arrays: list | None = None
    ) -> None:
        self.local_rank, self.local_size = local_rank, local_size
        self._arrays = arrays
        self.barriers, self.clock = 0, PhaseClock()

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype, name: str = "") -> np.ndarray:
        """Zeros; the arrays of another rank of the host, in the order made, if given."""
        return self._arrays.pop(0) if self._arrays else np.zeros(shape, dtype)

    @contextmanager
    def agreeing(self):
        """One rank's errors are everybody's."""
        yield

    def agree_on(self, what: str, value: object) -> None:
        """There is nobody else."""

    def host_barrier(self) -> None:
        """Count the calls."""
        self.barriers += 1

    def least(self, value: int) -> int:
        """There is one."""
        return value

    def memory_available(self) -> int:
        """As much as the tests' files need."""
        return 1 << 30


def load(
    path: Path | str | list,
    dtype: type = np.float32,
    held_out: dict = HELD_OUT,
    seed: int = 0,
    y_kind: str = "auto",
    way: str = "auto",
    arrays: tuple[str | None, str | None] = (None, None),
) -> DataSet:
    """A whole file, or several, on a host of one rank."""
    names = [str(name) for name in path] if isinstance(path, list) else str(path)
    wanted = Wanted(np.dtype(dtype), held_out, seed, y_kind, way, arrays)
    return loader.load(names, wanted, OneRank())


def table(
    rows: int, shape: tuple[int, ...] = (3,), classes: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Float64 rows whose every number tells where it stood, and labels that run through the classes."""
    x = np.arange(rows * int(np.prod(shape)), dtype=np.float64).reshape(rows, *shape)
    return x, np.arange(rows) % classes


def write(path: Path, contents: dict[str, object], **attributes: object) -> Path:
    """A file of these data sets and attributes."""
    with h5py.File(path, "w") as file:
        for name, values in contents.items():
            file[name] = values
        file.attrs.update(attributes)
    return path


def read_all(data: DataSet, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All rows of a split as one batch, copied."""
    rows = data.splits[split]
    reader = BatchReader(data, max(1, rows.row_count))
    batches = [
        [part.copy() for part in reader.read(read)[:2]]
        for read in reads_in_order(rows, 0, rows.row_count, max(1, rows.row_count))
    ]
    (batch,) = batches or [reader.read(rows.read_of(np.zeros(0, np.int64)))[:2]]
    return tuple(batch)
