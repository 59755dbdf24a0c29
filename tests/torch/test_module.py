"""A torch module as a model: its loss and gradient are torch's own, its state is the engine's, and its mistakes are named."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch, which is not installed")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import lepton_mpi.torch  # noqa: E402
from lepton_mpi.batch import Batch, Input  # noqa: E402
from lepton_mpi.errors import ConfigurationError, DataError  # noqa: E402
from lepton_mpi.models.gradient_check import check_gradient  # noqa: E402
from lepton_mpi.models.own_model import adapt  # noqa: E402
from lepton_mpi.sync import NO_SYNC  # noqa: E402
from lepton_mpi.torch import saving  # noqa: E402
from lepton_mpi.vectors import Layout  # noqa: E402
from tests.torch import modules  # noqa: E402

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])


def data_facts(shape=(8, 8), classes=10, targets=0, inputs=None):
    return SimpleNamespace(
        inputs=inputs or {"x": Input("numbers", shape)},
        feature_shape=shape,
        class_count=classes or None,
        output_count=classes or targets,
        outputs_text="outputs",
        category_names=(),
    )


def _batch(rows=6, dtype=np.float32, shape=(8, 8), classes=10, draw=5, first=3):
    generator = np.random.default_rng(rows)
    x = generator.standard_normal((rows, *shape)).astype(dtype)
    y = generator.integers(0, classes, rows).astype(np.int32)
    return Batch(x, y, np.arange(first, first + rows), draw)


def _vectors(model, dtype=np.float32):
    layout = Layout(model.shapes)
    parameters = layout.views(np.zeros(layout.size, dtype))
    model.initialise(parameters, 1)
    return parameters, layout.views(np.full(layout.size, np.nan, dtype))


def _computed(given, batch, data=None, dtype=np.float32):
    model = adapt(given, data or data_facts())
    parameters, gradient = _vectors(model, dtype)
    return (
        model,
        parameters,
        gradient,
        model.loss_and_gradient(parameters, batch, gradient, NO_SYNC),
    )


def _by_torch(model, parameters, batch, loss):
    """Gradients by name of ``loss(outputs, y)``, computed without the engine on a module of its own."""
    module = type(model.module)((8, 8), 10)
    names = dict(module.named_parameters())
    module.to(torch.from_numpy(batch.x).dtype)
    for name, parameter in names.items():
        # In the same memory: where an array begins decides how a matrix product adds up.
        parameter.data = torch.from_numpy(parameters[name])
    total = loss(module(torch.from_numpy(batch.x)), torch.from_numpy(batch.y).long())
    total.backward()
    return float(total.detach()), {n: p.grad.numpy() for n, p in names.items()}, module


@dtypes
@pytest.mark.parametrize("kind", [modules.Mlp, modules.Convolutional, modules.Recurrent])
def test_loss_and_gradient_are_those_of_torch(kind, dtype):
    """Bit for bit: the same calls on the same numbers."""
    torch.set_num_threads(1)
    batch = _batch(dtype=dtype)
    model, parameters, gradient, sums = _computed(kind, batch, dtype=dtype)
    loss, wanted, module = _by_torch(
        *(model, parameters, batch),
        lambda outputs, y: functional.cross_entropy(outputs, y, reduction="sum"),
    )
    assert sums[0] == loss
    for name, array in wanted.items():
        assert np.array_equal(gradient[name], array), name
    outputs = module(torch.from_numpy(batch.x)).detach().numpy()
    if kind is not modules.Convolutional:
        assert sums[1] == (outputs.argmax(1) == batch.y).sum()


@dtypes
def test_statistics_are_sums_over_the_rows(dtype):
    """Of a micro-batch's own mean and variance of n - 1; a step moves the running ones by each layer's momentum."""
    batch = _batch(rows=7, dtype=dtype)
    model, parameters, gradient, _ = _computed(modules.Convolutional, batch, dtype=dtype)
    conv = functional.conv2d(
        torch.from_numpy(batch.x).unsqueeze(1),
        torch.from_numpy(parameters["conv.weight"].copy()),
        padding=1,
    ).numpy()
    flat = conv.transpose(1, 0, 2, 3).reshape(6, -1).astype(np.float64)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    assert np.allclose(gradient["norm.running_mean"], 7 * flat.mean(1), **close)
    assert np.allclose(gradient["norm.running_var"], 7 * flat.var(1, ddof=1), **close)
    assert model.averaged["norm.running_var"] == 0.1
    assert model.averaged["dense_norm.running_mean"] == 0.3
    assert model.mixes_rows
    assert list(parameters["norm.running_mean"]) == [0] * 6, "a forward pass must not write there"


def test_evaluation_normalises_by_the_running_statistics():
    """As torch does after ``eval()``, and training goes on by the micro-batch afterwards."""
    batch = _batch(rows=9)
    model, parameters, gradient, sums = _computed(modules.Convolutional, batch)
    parameters["norm.running_var"][:] = 4
    parameters["norm.running_mean"][:] = 0.5
    predicted = np.zeros(9, np.int32)
    loss = model.evaluate(parameters, batch, predicted)
    module = modules.Convolutional((8, 8), 10)
    state = {n: torch.from_numpy(a.copy()) for n, a in parameters.items()}
    module.load_state_dict(state, strict=False)
    module.eval()
    with torch.no_grad():
        outputs = module(torch.from_numpy(batch.x))
    wanted = functional.cross_entropy(outputs, torch.from_numpy(batch.y).long(), reduction="sum")
    assert loss == float(wanted) and np.array_equal(predicted, outputs.argmax(1).numpy())
    probabilities = np.zeros((9, 10), np.float32)
    model.predict(parameters, batch, probabilities)
    assert np.array_equal(probabilities, outputs.softmax(1).numpy())
    assert model.loss_and_gradient(parameters, batch, gradient, NO_SYNC) == sums


def test_gradients_agree_with_finite_differences():
    """In float64, with the constants of the module in it."""
    given = lepton_mpi.torch.model(modules.Mlp, nn.CrossEntropyLoss())
    model = adapt(given, data_facts())
    parameters, _ = _vectors(model)
    check_gradient(model, parameters, _batch())


def test_nothing_is_copied_in_a_step():
    """Parameters are the engine's memory."""
    model, parameters, _, _ = _computed(modules.Mlp, _batch())
    for name, parameter in model.module.named_parameters():
        assert parameter.data_ptr() == parameters[name].ctypes.data


