"""``prepare`` on real ranks: the file is that of one process, errors are agreed on, and training reads it."""

import numpy as np
import pytest

from lepton_mpi.errors import DataError
from lepton_mpi.prepare import options, pipeline
from tests.parallel.together import equal_everywhere, refused, together
from tests.serial import raw_files


def _raw(world, folder):
    """A table with gaps, texts and duplicates, and an archive of images; made by rank 0."""
    table, archive = folder / "table.csv", folder / "images.npz"
    if world.rank == 0:
        random = np.random.default_rng(2)
        rows = [
            [
                "" if i % 9 == 4 else f"{random.normal():.6f}",
                i % 7,
                "red" if i % 4 else "blue",
                i % 3,
            ]
            for i in range(150)
        ]
        raw_files.write_csv(table, [*rows, *rows[:20]], "a", "b", "colour", "label")
        x, y = raw_files.images(100)
        np.savez(archive, x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])
    world.comm.Barrier()
    return table, archive


@pytest.mark.parametrize(
    ("which", "words"),
    [
        (0, ("--missing", "median", "--drop-duplicates", "--normalise", "robust", "--outliers", "quantile=0.1")),
        (0, ("--missing", "drop", "--balance", "oversample", "--memory", "0", "--compress", "gzip")),
        (1, ("--normalise", "standard", "--per", "feature")),
    ],
)  # fmt: skip
def test_ranks_write_the_file_of_one_process(world, folder, which, words):
    """The same bits, on this number of ranks as on one."""
    source = _raw(world, folder)[which]
    given = [str(source), str(folder / "all.h5"), "--block", "500", *words]
    facts = pipeline.prepare(options.parse(given), world)
    equal_everywhere(world, str(facts))
    with together(world):
        if world.rank == 0:
            raw_files.prepare(source, folder / "one.h5", "--block", "500", *words)
            assert raw_files.digest(folder / "all.h5") == raw_files.digest(folder / "one.h5")


def test_a_dirty_cell_is_the_same_error_on_every_rank(world, folder):
    """The first in the file, though a higher rank may find another at the same time; and no file is left."""
    path = folder / "dirty.csv"
    if world.rank == 0:
        rows = [[i, i % 2] for i in range(300)]
        rows[200].append("x")
        rows[250].append("x")
        raw_files.write_csv(path, rows, "a", "label")
    world.comm.Barrier()
    chosen = options.parse([str(path), str(folder / "out.h5"), "--block", "100"])
    with refused(world, DataError, "dirty.csv: line 202: expected 2 cells", "got 3"):
        pipeline.prepare(chosen, world)
    with together(world):
        assert [file.name for file in folder.iterdir()] == ["dirty.csv"]
