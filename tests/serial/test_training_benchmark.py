"""What the comparison of training engines makes of rows, and of a peer that is not to be had."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.engines import networks
from benchmarks.engines.cases import CASES, Case, order
from benchmarks.engines.launches import PEERS, case_options, launches
from benchmarks.engines.layer_calls import LayerCalls
from benchmarks.engines.layer_products import Work, works_of
from benchmarks.engines.networks import NETWORKS
from benchmarks.harness import Launch, Row
from benchmarks.peers.environment import Environment, try_out
from benchmarks.training import SETTINGS, Setting, chosen_settings, find_problems, ratio_lines
from benchmarks.training_table import training_markdown
from lepton_mpi.batch import Input
from lepton_mpi.data.order import epoch_order
from lepton_mpi.layers.crossed_linear import CrossedLinear
from lepton_mpi.models.logistic import Logistic
from lepton_mpi.models.mlp import Mlp
from lepton_mpi.models.registry import make_model
from lepton_mpi.options.config import Config
from lepton_mpi.vectors import Layout

_SETTING = Setting("logistic-30", 64, 10, (1,))


def _row(engine: str, ranks: int = 1, threads: int = 1, rate: float = 1000.0, **more) -> Row:
    setting = {"model": _SETTING.model, "rows_per_rank": _SETTING.rows}
    row = {"engine": engine, "ranks": ranks, "threads": threads, "samples_per_second": rate}
    return {**setting, **row, "final_loss": 0.5, "loss_off": 0.0, **more}


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_cases_have_the_parameters_of_the_engine(case):
    """By name, shape and order, so that all engines begin with the same."""
    model = Logistic(*case.widths) if case.is_logistic else Mlp(case.widths)
    assert list(case.shapes.items()) == list(model.shapes.items())


def test_the_order_is_the_engine_s():
    """Engines without Numba have it from elsewhere."""
    for epoch in (1, 2):
        np.testing.assert_array_equal(order(1009, epoch), epoch_order(1009, 0, epoch))


@pytest.mark.parametrize("features", [1, 30, 33])
def test_rows_do_not_depend_on_how_many_there_are(features):
    """Also across the blocks that they are made in."""
    case = Case("any", (features, 7))
    x, y = case.rows(600)
    assert x.dtype == np.float32
    assert set(y) == set(range(7))
    for count in (1, 256, 257):
        few, classes = case.rows(count)
        np.testing.assert_array_equal(few, x[:count])
        np.testing.assert_array_equal(classes, y[:count])
    # Uniform noise of width 1 around the centre of the class, another one in each block.
    noise = x - np.array([x[y == number].mean(axis=0) for number in range(7)])[y]
    assert abs(np.abs(noise).mean() - 0.25) < 0.02
    assert abs(np.corrcoef(noise[:256].ravel(), noise[256:512].ravel())[0, 1]) < 0.2
    assert sorted(order(600, 1)) == list(range(600))


@pytest.mark.parametrize("network", NETWORKS.values(), ids=lambda network: network.name)
@pytest.mark.parametrize("is_bare", [False, True], ids=["whole", "bare"])
def test_networks_have_the_parameters_of_the_engine(network, is_bare):
    """By name, shape, order and value, and what decays and what is no parameter of an optimizer."""
    network = network.bare if is_bare else network
    model = _model_of(network)
    specs = network.parameters
    assert {name: spec.shape for name, spec in specs.items()} == dict(model.shapes)
    assert list(specs) == list(model.shapes)
    assert {name for name, spec in specs.items() if spec.decays} == set(model.decayed)
    assert {name for name, spec in specs.items() if spec.is_running} == set(model.averaged)
    assert network.mixes_rows == model.mixes_rows
    layout = Layout(model.shapes)
    views = layout.views(np.zeros(layout.size, np.float32))
    model.initialise(views, networks.SEED)
    for name, array in network.initial().items():
        np.testing.assert_array_equal(array, views[name], err_msg=name)


def _model_of(network):
    """The engine's, for the rows of a network."""
    arrays, attributes = network.arrays(2), network.attributes
    inputs = {}
    for name, array in arrays.items():
        if name == "train/x":
            inputs["x"] = Input("numbers", array.shape[1:])
        elif name == "train/inputs/categories":
            values = tuple(int(value) for value in attributes[name]["values"])
            inputs["categories"] = Input("categories", (len(values),), values)
        elif name == "train/tokens":
            about = attributes[name]
            inputs["tokens"] = Input("tokens", (about["context"],), about["values"])
    classes = len(attributes.get("", {"classes": ()})["classes"]) or None
    facts = SimpleNamespace(
        inputs=inputs,
        feature_shape=next(iter(inputs.values())).shape,
        class_count=classes,
        output_count=classes or inputs["tokens"].values,
        category_names=(),
        outputs_text="outputs",
    )
    return make_model(network.model, Config(**network.config).for_model(threads=1), facts)


