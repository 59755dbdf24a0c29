"""``prepare`` on real ranks: the file is that of one process, errors are agreed on, and training reads it."""

import numpy as np
import pytest

from lepton_mpi.data.loader import Wanted, load
from lepton_mpi.errors import DataError
from lepton_mpi.options.config import Config
from lepton_mpi.prepare import options, pipeline
from lepton_mpi.run import checkpoint, checkpoint_folder
from lepton_mpi.run.fit import train
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


def test_a_regression_on_prices_learns(world, folder):
    """With defaults, as well as least squares do; and a checkpoint brings its own scale to another file."""
    path = folder / "house.csv"
    if world.rank == 0:
        random = np.random.default_rng(0)
        x = random.normal(size=(2000, 5))
        y = 200_000 + 50_000 * x[:, 0] + 20_000 * x[:, 1] + random.normal(0, 5_000, 2000)
        raw_files.write_csv(path, np.column_stack([x, y]).tolist(), *"abcde", "price")
    world.comm.Barrier()
    words = ["--label", "price", "--task", "regression"]
    for name, way in (("a", "standard"), ("b", "none")):
        given = [str(path), str(folder / f"{name}.h5"), *words, "--target-scale", way]
        pipeline.prepare(options.parse(given), world)
    config = Config(data=str(folder / "a.h5"), progress="none", checkpoint=str(folder / "runs"))
    result = train(config, world)
    saved = checkpoint.read(checkpoint_folder.newest_whole(folder / "runs")[0])
    with together(world):
        assert result["test_r2"] > 0.985
        assert 4_000 < result["test_rmse"] < 6_500
        assert saved.target_scale(1).shift[0] > 190_000
    dtype = np.dtype(np.float32)
    data = load(str(folder / "b.h5"), Wanted(dtype, target_scale=saved.target_scale), world)
    with together(world):
        assert abs(data.splits["train"].y.mean()) < 1e-4
