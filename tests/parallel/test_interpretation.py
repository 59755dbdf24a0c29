"""Explanations and compressed checkpoints on any number of ranks: importance against NumPy and scikit-learn, pages, evaluation."""

import numpy as np
import pytest
from sklearn.inspection import permutation_importance

from lepton_mpi.commands import compress, explain_model
from lepton_mpi.commands.evaluate import evaluate_checkpoint
from lepton_mpi.data.batches import BatchReader
from lepton_mpi.data.files import probe
from lepton_mpi.data.reads import reads_in_order
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.interpretation.columns import columns_of
from lepton_mpi.interpretation.importance import measure, permuted
from lepton_mpi.options.config import Config
from lepton_mpi.prepare import options, pipeline
from lepton_mpi.run import checkpoint, checkpoint_folder
from lepton_mpi.run.fit import train
from lepton_mpi.run.trained import load_trained
from tests.parallel.together import check, equal_everywhere, refused, together
from tests.serial.raw_files import write_csv

REPEATS = 3


@pytest.fixture(autouse=True)
def _unprobed(monkeypatch):
    """All files are this module's own; a look at each would take 0.1 s."""
    monkeypatch.setattr(probe, "check", lambda path, *_: None)


def _table(world, folder):
    """Who leaves is told by age and plan; ``noise`` and ``zone`` say nothing."""
    if world.rank == 0:
        random = np.random.default_rng(0)
        age, noise = random.normal(40, 10, 600).round(1), random.normal(size=600).round(3)
        plan, zone = random.choice(["basic", "plus", "pro"], 600), random.choice(["n", "s"], 600)
        left = np.where((age > 40) | (plan == "pro"), "yes", "no")
        rows = list(zip(age, noise, plan, zone, left, strict=True))
        write_csv(folder / "t.csv", rows, "age", "noise", "plan", "zone", "left")
    world.comm.Barrier()
    return folder / "t.csv"


def _trained(world, folder, words=(), **more):
    """The folder of checkpoints of a small run on the table."""
    data = folder / "t.h5"
    chosen = options.parse([str(_table(world, folder)), str(data), "--label", "left", *words])
    pipeline.prepare(chosen, world)
    common = {"epochs": 25, "global_batch": 32, "hidden": (8,), "learning_rate": 0.02}
    given = common | {"data": (str(data),), "progress": "none", "checkpoint": str(folder / "runs")}
    train(Config(**given | more), world)
    return folder / "runs"


def _rows(found):
    """All test rows and their classes, as the model reads them."""
    rows = found.data.splits["test"]
    reader = BatchReader(found.data, rows.row_count)
    (read,) = reads_in_order(rows, 0, rows.row_count, rows.row_count)
    batch = reader.read(read)
    return batch.x.copy(), batch.y.copy()


def _outputs(parameters, x):
    """Of an mlp of one hidden layer, in float64."""
    p = {name: array.astype(np.float64) for name, array in parameters.items()}
    hidden = np.maximum(x @ p["layer0/weight"] + p["layer0/bias"], 0)
    return hidden @ p["layer1/weight"] + p["layer1/bias"]


def _accuracy(parameters, x, y):
    return float((_outputs(parameters, x).argmax(axis=1) == y).mean())