# -- random numbers ------------------------------------------------------------------------------------


def test_dropout_is_a_function_of_step_and_rows():
    """Whatever was drawn before."""
    model, parameters, gradient, first = _computed(modules.dropping, _batch())
    torch.rand(3)
    assert model.loss_and_gradient(parameters, _batch(), gradient, NO_SYNC) == first
    other_step = model.loss_and_gradient(parameters, _batch(draw=6), gradient, NO_SYNC)
    other_rows = model.loss_and_gradient(parameters, _batch(first=4), gradient, NO_SYNC)
    assert len({first[0], other_step[0], other_rows[0]}) == 3


def test_a_run_begins_with_values_of_the_seed():
    """Of what makes a module; those of an object stay, and both are told apart from others."""
    made = [_vectors(adapt(modules.Mlp, data_facts()))[0] for _ in range(2)]
    assert np.array_equal(made[0]["first.weight"], made[1]["first.weight"])
    model = adapt(modules.Mlp, data_facts())
    views = _vectors(model)[0]
    model.initialise(views, 2)
    assert not np.array_equal(made[0]["first.weight"], views["first.weight"])
    module = modules.Mlp((8, 8), 10)
    before = module.first.weight.detach().numpy().copy()
    model = adapt(module, data_facts())
    assert np.array_equal(_vectors(model)[0]["first.weight"], before)
    assert model.fingerprint != adapt(modules.Mlp((8, 8), 10), data_facts()).fingerprint
    assert model.fingerprint == adapt(module, data_facts()).fingerprint


# -- losses --------------------------------------------------------------------------------------------


