"""``--freeze``: which parameters stay, what is refused, and that nothing of a step touches them."""

import numpy as np
import pytest

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.compose import From, Parallel, Residual, Sequential, Sum
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.losses import CrossEntropy
from lepton_mpi.models import own_model
from lepton_mpi.models.gradient_check import check_gradient
from lepton_mpi.models.mlp import Mlp
from lepton_mpi.models.network import Network
from lepton_mpi.optimizers.optimizer import Optimizer
from lepton_mpi.optimizers.registry import rule_of
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.options import names
from lepton_mpi.run.freezing import freeze, sentence
from lepton_mpi.strategies.strategy import Setting
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Layout
from tests.serial.built_networks import MODELS
from tests.serial.built_networks import batch_of as batch_for
from tests.serial.built_networks import network_of as network_and_facts
from tests.serial.slopes import batch_of, loss_and_gradient, parameters_of
from tests.serial.test_pretrained import made

# -- which -------------------------------------------------------------------------------------------


def test_patterns_are_those_of_the_shell():
    """Over the whole name, slashes included; several add up."""
    model = made("resnet8")
    freeze(("stem*", "stage[01]*/conv/*", "classes/bias"), model)
    assert {"stem/norm/running_mean", "classes/bias"} < set(model.frozen)
    assert "stage1_block0/residual/shortcut/conv/weight" in model.frozen
    assert "stage2_block0/residual/shortcut/conv/weight" not in model.frozen
    assert "stage0_block0/residual/body/first/norm/weight" not in model.frozen
    text = sentence(model)
    assert text.startswith("stem/*, stage0_block0/residual/body/first/conv/weight, ")
    trained = sum(
        np.prod(shape, dtype=int)
        for name, shape in model.shapes.items()
        if name not in model.frozen and name not in model.averaged
    )
    assert text.replace(" ", "").endswith(
        f";{trained}of{Layout(model.shapes).size}parametersaretrained"
    )


def test_nothing_is_frozen_unasked():
    model = Mlp((3, 2))
    freeze((), model)
    assert not model.frozen and not sentence(model)


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (
            ("stem",),
            "--freeze stem: expected a pattern that fits names of parameters, stem/*, stage0",
        ),
        (("stem/*", "fc*"), "--freeze fc*: "),
        (("*",), "--freeze *: expected some parameters that are left to train"),
        (("s*", "classes/*"), "got all of them frozen"),
        (("*weight", "*bias"), "got all of them frozen"),
        (("stem/norm/running_mean",), "expected both running_mean and running_variance"),
    ],
)
def test_what_fits_nothing_or_everything_is_refused(patterns, words):
    """Running statistics are nothing that is trained."""
    with pytest.raises(ConfigurationError) as caught:
        freeze(patterns, made("resnet8"))
    assert words in str(caught.value)


# -- gradients ---------------------------------------------------------------------------------------


def _network() -> Network:
    """Branches, a residual one, and a layer that is used twice."""
    twice = Dense(4)
    body = Sequential(
        {
            "first": Dense(4, "relu"),
            "residual": Residual(Sequential([twice, Dense(4)])),
            "again": twice,
            "branches": Parallel([Dense(3), Sequential([Dense(2, "tanh"), Dense(3)])], Sum()),
        }
    )
    return Network("test", body, {"x": Input("numbers", (5,))}, CrossEntropy())


class _Listening:
    """Notes what is told."""

    awaits, follows = False, True

    def __init__(self) -> None:
        self.told: list[str] = []

    def need(self, name: str) -> None:
        """Everything is there."""

    def done(self, name: str, start: int = 0, stop: int | None = None) -> None:
        self.told.append(name)


@pytest.mark.parametrize(
    "frozen",
    [
        ["first/weight", "first/bias"],
        ["first/weight"],
        ["first/weight", "first/bias", "residual/body/layer0/weight", "residual/body/layer0/bias"],
        ["branches/branch0/weight", "branches/branch0/bias"],
        ["branches/branch1/layer1/weight"],
    ],
)
def test_what_is_trained_has_the_same_gradient(frozen):
    """Bit for bit; everything is told once, also what nobody computes."""
    network = _network()
    (layout, vector), batch = parameters_of(network), batch_of(network, 6)
    loss, whole = loss_and_gradient(network, layout, vector, batch)
    network.freeze(frozen)
    again, part = loss_and_gradient(network, layout, vector, batch)
    assert loss == again
    for name, array in layout.views(part).items():
        if name not in frozen:
            np.testing.assert_array_equal(array, layout.views(whole)[name])
    sync = _Listening()
    network.loss_and_gradient(layout.views(vector), batch, layout.views(part), sync)
    assert sorted(sync.told) == sorted(network.shapes)
    check_gradient(network, layout.views(vector), batch)