def test_a_text_has_a_target_behind_its_last_row():
    """Rows follow each other, and tokens one another."""
    gpt = NETWORKS["gpt-4x128"]
    tokens = gpt.arrays(3)["train/tokens"].astype(int)
    assert len(tokens) == 3 * gpt.context + 1
    assert set(np.diff(tokens) % gpt.vocabulary) == {1, 2, 3}


def test_rows_of_the_wide_part_are_those_of_the_engine():
    """Columns first, then crosses, none of which is hashed."""
    network = NETWORKS["wide-and-deep"]
    codes = network.arrays(50)["train/inputs/categories"]
    layer = CrossedLinear(network.values, network.classes, network.crosses)
    calls = LayerCalls(layer, Input("categories", codes.shape[1:], network.values), 50)
    calls.at.x[:] = codes
    calls.forward()
    np.testing.assert_array_equal(network.wide_rows(codes), calls.at.memory["rows"])


def test_ranks_share_the_rows_of_a_network():
    """As many in all on any number of ranks, and kernel calls of no more than a rank has."""
    (setting,) = chosen_settings(["gpt-4x128"], None, 4)
    assert [setting.rows_of(ranks) for ranks in setting.ranks] == [16, 8, 2]
    assert setting.micro_rows == 4
    assert all(s.rows % n == 0 for s in SETTINGS if s.in_all for n in s.ranks)
    # torch normalises over a rank's rows.
    assert chosen_settings(["resnet-20"], [2], 4)[0].micro_rows == 0
    assert chosen_settings(["resnet-20"], [2], 4)[0].ranks == (2,)
    assert chosen_settings(["mlp-10m"], [8], None) == []


def test_a_network_is_run_by_torch_alone():
    """Its rows and micro-batches are told."""
    case = case_options("gpt-4x128", 8, 10, 3)
    made = launches(case, (1,), PEERS.values(), 4)
    labels = [launch.label for launch in made]
    assert labels == ["lepton_mpi auto n=1", "torch n=1 threads=1", "torch n=1 threads=2"]
    assert ["--micro-rows" in launch.command for launch in made] == [True, False, False]


def test_the_speed_beside_torch_is_said_where_rows_are_shared():
    """On as many threads, and on as many ranks."""
    rows = [
        _row(*entrant, rate=rate, rows_in_all=64)
        for entrant, rate in {
            ("lepton_mpi", 1): 300.0,
            ("torch", 1, 1): 200.0,
            ("torch", 1, 2): 400.0,
            ("lepton_mpi", 2): 500.0,
            ("torch-ddp", 2): 250.0,
            ("lepton_mpi", 8): 480.0,
            ("torch-ddp", 8): 100.0,
        }.items()
    ]
    (line,) = ratio_lines(rows)
    assert line == (
        "logistic-30: lepton_mpi on as many ranks is 1.50 x torch on 1 thread, 1.25 x torch on 2 threads, "
        "2.00 x DistributedDataParallel on 2 ranks, 4.80 x DistributedDataParallel on 8 ranks"
    )
    assert list(ratio_lines([_row("lepton_mpi"), _row("torch")])) == []


def test_every_engine_runs_on_its_ranks_and_threads():
    """Keras and scikit-learn in one process only."""
    case = case_options("logistic-30", 64, 10, 3)
    made = launches(case, (1, 2), PEERS.values())
    assert [launch.label for launch in made] == [
        "lepton_mpi auto n=1",
        *(f"{name} n=1 threads={threads}" for name in PEERS for threads in (1, 2)),
        "lepton_mpi auto n=2",
        "lepton_mpi mpi n=2",
        "torch n=2 threads=1",
    ]
    assert all(" ".join(case) in " ".join(launch.command) for launch in made)
    assert len(launches(case, (1, 2), [])) == 3


@pytest.mark.parametrize("loss_off", [0.0101, math.nan, math.inf])
def test_a_loss_that_is_off_is_a_problem(loss_off):
    """It is named, NaN included."""
    rows = [_row("lepton_mpi"), _row("keras", loss_off=loss_off)]
    (problem,) = find_problems([_SETTING], rows)
    assert "keras" in problem
    assert "logistic-30, 64 rows" in problem


def test_rows_without_a_problem():
    """A loss that torch is not there to compare with is none."""
    rows = [_row("lepton_mpi", loss_off=None), _row("torch", loss_off=0.0099)]
    assert list(find_problems([_SETTING], rows)) == []


