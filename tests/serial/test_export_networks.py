"""Networks of one's own as ONNX: built-in layers are run by onnxruntime, others refused."""

from pathlib import Path

import numpy as np
import pytest

from lepton_mpi.batch import Batch, Input
from lepton_mpi.errors import ConfigurationError, DataError
from lepton_mpi.exporting import export
from lepton_mpi.exporting.subject import Subject
from lepton_mpi.layers.activation import Activation
from lepton_mpi.layers.attention import Attention
from lepton_mpi.layers.column_embedding import ColumnEmbedding
from lepton_mpi.layers.compose import From, Identity, Parallel, Residual, Sequential, Sum, Tied
from lepton_mpi.layers.convolution import Conv1d, Conv2d
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.embedding import Embedding
from lepton_mpi.layers.gated import SwiGlu
from lepton_mpi.layers.group_norm import GroupNorm
from lepton_mpi.layers.gru import Gru
from lepton_mpi.layers.losses import CrossEntropy
from lepton_mpi.layers.norm import LayerNorm, RmsNorm
from lepton_mpi.layers.pooling import AveragePool, MaxPool
from lepton_mpi.layers.windows import Window, along, square
from lepton_mpi.models.network import Network
from lepton_mpi.vectors import Layout
from tests.serial.exported import (
    Case,
    dtypes,
    exported,
    fill,
    saved,
)
from tests.serial.onnx_runs import check_close, outputs_by, session_of


def _image_layers() -> Sequential:
    """Windows of all kinds, groups, and norms by group."""
    odd = Window((3, 2), (2, 1), ((1, 0), (0, 1)), (1, 2))
    branches = [Conv2d(4, square(3, padding=1), 2), Identity()]
    return Sequential(
        [
            Conv2d(4, odd),
            Parallel(branches),
            GroupNorm(2, relu=True),
            MaxPool(Window((3, 2), (2, 1), ((1, 1), (1, 0)))),
            AveragePool(Window((3, 2), (1, 2), ((1, 0), (0, 1)))),
            Residual(Sequential([Dense(8, "silu"), LayerNorm()])),
            AveragePool(),
            Dense(3),
        ]
    )


def _sequence_layers() -> Sequential:
    attention = Sequential([Dense(3 * 8), Attention(2, is_causal=False)])
    first = Dense(8)
    parts = {
        "first": first,
        "conv": Conv1d(8, along(3, 2, (2, 1), 2), groups=4),
        "pool": AveragePool(along(2, padding=(1, 0))),
        "attention": Residual(attention),
        "norm": RmsNorm(1e-3),
        "gate": SwiGlu(),
        "again": Tied(Dense(8, "gelu"), {"bias": "first/bias"}),
        "back": Gru(6, "all", is_reversed=True),
        "last": Gru(5, "last", is_reversed=True),
        "out": Dense(3),
    }
    return Sequential(parts)


def _code_layers() -> Sequential:
    values = (4, 1, 6)
    shared = From("codes", Sequential([Embedding(values, 5), AveragePool()]))
    own = From("codes", ColumnEmbedding(values, (5, 5, 5)))
    joined = Parallel({"shared": shared, "x": Dense(5, "tanh")}, Sum())
    return Sequential([Parallel([joined, own]), Activation("sigmoid"), Dense(3)])


_CODES = Input("categories", (3,), (4, 1, 6))
NETWORKS = {
    "images": (_image_layers, {"x": Input("numbers", (9, 8, 2))}),
    "sequences": (_sequence_layers, {"x": Input("numbers", (11, 4))}),
    "codes": (_code_layers, {"x": Input("numbers", (2,)), "codes": _CODES}),
}


def _subject_of(network, inputs, dtype, name="own.py:network") -> tuple[Subject, np.ndarray]:
    """With rows of each input."""
    layout = Layout(network.shapes)
    views = layout.views(np.zeros(layout.size, dtype))
    fill(views)
    data = loaded_data(inputs)
    return Subject(name, network, views, data, {}, "")