def test_what_is_before_all_that_is_trained_has_no_backward_pass():
    """Which is what fine-tuning of a head saves."""
    network = _network()
    (layout, vector), batch = parameters_of(network), batch_of(network, 6)
    network.freeze([name for name in network.shapes if not name.startswith("branches/")])
    _, gradient = loss_and_gradient(network, layout, vector, batch)
    for name, array in layout.views(gradient).items():
        assert np.isnan(array).all() == (name in network.frozen), name


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_may_be_frozen_up_to_any_layer(name):
    """What is trained has the bits that it has with all of it, wherever the cut is; running statistics are left alone."""
    network, facts = network_and_facts(name)
    layout = Layout(network.shapes)
    parameters = layout.views(np.zeros(layout.size, np.float32))
    network.initialise(parameters, 1)
    whole = layout.views(np.zeros(layout.size, np.float32))
    batch = batch_for(facts)
    sums = network.loss_and_gradient(parameters, batch, whole, NO_SYNC)
    keys = [key for key in network.shapes if key not in network.averaged]
    for count in range(1, len(keys), max(1, len(keys) // 12)):
        network.freeze(keys[:count])
        part = layout.views(np.full(layout.size, np.nan, np.float32))
        assert repr(network.loss_and_gradient(parameters, batch, part, NO_SYNC)) == repr(sums)
        for key in keys[count:]:
            np.testing.assert_array_equal(part[key], whole[key], key)


class _Own:
    """Fills what is left to train."""

    shapes = {"frozen": (4,), "weight": (4, 3)}  # noqa: RUF012

    def freeze(self, names):
        self.told = set(names)

    def loss_and_gradient(self, parameters, batch, gradient):
        gradient["weight"][...] = batch.x.T @ (batch.x @ parameters["weight"])
        return 0.5 * ((batch.x @ parameters["weight"]) ** 2).sum()


def test_a_model_of_ones_own_need_not_fill_what_is_frozen():
    """It is told which, and the check of its first micro-batch does not ask for these."""
    given = _Own()
    facts = made("mlp").inputs | {"x": Input("numbers", (4,))}
    model = own_model.adapt(given, _facts(facts))
    with pytest.raises(ConfigurationError, match=r"expected gradient\['frozen'\] to be filled"):
        _first_step(model)
    freeze(("fro*",), model)
    assert given.told == {"frozen"}
    _first_step(model)


def _facts(inputs):
    from types import SimpleNamespace

    return SimpleNamespace(
        inputs=inputs, feature_shape=(4,), class_count=3, output_count=3, outputs_text="classes"
    )


def _first_step(model) -> None:
    layout = Layout(model.shapes)
    vector, gradient = np.ones((2, layout.size))
    network = Network("any", Dense(3), {"x": Input("numbers", (4,))}, CrossEntropy())
    views = layout.views(vector), batch_of(network, 6), layout.views(gradient)
    model.loss_and_gradient(*views, NO_SYNC)


# -- updates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", names.OPTIMIZERS)
def test_no_rule_touches_what_is_frozen(name, dtype):
    """Neither gradient, NaN though it be, nor weight decay, nor momentum; a frozen average stays. The rest is as without."""
    layout = Layout({"a": (3, 2), "b": (4,), "c": (2, 2), "mean": (3,), "other": (2,), "d": (5,)})
    averaged, frozen = {"mean": 0.5, "other": 1.0}, ("b", "c", "mean")
    settings = Settings(name, lambda step: 0.125, weight_decay=0.5)
    ends = []
    for chosen in ((), frozen):
        state = np.zeros((len(rule_of(settings).state), layout.size), dtype)
        optimizer = Optimizer(
            settings, layout, np.dtype(dtype), state, averaged=averaged, frozen=chosen
        )
        w = np.linspace(-1, 1, layout.size, dtype=dtype)
        w[7] = -0.0
        for step in range(1, 4):
            g = np.random.default_rng(step).standard_normal(layout.size).astype(dtype)
            if chosen:
                for key in frozen:
                    layout.views(g)[key][...] = np.nan
            optimizer.begin_step(step, 0.25)
            optimizer.update(w, g, 0, 9)
            optimizer.update(w, g, 9, layout.size)
        ends.append((layout.views(w), [layout.views(vector) for vector in state]))
    begin = np.linspace(-1, 1, layout.size, dtype=dtype)
    begin[7] = -0.0
    for key, view in layout.views(begin).items():
        expected = view if key in frozen else ends[0][0][key]
        assert ends[1][0][key].tobytes() == expected.tobytes(), key
        for mine, other in zip(ends[1][1], ends[0][1], strict=True):
            np.testing.assert_array_equal(mine[key], 0 if key in frozen else other[key])


def test_the_norm_that_is_clipped_is_of_what_is_trained():
    layout = Layout({"a": (3,), "b": (4,), "mean": (2,), "c": (1,), "d": (1,)})
    setting = Setting(None, layout, None, 1, None, averaged={"mean": 0.1}, frozen=("b",))
    assert setting.trained_spans == [(0, 3), (9, 11)]


def test_inputs_with_names():
    """A branch of its own for each, one of them frozen."""
    body = Parallel({"a": From("x", Dense(3)), "b": From("x", Dense(3))}, Sum())
    network = Network("test", body, {"x": Input("numbers", (5,))}, CrossEntropy())
    network.freeze(["a/weight", "a/bias"])
    layout, vector = parameters_of(network)
    _, gradient = loss_and_gradient(network, layout, vector, batch_of(network, 4))
    views = layout.views(gradient)
    assert np.isnan(views["a/weight"]).all() and not np.isnan(views["b/weight"]).any()