class _Losses:
    """What a callable may be."""

    mean = functional.cross_entropy
    module = nn.CrossEntropyLoss()
    summed = nn.CrossEntropyLoss(reduction="sum")

    @staticmethod
    def plain(outputs, targets):
        return -torch.log_softmax(outputs, 1)[torch.arange(len(targets)), targets].mean()


@pytest.mark.parametrize("name", ["mean", "module", "summed", "plain"])
def test_a_callable_loss_counts_like_the_engines(name):
    """A mean is multiplied by its rows; a sum stays."""
    batch = _batch(rows=5)
    by_name = _computed(lepton_mpi.torch.model(modules.Mlp), batch)
    by_call = _computed(lepton_mpi.torch.model(modules.Mlp, getattr(_Losses, name)), batch)
    assert by_call[3][0] == pytest.approx(by_name[3][0], rel=1e-5)
    for key, array in by_name[2].items():
        assert np.allclose(by_call[2][key], array, rtol=1e-4, atol=1e-5), key


@pytest.mark.parametrize("loss", ["auto", "mse", "huber", nn.MSELoss(), nn.HuberLoss()])
def test_regression(loss):
    """Of two targets a row, the mean over them, summed over rows; outputs without a second dimension fit one target."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((4, 5)).astype(np.float32)
    y = generator.standard_normal((4, 2)).astype(np.float32)
    batch, data = Batch(x, y, np.arange(4)), data_facts((5,), 0, 2)
    model, parameters, _, sums = _computed(
        lepton_mpi.torch.model(lambda shape, count: nn.Linear(5, count), loss), batch, data
    )
    errors = x @ parameters["weight"].T + parameters["bias"] - y
    is_huber = loss == "huber" or isinstance(loss, nn.HuberLoss)
    size = np.abs(errors)
    each = np.where(size < 1, errors**2 / 2, size - 0.5) if is_huber else errors**2
    assert sums[0] == pytest.approx(each.mean(1).sum(), rel=1e-5) and np.isnan(sums[1])
    single = Batch(x, y[:, :1], np.arange(4))
    model, parameters, _, sums = _computed(modules.Regression, single, data_facts((5,), 0, 1))
    predicted = np.zeros((4, 1), np.float32)
    assert model.evaluate(parameters, single, predicted) == pytest.approx(sums[0])


@pytest.mark.parametrize("loss", ["auto", nn.CrossEntropyLoss()])
def test_texts_and_tied_weights(loss):
    """Tokens that are negative do not count, in no mean; a weight that two layers share is one parameter."""
    inputs = {"tokens": Input("tokens", (7,), 11)}
    data = data_facts((7,), 0, 11, inputs)
    generator = np.random.default_rng(1)
    tokens = generator.integers(0, 11, (3, 7)).astype(np.int32)
    y = generator.integers(0, 11, (3, 7)).astype(np.int32)
    y[0, :5] = y[2, 3] = -1
    batch = Batch(tokens, y, np.arange(3), named={"tokens": tokens})

    def make(shape, count):
        return modules.Language(shape, count, dropout=0.0)

    model, parameters, gradient, sums = _computed(lepton_mpi.torch.model(make, loss), batch, data)
    assert "last.weight" not in model.shapes and "embedding.weight" in model.shapes
    module = make((7,), 11)
    state = {n: torch.from_numpy(a.copy()) for n, a in parameters.items()}
    module.load_state_dict(state, strict=False)
    outputs = module(torch.from_numpy(tokens).long())
    wanted = functional.cross_entropy(
        outputs[torch.from_numpy(y >= 0)], torch.from_numpy(y[y >= 0]).long(), reduction="sum"
    )
    wanted.backward()
    assert sums[0] == pytest.approx(float(wanted.detach()), rel=1e-5)
    grad = module.embedding.weight.grad.numpy()
    assert np.allclose(gradient["embedding.weight"], grad, rtol=1e-4, atol=1e-5)
    predicted = np.zeros((3, 7), np.int32)
    model.evaluate(parameters, batch, predicted)
    assert np.array_equal(predicted, _evaluated(module, tokens).argmax(-1))
    outputs = np.zeros((3, 11), np.float32)
    model.predict(parameters, batch, outputs)
    assert np.allclose(outputs.sum(1), 1, atol=1e-5)


def _evaluated(module, tokens):
    module.eval()
    with torch.no_grad():
        return module(torch.from_numpy(tokens).long()).numpy()


def test_inputs_by_name_and_channels_first():
    """Several inputs are keyword arguments; images come with their channels where torch has them."""

    class Two(nn.Module):
        def __init__(self, shape, count):
            super().__init__()
            self.image, self.more = nn.Conv2d(3, count, 4), nn.Linear(2, count)

        def forward(self, x, extra):
            assert x.shape[1:] == (3, 4, 4)
            return self.image(x).flatten(1) + self.more(extra)

    inputs = {"x": Input("numbers", (4, 4, 3)), "extra": Input("numbers", (2,))}
    generator = np.random.default_rng(0)
    arrays = {
        n: generator.standard_normal((5, *i.shape)).astype(np.float32) for n, i in inputs.items()
    }
    batch = Batch(arrays["x"], np.arange(5, dtype=np.int32), np.arange(5), named=arrays)
    _computed(
        lepton_mpi.torch.model(Two, channels_first=True),
        batch,
        data_facts((4, 4, 3), inputs=inputs),
    )


# -- what is told of a gradient ------------------------------------------------------------------------


class _Listener:
    """Writes down what is done, and whether it was there then."""

    awaits, follows = False, True

    def __init__(self, gradient):
        self.gradient, self.told = gradient, {}

    def need(self, name):
        raise AssertionError("nothing is awaited")

    def done(self, name, start=0, stop=None):
        assert name not in self.told
        self.told[name] = self.gradient[name].copy()


def test_each_gradient_is_told_of_when_it_is_there():
    """The last layer's first, with the numbers that it ends with, and the same as without a listener."""
    batch = _batch()
    model, parameters, gradient, sums = _computed(modules.Mlp, batch)
    quiet = {name: array.copy() for name, array in gradient.items()}
    for array in gradient.values():
        array[...] = np.nan
    listener = _Listener(gradient)
    assert model.loss_and_gradient(parameters, batch, gradient, listener) == sums
    assert set(listener.told) == set(model.shapes)
    order = list(listener.told)
    assert {order[0], order[1]} == {"last.weight", "last.bias"}
    assert {order[-1], order[-2]} == {"first.weight", "first.bias"}
    for name, array in gradient.items():
        assert np.array_equal(listener.told[name], array) and np.array_equal(quiet[name], array)
    assert model.loss_and_gradient(parameters, batch, gradient, NO_SYNC) == sums