def loaded_data(inputs):
    """A data set without rows, of three classes."""
    from lepton_mpi.data.dataset import DataSet
    from lepton_mpi.data.target_scale import TargetScale
    from lepton_mpi.data.ways import Way

    size = sum(spec.size for spec in inputs.values() if spec.kind == "numbers")
    return DataSet(
        *((Path("x.h5"),), inputs, ("a", "b", "c"), np.dtype("f4")),
        *((np.zeros(size), np.ones(size)), {}, "classes", TargetScale.identity(0)),
        *(Way("none", ""), np.zeros(size)),
    )


@pytest.mark.parametrize(("body", "inputs"), NETWORKS.values(), ids=NETWORKS)
@dtypes
def test_networks_of_built_in_layers(body, inputs, dtype):
    """Every layer and join of the package, with every option that changes what it computes."""
    from lepton_mpi.exporting import onnx_model

    network = Network("own", body(), inputs, CrossEntropy())
    subject = _subject_of(network, inputs, dtype)
    session = session_of(onnx_model.make(subject, preprocess=False))
    generator = np.random.default_rng(0)
    for count in (1, 7):
        rows = {}
        for name, spec in inputs.items():
            if spec.kind == "numbers":
                rows[name] = generator.standard_normal((count, *spec.shape)).astype(dtype)
            else:
                rows[name] = generator.integers(0, spec.counts, (count, spec.size)).astype("i4")
        expected = np.empty((count, 3), dtype)
        batch = Batch(rows["x"], np.zeros(count, np.int32), named=rows)
        network.predict(subject.parameters, batch, expected)
        has_erf = body is _sequence_layers
        check_close(outputs_by(session, rows)["probabilities"], expected, dtype, has_erf)


class _Doubled(Dense):
    """Looks like a layer of the package, and is none."""

    def forward(self, p, at, when):
        super().forward(p, at, when)
        at.out *= 2


class _OtherHead(CrossEntropy):
    pass


def test_layers_of_a_users_own_are_refused_and_named(tmp_path):
    """Also one that inherits from a layer of the package; files of parameters alone hold them."""
    inputs = {"x": Input("numbers", (4,))}
    body = Sequential({"first": Dense(3), "twice": _Doubled(3)})
    subject = _subject_of(Network("own", body, inputs, CrossEntropy()), inputs, "f4")
    path = tmp_path / "m.onnx"
    with pytest.raises(ConfigurationError, match=r"got twice \(_Doubled\); \.npz and") as caught:
        export.write(subject, path, False)
    assert str(caught.value).isprintable() and not list(tmp_path.iterdir())
    head = _subject_of(Network("own", Dense(3), inputs, _OtherHead()), inputs, "f4")
    with pytest.raises(ConfigurationError, match="expected a head of the package, got _OtherHead"):
        export.write(head, path, False)
    export.write(subject, tmp_path / "m.npz", False)
    export.write(subject, tmp_path / "m.safetensors", False)
    with pytest.raises(ConfigurationError, match="expected one that Keras can hold, mlp, logistic"):
        export.write(subject, tmp_path / "m.weights.h5", False)


def test_a_model_of_ones_own_by_the_command(tmp_path):
    """A network in a file of the user's is exported as far as its layers are known, and its program is not run by itself."""
    own = Path(__file__).parents[1] / "own"
    case = Case("mlp", (6,))
    name = f"{own / 'rms_norm.py'}:network"
    path = saved(tmp_path, case, model_name=name)
    with pytest.raises(DataError, match="expected --model"):
        exported(path, tmp_path / "m.npz")
    exported(path, tmp_path / "m.safetensors", model=name)
    with pytest.raises(ConfigurationError, match=r"\(RmsNorm\); \.npz"):
        exported(path, tmp_path / "m.onnx", model=name)
    with pytest.raises(ConfigurationError, match="--torch: expected a built-in model, mlp, "):
        exported(
            path, tmp_path / "t.safetensors", model=f"{own / 'rms_norm.py'}:network", torch=True
        )
    assert not (tmp_path / "t.safetensors").exists()