def test_importance_is_what_numpy_says_on_any_number_of_ranks(world, folder):
    """By the same permutations; one column of one-hot features is permuted as one; a rank alone gets the same bits."""
    found = load_trained(_trained(world, folder), None, world)
    rows, columns = found.data.splits["test"], columns_of(found.data)
    check(world, [c.name for c in columns] == ["age", "noise", "plan", "zone"])
    measured = measure(found, rows, columns, world, None, REPEATS, 7)
    equal_everywhere(world, [(one.name, one.drops.tolist()) for one in measured.columns])
    x, y = _rows(found)
    with together(world):
        assert measured.base == pytest.approx(_accuracy(found.parameters, x, y), abs=1e-12)
        exact = {}
        for number, column in enumerate(columns):
            drops = []
            for repeat in range(REPEATS):
                moved, order = x.copy(), permuted(7, number, repeat, len(x))
                chosen = list(column.features)
                moved[:, chosen] = x[order][:, chosen]
                drops.append(measured.base - _accuracy(found.parameters, moved, y))
            exact[column.name] = drops
        for one in measured.columns:
            np.testing.assert_allclose(one.drops, exact[one.name], rtol=0, atol=1e-12)
        means = [one.mean for one in measured.columns]
        assert means == sorted(means, reverse=True)
        told = {one.name: one.mean for one in measured.columns}
        assert min(told["age"], told["plan"]) > 0.1
        assert max(abs(told["noise"]), abs(told["zone"])) < 0.03
    group = world.group([world.rank])
    alone = measure(found, rows, columns, group, None, REPEATS, 7)
    group.close()
    check(
        world,
        [(one.name, one.drops.tobytes()) for one in alone.columns]
        == [(one.name, one.drops.tobytes()) for one in measured.columns],
    )
    loss = measure(found, rows, columns, world, "loss", REPEATS, 7)
    auc = measure(found, rows, columns, world, "auc", REPEATS, 7)
    check(
        world,
        {one.name for one in loss.columns[:2]} == {"age", "plan"} and loss.columns[1].mean > 0,
    )
    check(world, auc.base > 0.9 and {one.name for one in auc.columns[:2]} == {"age", "plan"})
    with refused(
        world, ConfigurationError, "--score: expected one of", "got 'acuracy', did you mean"
    ):
        measure(found, rows, columns, world, "acuracy")
    found.parameters["layer1/bias"][:] = np.nan
    worthless = measure(found, rows, columns, world, "auc", 1, 7)
    check(world, np.isnan(worthless.base))  # as ``evaluate`` has none of scores that are no numbers


def test_importance_agrees_with_scikit_learn(world, folder):
    """Which permutes otherwise: means of many repeats, within five of their standard errors."""
    found = load_trained(_trained(world, folder, ["--categories", "codes"]), None, world)
    columns, repeats = columns_of(found.data), 60
    measured = measure(found, found.data.splits["test"], columns, world, None, repeats)
    x, y = _rows(found)

    class Estimator:
        def fit(self, x, y):
            return self

        def score(self, x, y):
            return _accuracy(found.parameters, x, y)

    with together(world):
        theirs = permutation_importance(Estimator(), x, y, n_repeats=repeats, random_state=1)
        mine = {one.name: one for one in measured.columns}
        for column, mean, deviation in zip(
            columns, theirs.importances_mean, theirs.importances_std, strict=True
        ):
            own = mine[column.name]
            error = np.hypot(own.deviation, deviation) / np.sqrt(repeats) + 1e-9
            assert abs(own.mean - mean) <= 5 * error, column.name


def _explain(world, capsys, runs, **chosen):
    """The lines that rank 0 prints."""
    capsys.readouterr()
    explain_model.explain(explain_model.Options(checkpoint=str(runs), **chosen), world)
    return capsys.readouterr().out


def test_a_table_is_explained_by_its_columns(world, folder, capsys):
    """By their names and cells, in one file; what does not apply is refused by name."""
    runs, out = _trained(world, folder), str(folder / "x.html")
    said = _explain(
        world, capsys, runs, out=out, rows=(2, 4), importance=True, png=str(folder / "png")
    )
    with together(world):
        if world.rank == 0:
            text = (folder / "x.html").read_text("utf-8")
            assert text.count("data:image/png") == 3 and "permutation importance" in text
            assert "row 2: true" in text and ">plan</th>" in text
            assert sorted(p.name for p in (folder / "png").iterdir()) == [
                "importance.png",
                "row-0.png",
                "row-1.png",
            ]
            assert "sums are off score(x) - score(baseline) by at most" in said
            assert "above it" not in said
    for method, needs in (("grad-cam", "convolutions"), ("attention", "attention, such as gpt")):
        words = (
            f"--method {method}: expected a network with {needs}",
            "saliency, integrated, importance",
        )
        with refused(world, ConfigurationError, *words):
            _explain(world, capsys, runs, out=out, method=(method,))
    with refused(
        world, ConfigurationError, "--rows 0:61: expected rows of the 60 test rows", "480 train"
    ):
        _explain(world, capsys, runs, out=out, rows=(0, 61))
    with refused(world, ConfigurationError, "--target: expected a class, no, yes, got 'maybe'"):
        _explain(world, capsys, runs, out=out, target="maybe")


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (("--categories", "inputs"), {"model": "wide_and_deep"}),
        (("--categories", "codes"), {"model": "logistic", "hidden": ()}),
    ],
)
def test_other_models_of_tables(world, folder, capsys, words, more):
    """Columns of categories and crosses by their names."""
    own = (
        {"own": {"model": {"crosses": ("plan*zone",)}}} if more["model"] == "wide_and_deep" else {}
    )
    runs = _trained(world, folder, words, epochs=3, **more, **own)
    said = _explain(
        world, capsys, runs, out=str(folder / "x.html"), importance=True, baseline="mean"
    )
    check(world, world.rank > 0 or ("plan" in said and "above it" not in said), said)