# -- freezing ------------------------------------------------------------------------------------------


def test_frozen_parameters_and_statistics():
    """``requires_grad = False`` is as ``--freeze``; frozen statistics are what training normalises by."""
    module = modules.Convolutional((8, 8), 10)
    module.conv.weight.requires_grad_(False)
    model = adapt(module, data_facts())
    assert model.frozen == {"conv.weight"}
    model.freeze(["norm.running_mean", "norm.running_var", "last.bias"])
    assert model.mixes_rows, "the other normalisation does"
    model.freeze(["dense_norm.running_mean", "dense_norm.running_var"])
    assert not model.mixes_rows
    parameters, gradient = _vectors(model)
    parameters["norm.running_var"][:] = 9
    sums = model.loss_and_gradient(parameters, _batch(), gradient, NO_SYNC)
    for name in model.frozen:
        assert not gradient[name].any()
    predicted = np.zeros(6, np.int32)
    assert model.evaluate(parameters, _batch(), predicted) == pytest.approx(sums[0], rel=1e-6)
    model.release(parameters)
    assert module.last.bias.requires_grad and not module.conv.weight.requires_grad
    with pytest.raises(ConfigurationError, match=r"both running_mean and running_var of norm\."):
        adapt(modules.Convolutional, data_facts()).freeze(["norm.running_var"])


# -- the end -------------------------------------------------------------------------------------------


