"""``wide_and_deep`` and its layers: kernels against their twins, gradients against finite differences, options and errors."""

import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.commands import prepare_first
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.layers import column_embedding_kernels, crossed_linear_kernels
from lepton_mpi.layers.column_embedding import ColumnEmbedding
from lepton_mpi.layers.compose import Parallel, Reshape, Sequential
from lepton_mpi.layers.crossed_linear import CrossedLinear
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.losses import CrossEntropy
from lepton_mpi.models.network import Network
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.vectors import Layout
from tests import reference_layers as reference
from tests.serial.command_line import refusal
from tests.serial.data_files import load
from tests.serial.raw_files import prepare, write_csv
from tests.serial.slopes import central_slopes, loss_and_gradient, parameters_of

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
VALUES = (3, 1, 5)


class Facts:
    """What a model is built for: numbers, if there are any, and categories."""

    def __init__(self, numbers=2, values=VALUES, names=("a", "b", "c"), class_count=3, outputs=3):
        self.inputs = {"x": Input("numbers", (numbers,))} if numbers else {}
        self.inputs["categories"] = Input("categories", (len(values),), values)
        self.class_count, self.output_count = class_count, class_count or outputs
        self.category_names, self.outputs_text = names, "3 outputs"

    @property
    def feature_shape(self):
        return next(iter(self.inputs.values())).shape


def wide_model(facts=None, **options) -> Network:
    names = ("crosses", "cross_buckets", "embedding_width", "norm")
    own = {name: options.pop(name) for name in names if name in options}
    config = Config(model="wide_and_deep", own={"model": own}, **options)
    return make_model("wide_and_deep", config.for_model(threads=1), facts or Facts())


def _batch(network: Network, rows: int, dtype=np.float64) -> Batch:
    """Codes of every column, the last ones among them; classes or targets."""
    generator, named = np.random.default_rng(rows), {}
    for name, spec in network.inputs.items():
        if spec.kind == "numbers":
            named[name] = generator.standard_normal((rows, *spec.shape)).astype(dtype)
        else:
            codes = generator.integers(0, spec.counts, (rows, spec.size)).astype(np.int32)
            codes[:1] = np.array(spec.counts) - 1
            named[name] = codes.reshape(rows, *spec.shape)
    y = generator.standard_normal((rows, 3)).astype(dtype)
    if network.task == "classes":
        y = generator.integers(0, 3, rows).astype(np.int32)
    first = next(iter(named.values()))
    return Batch(first, y, np.arange(rows) + 10, 99, None, named)


# -- layers ------------------------------------------------------------------------------------------------


def _check(kernel, twin, given: tuple, outs: tuple, terms: int) -> None:
    """Both fill copies of ``outs``, up to so many roundings, and return the same."""
    mine, exact = [a.copy() for a in outs], [a.copy() for a in outs]
    assert kernel(*given, *mine) == twin(*given, *exact)
    for a, b in zip(mine, exact, strict=True):
        eps = np.finfo(a.dtype).eps if a.dtype.kind == "f" else 0
        largest = max(1, np.abs(b[~np.isnan(b)]).max(initial=0)) if eps else 0
        np.testing.assert_allclose(a, b, rtol=0, atol=(terms + 4) * eps * largest)


@dtypes
@pytest.mark.parametrize("rows", [0, 1, 17])
def test_column_embedding_kernels_match_their_twins(dtype, rows):
    """They touch their own part of ``out``, and count the codes that they met."""
    generator = np.random.default_rng(rows)
    codes = generator.integers(0, VALUES, (rows, 3)).astype(np.int32)
    for column, values in enumerate(VALUES):
        weight = generator.standard_normal((values, 4)).astype(dtype)
        g, out = generator.standard_normal((rows, 9)).astype(dtype), np.full((rows, 9), 7, dtype)
        kernels, given = column_embedding_kernels, (codes, column)
        _check(kernels.embed_column, reference.embed_column, (*given, weight, 3), (out,), 0)
        outs = np.ones(values, bool), np.full((values, 4), np.nan, dtype)
        twin = reference.embed_column_gradient
        _check(kernels.embed_column_gradient, twin, (*given, g, 3), outs, rows)