def test_images_have_maps(world, folder, capsys):
    """One picture of all methods; importance of columns is refused."""
    runs = folder / "runs"
    train(
        Config(data=("digits",), model="resnet8", epochs=1, checkpoint=str(runs), progress="none"),
        world,
    )
    said = _explain(
        world, capsys, runs, out=str(folder / "x.html"), rows=(0, 3), target="3", baseline="raw"
    )
    check(world, world.rank > 0 or "Grad-CAM at stage2_block0/relu, a map of 2x2" in said, said)
    with refused(
        world,
        ConfigurationError,
        "--method importance: expected rows of columns",
        "8x8",
        "grad-cam",
    ):
        _explain(world, capsys, runs, out=str(folder / "x.html"), importance=True)


# -- compress --------------------------------------------------------------------------------------------------


def test_a_compressed_checkpoint_is_evaluated_and_begun_with(world, folder, capsys):
    """It has the figures that were said, half of its weights are 0, none is off by more than half its scale; it is not gone on from."""
    runs, out = _trained(world, folder), folder / "small.h5"
    chosen = compress.Options(checkpoint=str(runs), out=str(out), prune=0.5, int8=True)
    capsys.readouterr()
    compress.compress(chosen, out, world)
    said = capsys.readouterr().out
    evaluate_checkpoint(out, None, "test", world)
    evaluated = capsys.readouterr().out.splitlines()
    with together(world):
        newest = checkpoint_folder.newest_first(runs)[0]
        before, after = checkpoint.read(newest), checkpoint.read(out)
        if world.rank == 0:
            figures = [
                line.partition(" after  ")[2] for line in said.splitlines() if " after  " in line
            ]
            assert f"test of t.h5: {figures[0]}" == evaluated[0]
            assert out.stat().st_size < newest.stat().st_size
            assert f"{newest.stat().st_size / 1024:.3g} KiB before" in said
        old, new = (c.layout.views(c.parameters) for c in (before, after))
        assert after.encodings == before.encodings
        for name, array in new.items():
            if name.endswith("bias"):
                np.testing.assert_array_equal(array, old[name])
                continue
            assert (array == 0).mean() >= 0.5
            scale = after.compressed.scales[name]
            kept = (
                np.abs(old[name]) > np.sort(np.abs(old[name]), axis=None)[old[name].size // 2 - 1]
            )
            assert (
                np.abs(array - old[name])[kept]
                <= np.broadcast_to(scale / 2, array.shape)[kept] * 1.0001
            ).all()
    with refused(world, DataError, "compressed, without the state of an optimizer", "--initial"):
        train(Config(data=(str(folder / "t.h5"),), hidden=(8,), resume=str(out)), world)
    config = Config(
        data=(str(folder / "t.h5"),), hidden=(8,), initial=str(out), epochs=1, progress="none"
    )
    begun = train(config, world)
    check(world, 0 <= begun["test_accuracy"] <= 1)
    with refused(world, ConfigurationError, "small.h5 exists; --force writes over it"):
        compress.compress(chosen, out, world)


def test_the_smallest_of_all_layers_and_no_data(world, folder, capsys):
    """--prune-by all, without figures."""
    runs, out = _trained(world, folder, epochs=2), folder / "small.h5"
    chosen = compress.Options(
        checkpoint=str(runs), out=str(out), prune=0.25, prune_by="all", evaluate=False
    )
    if world.rank == 0:
        (folder / "t.h5").unlink()
    compress.compress(chosen, out, world)
    with together(world):
        saved = checkpoint.read(out)
        weights = [
            a for n, a in saved.layout.views(saved.parameters).items() if n.endswith("weight")
        ]
        flat = np.concatenate([a.reshape(-1) for a in weights])
        assert (flat == 0).sum() == flat.size // 4
        assert not dict(saved.compressed.axes)