def test_the_module_comes_back(tmp_path):
    """In memory of its own, as torch would have it, with what was taken away from its normalisations; its state is a file."""
    pytest.importorskip("safetensors", reason="needs safetensors, which is not installed")
    from safetensors.torch import load_model

    module = modules.Convolutional((8, 8), 10)
    keys = set(module.state_dict())
    model, parameters, _, _ = _computed(module, _batch())
    parameters["last.bias"][:] = 7
    parameters["norm.running_mean"][:] = 3
    assert model.release(parameters) == {"module": module}
    parameters["last.bias"][:] = 8
    assert set(module.state_dict()) == keys and module.norm.momentum == 0.1
    assert not module.training and float(module.last.bias.detach()[0]) == 7
    assert float(module.norm.running_mean[0]) == 3
    module(torch.zeros(1, 8, 8)).sum().backward()
    lepton_mpi.torch.save(module, tmp_path / "end.safetensors")
    again = modules.Convolutional((8, 8), 10)
    load_model(again, tmp_path / "end.safetensors")
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    tied = modules.Language((7,), 11)
    lepton_mpi.torch.save(tied, tmp_path / "tied.safetensors")
    other = modules.Language((7,), 11)
    load_model(other, tmp_path / "tied.safetensors")
    assert torch.equal(other.last.weight, tied.embedding.weight)
    with pytest.raises(DataError, match=r"ends in \.safetensors"):
        lepton_mpi.torch.save(tied, tmp_path / "tied.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "end.safetensors",
        "tied.safetensors",
    ]


class _OfTypes(nn.Module):
    """Buffers of every type that torch and safetensors have in common, one of them transposed and one empty."""

    def __init__(self):
        super().__init__()
        for name in saving._NAMES:
            if hasattr(torch, name):
                values = torch.arange(6).reshape(2, 3).to(getattr(torch, name))
                self.register_buffer(f"of_{name}", values)
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).T)
        self.register_buffer("empty", torch.zeros(0, 4))


def test_a_saved_module_of_any_types(tmp_path):
    """The library reads the same bits; a type that such files do not have is refused."""
    pytest.importorskip("safetensors", reason="needs safetensors, which is not installed")
    from safetensors.torch import load_file

    module = _OfTypes()
    lepton_mpi.torch.save(module, tmp_path / "types.safetensors")
    found = load_file(tmp_path / "types.safetensors")
    assert found.keys() == module.state_dict().keys()
    for name, tensor in module.state_dict().items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape, name
        dense = [one.contiguous().view(torch.uint8) for one in (found[name], tensor)]
        assert torch.equal(*dense), name
    module.register_buffer("wide", torch.zeros(2, dtype=torch.complex128))
    with pytest.raises(DataError, match=r"wide: safetensors files have no torch\.complex128"):
        lepton_mpi.torch.save(module, tmp_path / "wide.safetensors")
    assert not (tmp_path / "wide.safetensors").exists()


# -- mistakes ------------------------------------------------------------------------------------------


class _Wrong(nn.Module):
    """A dense layer, with one thing wrong."""

    def __init__(self, shape=(8, 8), count=10):
        super().__init__()
        self.dense = nn.Linear(64, 10)

    def forward(self, x):
        return self.dense(x.flatten(1))


class _Unused(_Wrong):
    def __init__(self, shape, count):
        super().__init__()
        self.left_out = nn.Linear(2, 2)


class _Complex(_Wrong):
    def __init__(self, shape, count):
        super().__init__()
        self.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))


class _Whole(_Wrong):
    def __init__(self, shape, count):
        super().__init__()
        self.codes = nn.Parameter(torch.zeros(2, dtype=torch.int32), requires_grad=False)


class _Elsewhere(_Wrong):
    def __init__(self, shape, count):
        super().__init__()
        self.far = nn.Linear(2, 2, device="meta")


class _Overlapping(_Wrong):
    def __init__(self, shape, count):
        super().__init__()
        self.twin = nn.Parameter(self.dense.weight.data.view(-1)[:5])


class _Counting(_Wrong):
    """Its result depends on how often it was called."""

    def __init__(self, shape, count):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.dense(x.flatten(1)) * self.calls


class _Changing(_Wrong):
    def __init__(self, shape, count):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        return super().forward(x)