@dtypes
@pytest.mark.parametrize("rows", [0, 1, 17])
@pytest.mark.parametrize("outputs", [1, 5])
def test_crossed_linear_kernels_match_their_twins(dtype, rows, outputs):
    """With crosses that have a row for each value, that are hashed, and whose values have no 64-bit number."""
    values = (3, 70_000, 2**31 - 1, 2**31 - 1, 9)
    crosses = [(0, 4), (1, 0), (2, 3, 1, 4), (4, 1)]
    layer = CrossedLinear((3, 70, 9), outputs, [(0, 2), (1, 2), (0, 1, 2)], 100)
    assert np.diff(layer.starts).tolist() == [3, 70, 9, 27, 100, 100]
    assert layer.is_hashed.tolist() == [False, False, False, False, True, True]
    generator = np.random.default_rng(rows)
    codes = generator.integers(0, values, (rows, 5)).astype(np.int32)
    codes[:1] = np.array(values) - 1
    members = np.array([[*cross, *[-1] * (4 - len(cross))] for cross in crosses])
    starts = np.array([0, 27, 127, 227, 1127])
    is_hashed, counts = np.array([False, True, True, True]), np.array(values, np.int64)
    found, kernels = np.full((rows, 4), -1), crossed_linear_kernels
    given = codes, counts, members, starts, is_hashed
    _check(kernels.weight_rows, reference.weight_rows, given, (found,), 0)
    kernels.weight_rows(*given, found)
    assert ((found >= starts[:-1]) & (found < starts[1:])).all()
    weight = generator.standard_normal((1127, outputs)).astype(dtype)
    out, g = np.full((rows, outputs), np.nan, dtype), generator.standard_normal((rows, outputs))
    _check(kernels.sum_weight_rows, reference.sum_weight_rows, (found, weight), (out,), 8)
    outs = np.ones(1127, bool), np.full((1127, outputs), np.nan, dtype)
    given = found, g.astype(dtype)
    _check(kernels.weight_rows_gradient, reference.weight_rows_gradient, given, outs, rows)


def test_a_hash_spreads_the_values_of_a_cross():
    """10 000 values in 1 000 rows: nearly all rows have some, none has many."""
    layer = CrossedLinear((100, 100), 1, [(0, 1)], 1000)
    codes = np.stack(np.divmod(np.arange(10_000), 100), axis=1).astype(np.int32)
    rows = np.empty((10_000, 3), np.int64)
    given = layer._values, layer._members, layer.starts, layer.is_hashed
    crossed_linear_kernels.weight_rows(codes, *given, rows)
    counts = np.bincount(rows[:, 2] - 200, minlength=1000)
    assert counts.size == 1000 and counts.sum() == 10_000
    assert (counts == 0).sum() < 5 and counts.max() < 30


def test_layers_refuse_what_they_cannot_take():
    for layer in (ColumnEmbedding(VALUES), CrossedLinear(VALUES, 2)):
        for wrong in (Input("numbers", (3,)), Input("categories", (3,), (3, 1, 6))):
            with pytest.raises(ConfigurationError, match=r"expected categories of \(3, 1, 5\)"):
                layer.parameters(wrong)
        assert layer.parameters(Input("categories", (3,), VALUES))
    with pytest.raises(ConfigurationError, match="a width for each of 3 columns, got 2"):
        ColumnEmbedding(VALUES, (1, 2))
    same = ColumnEmbedding((4, 4)).parameters(Input("categories", (1, 2), 4))
    assert [parameter.shape for parameter in same.values()] == [(4, 4), (4, 4)]


def test_branches_may_have_names():
    body = Sequential([Parallel({"left": Dense(2), "right": Reshape()}), Dense(2)])
    network = Network("named", body, {"x": Input("numbers", (3,))}, CrossEntropy())
    assert list(network.shapes)[:2] == ["layer0/left/weight", "layer0/left/bias"]


# -- the model ---------------------------------------------------------------------------------------------