def test_a_setting_without_this_engine_is_a_problem():
    """Also where others were measured."""
    other = Setting("logistic-30", 128, 10, (1,))
    (problem,) = find_problems([_SETTING, other], [_row("lepton_mpi"), _row("torch")])
    assert problem.startswith("logistic-30, 128 rows: lepton_mpi")


def test_ranks_without_this_engine_are_a_problem():
    """Also where it was measured on others."""
    both = Setting("logistic-30", 64, 10, (1, 2))
    (problem,) = find_problems([both], [_row("lepton_mpi"), _row("torch-ddp", 2)])
    assert problem.endswith("could not be measured on 2 ranks")


def test_the_table_has_a_line_for_each_number_of_ranks():
    """Threads side by side, a dash for what was not measured."""
    rows = [
        _row("lepton_mpi", rate=142123.0),
        _row("torch", threads=2, rate=97465.0),
        _row("torch", rate=75517.0),
        _row("sklearn", rate=987.6),
        _row("lepton_mpi", 2, rate=292137.0),
        _row("lepton_mpi-mpi-allreduce", 2, rate=257713.0),
        _row("torch-ddp", 2, rate=36838.0),
    ]
    titles, rule, *lines = training_markdown(rows)
    assert titles.count("|") == rule.count("|") == 8
    assert lines == [
        "| logistic-30, 64 | 1 | 142 000 | - | 75 500, 97 500 | - | 988 |",
        "|  | 2 | 292 000 | 258 000 | 36 800 | - | - |",
    ]


def _operations(works: list[Work]) -> float:
    return sum(work.operations for work in works)


def test_products_of_a_text_model_are_counted():
    """6 operations for each weight of a dense layer and token, and those of attention's pairs, of a causal one half."""
    gpt, rows = NETWORKS["gpt-4x128"], 3
    works = list(works_of(_model_of(gpt).plan(rows, np.dtype(np.float32))))
    width, context, tokens = gpt.width, gpt.context, rows * gpt.context
    weights = gpt.layers * 12 * width**2 + gpt.vocabulary * width
    attention = [work for work in works if work.what.startswith("attention")]
    assert len(attention) == 2 * gpt.layers
    pairs = rows * gpt.heads * context * (context + 1) / 2
    size = width // gpt.heads
    assert _operations(attention) == pytest.approx(gpt.layers * 6 * 2 * pairs * size)
    others = [work for work in works if work not in attention]
    assert _operations(others) == pytest.approx(6 * weights * tokens)


def test_products_of_an_image_model_are_counted():
    """Forward and backward alike, but for the gradient by the images, which nobody wants."""
    network, rows = NETWORKS["resnet-20"], 2
    works = list(works_of(_model_of(network).plan(rows, np.dtype(np.float32))))
    operations, side, stem = 0, {16: 32, 32: 16, 64: 8}, None
    for name, spec in network.parameters.items():
        if name.endswith("conv/weight"):
            places = rows * side[spec.shape[-1]] ** 2
            operations += 3 * 2 * places * math.prod(spec.shape)
            stem = stem or 2 * places * math.prod(spec.shape)
    operations += 3 * 2 * rows * 64 * 10 - stem
    assert _operations(works) == pytest.approx(operations)
    assert sum(work.what == "convolution" for work in works) == 21


def test_the_table_says_where_ranks_share_their_rows():
    """The rows of a step then stand for the setting, whatever a rank has of them."""
    rows = [
        _row("lepton_mpi", ranks, rows_in_all=64) | {"rows_per_rank": 64 // ranks}
        for ranks in (1, 2)
    ]
    *_, first, second = training_markdown(rows)
    assert first == "| logistic-30, 64 in all | 1 | 1 000 | - | - | - | - |"
    assert second.startswith("|  | 2 |")


@pytest.mark.slow
def test_a_peer_that_cannot_be_installed_is_left_out_with_one_line(tmp_path, capfd):
    """It says which, what was wanted and why; its program is not started."""
    environment = Environment(tmp_path / "environment", (str(tmp_path / "no-such-package"),))
    started = Launch("trial", ("touch", str(tmp_path / "started")))
    assert try_out("keras", environment, started) is None
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("keras left out: pip could not install ")
    assert "no-such-package" in last
    assert not (tmp_path / "started").exists()
    assert not Path(environment.folder, ".complete").exists()


def test_a_peer_whose_trial_fails_is_left_out_with_one_line(capfd):
    """With the last line that it printed."""
    assert try_out("torch", None, Launch("trial", ("sh", "-c", "echo no torch; exit 1"))) is None
    error = capfd.readouterr().err
    assert error == "torch left out: its trial launch ended with exit code 1: no torch\n"