class _Mixing(_Wrong):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class _Twice(_Wrong):
    def __init__(self, shape, count):
        super().__init__()
        self.norm = nn.BatchNorm1d(10)

    def forward(self, x):
        return self.norm(self.norm(super().forward(x)))


class _Cumulative(_Wrong):
    def __init__(self, shape, count):
        super().__init__()
        self.norm = nn.BatchNorm1d(10, momentum=None)


class _Synchronised(_Wrong):
    def __init__(self, shape, count):
        super().__init__()
        self.norm = nn.SyncBatchNorm(10)


class _Lazy(_Wrong):
    def __init__(self, shape, count):
        super().__init__()
        self.lazy = nn.LazyLinear(10)


class _Sparse(_Wrong):
    def __init__(self, shape, count):
        super().__init__()
        self.table = nn.Embedding(4, 10, sparse=True)

    def forward(self, x):
        return super().forward(x) + self.table((x[:, 0, 0] > 0).long())


class _Detached(_Wrong):
    def forward(self, x):
        return super().forward(x).detach()


class _Shape(_Wrong):
    def forward(self, x):
        return super().forward(x)[:, :, None]


class _Tuple(_Wrong):
    def forward(self, x):
        return super().forward(x), x


class _Writing(_Wrong):
    def forward(self, x):
        self.dense.weight.data.clamp_(-0.01, 0.01)
        return super().forward(x)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (_Unused, "got none of left_out.weight, left_out.bias: the loss does not depend on it; --freeze 'left_out.weight'"),
        (_Complex, "parameter phase: expected one float32 or float64, got one of torch.complex64"),
        (_Whole, "parameter codes: expected one float32 or float64, got one of torch.int32"),
        (_Elsewhere, "parameter far.weight: expected one on the CPU, got one on meta"),
        (_Overlapping, "share memory: expected one nn.Parameter for both"),
        (_Counting, "expected the same loss and gradient of the same micro-batch"),
        (_Changing, "buffer count: expected one that stays in training"),
        (_Mixing, "the two halves do not add up to the whole"),
        (_Twice, "layer norm: expected one call in a forward pass, got 2"),
        (_Cumulative, "layer norm: expected a momentum"),
        (_Synchronised, "layer norm: expected BatchNorm"),
        (_Lazy, "parameter lazy.weight: expected one of a known shape"),
        (_Sparse, "parameter table.weight: expected a dense gradient"),
        (_Detached, "expected a loss that depends on the parameters"),
        (_Shape, "expected outputs of shape (6, classes), got (6, 10, 1)"),
        (_Tuple, "expected forward to return a tensor, got tuple"),
        (_Writing, "wrote to parameters['dense.weight']"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(kind, message):
    """In one line, before or in the first micro-batch."""
    with pytest.raises(ConfigurationError) as raised:
        _computed(kind, _batch())
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (nn.CrossEntropyLoss(reduction="none"), {}, "reduction: expected 'mean' or 'sum', which give a scalar, got 'none'"),
        (lambda outputs, y: outputs, {}, "expected a scalar, a tensor of one number, got of shape (6, 10)"),
        (lambda outputs, y: 0.5, {}, "expected a scalar, a tensor of one number, got float"),
        ("entropy", {}, "loss: expected auto, cross_entropy, mse, huber or a callable"),
        ("mse", {}, "loss: expected one of classes or tokens: cross_entropy, got 'mse'"),
        ("auto", {"reduction": "sum"}, "reduction: expected none for loss 'auto'"),
    ],
)  # fmt: skip
def test_a_wrong_loss_is_named(loss, options, message):
    """Before the first step."""
    with pytest.raises(ConfigurationError) as raised:
        _computed(lepton_mpi.torch.model(_Wrong, loss, **options), _batch())
    assert message in str(raised.value)


def test_what_is_no_module_is_named():
    """Also if a function returns it, or all is frozen."""
    with pytest.raises(ConfigurationError, match=r"expected an nn\.Module"):
        adapt(lepton_mpi.torch.model(lambda shape, count: 3), data_facts())
    frozen = _Wrong().requires_grad_(False)
    with pytest.raises(ConfigurationError, match="all of them with requires_grad = False"):
        adapt(frozen, data_facts())