MODELS = {
    "plain": ({}, {}),
    "crossed": ({}, {"crosses": ("a*c", "c*b*a"), "cross_buckets": 7}),
    "wide alone": ({}, {"hidden": ()}),
    "batch norm": ({}, {"norm": "batch", "hidden": (4,)}),
    "batch norm, tanh": ({}, {"norm": "batch", "hidden": (4,), "activation": "tanh"}),
    "layer norm": ({}, {"norm": "layer", "hidden": (4, 3)}),
    "dropout": ({}, {"dropout": 0.4, "embedding_width": 2}),
    "categories alone": ({"numbers": 0}, {"crosses": ("b*c",)}),
    "one category": ({"values": (4,), "names": ()}, {}),
    "targets": ({"class_count": None}, {"activation": "gelu"}),
}


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize(("facts", "options"), MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_gradients_are_the_slopes_of_the_loss(facts, options, rows):
    """Central differences of fourth order in float64, to 1e-6 of the largest, of some elements of every parameter."""
    network = wide_model(Facts(**facts), **{"hidden": (5, 4), **options})
    (layout, vector), batch = parameters_of(network), _batch(network, rows)
    _, gradient = loss_and_gradient(network, layout, vector, batch)
    assert not np.isnan(gradient).any(), "a part of the gradient was not filled"
    numbers, generator = layout.views(np.arange(layout.size)), np.random.default_rng(rows)
    which = np.concatenate(
        [
            generator.permutation(numbers[name].reshape(-1))[:4]
            for name in network.shapes
            if name not in network.averaged
        ]
    )
    slopes = central_slopes(
        lambda moved: loss_and_gradient(network, layout, moved, batch)[0], vector, which
    )
    scale = np.abs(slopes).max(initial=0)
    np.testing.assert_allclose(gradient[which], slopes, rtol=0, atol=1e-6 * scale)


def test_its_parameters():
    """Tables by the rule or of one width; the wide part begins at 0."""
    network = wide_model(hidden=(8,), crosses=("a*c",))
    assert network.shapes == {
        "wide/numbers/linear/weight": (2, 3),
        "wide/categories/weight": (9 + 15, 3),
        "deep/features/categories/column0": (3, 3),
        "deep/features/categories/column1": (1, 2),
        "deep/features/categories/column2": (5, 4),
        "deep/hidden0/weight": (2 + 3 + 2 + 4, 8),
        "deep/hidden0/bias": (8,),
        "deep/out/weight": (8, 3),
        "deep/out/bias": (3,),
    }
    layout = Layout(network.shapes)
    views = layout.views(np.full(layout.size, np.nan))
    network.initialise(views, 1)
    assert not views["wide/categories/weight"].any()
    assert 0.05 < views["deep/features/categories/column2"].std() < 0.2
    assert wide_model(embedding_width=6).shapes["deep/features/categories/column1"] == (1, 6)


def test_what_it_does_not_take():
    with pytest.raises(ConfigurationError, match=r"--crosses a\*d: expected .*, a, b, c, got 'd'"):
        wide_model(crosses=("a*d",))
    with pytest.raises(ConfigurationError, match="of categories, 0, 1, 2, got 'a'"):
        wide_model(Facts(names=()), crosses=("a*1",))
    assert wide_model(Facts(names=()), crosses=("0*2",)).shapes["wide/categories/weight"] == (24, 3)
    facts = Facts()
    for inputs in (
        {"x": Input("numbers", (4,))},
        facts.inputs | {"words": Input("tokens", (4,), 9)},
        facts.inputs | {"more": Input("categories", (1,), 2)},
        facts.inputs | {"ages": Input("numbers", (1,))},
    ):
        facts.inputs = inputs
        with pytest.raises(ConfigurationError, match="--label NAME --categories inputs keeps"):
            wide_model(facts)
    for words in ("a", "a*", "a*a", "a*b,b*a"):
        line = refusal("--model", "wide_and_deep", "--crosses", words)
        assert line.startswith("--crosses: expected two different columns or more"), words


# -- its data ----------------------------------------------------------------------------------------------


def _cars(path):
    cells = [["red", 1.5, "gas", "yes"], ["blue", 2.5, "", "no"], ["", 2.0, "gas", "no"]] * 8
    return write_csv(path, cells, "colour", "litres", "fuel", "label")


def test_a_prepared_table_has_the_names_of_its_columns(tmp_path):
    """And a missing category has a row of its own, if a constant stands for it."""
    words = ("--categories", "inputs", "--missing", "constant=none", "--split", "1")
    prepare(_cars(tmp_path / "a.csv"), tmp_path / "a.h5", *words)
    data = load(tmp_path / "a.h5")
    assert data.category_names == ("colour", "fuel")
    assert data.inputs["categories"].counts == (3, 2)
    network = make_model(
        "wide_and_deep",
        Config(
            model="wide_and_deep", own={"model": {"crosses": ("fuel*colour",)}}, hidden=(4,)
        ).for_model(threads=1),
        data,
    )
    assert network.shapes["wide/categories/weight"] == (5 + 6, 2)


def test_names_that_do_not_fit_are_refused(tmp_path):
    import h5py

    prepare(_cars(tmp_path / "a.csv"), tmp_path / "a.h5", "--categories", "inputs", "--missing", "median", "--split", "1")  # fmt: skip
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["about/inputs/columns"]
        file["about/inputs/columns"] = [b"colour"]
    with pytest.raises(DataError, match="about/inputs/columns: expected names of 2 columns"):
        load(tmp_path / "a.h5")


def test_files_of_other_columns_make_no_data_set(tmp_path):
    words = ("--categories", "inputs", "--missing", "median", "--split", "1")
    for name, columns in (("a", ("colour", "fuel")), ("b", ("fuel", "colour"))):
        cells = [["x", 1.5, "y", "yes"], ["z", 2.5, "w", "no"]] * 8
        path = write_csv(tmp_path / f"{name}.csv", cells, columns[0], "litres", columns[1], "label")
        prepare(path, tmp_path / f"{name}.h5", *words)
    with pytest.raises(DataError, match="columns of categories: the same in another order"):
        load([str(tmp_path / "a.h5"), str(tmp_path / "b.h5")])


@pytest.mark.parametrize(
    ("model", "words", "categories"),
    [
        ("wide_and_deep", "--label a", "inputs"),
        ("mlp", "--label a", "auto"),
        ("wide_and_deep", "--label a --categories codes", "codes"),
    ],
)
def test_a_table_is_prepared_for_the_model(model, words, categories):
    chosen = prepare_first.options_for(Config(model=model, data=("a.csv",), prepare=words))
    assert chosen.categories == categories


def test_other_models_say_which_one_takes_categories():
    with pytest.raises(ConfigurationError, match="--model wide_and_deep takes such tables"):
        make_model("mlp", Config().for_model(threads=1), Facts())


def test_prepare_says_what_to_do_with_categories_apart(tmp_path, capsys):
    words = ("--missing", "median", "--categories", "inputs")
    prepare(_cars(tmp_path / "a.csv"), tmp_path / "a.h5", *words)
    assert capsys.readouterr().out.rstrip().endswith("a.h5 --model wide_and_deep")
