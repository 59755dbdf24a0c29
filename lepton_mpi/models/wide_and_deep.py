"""``wide_and_deep``: a linear model with crosses of categories, and a multilayer perceptron over embeddings, trained together.

    wide      numbers @ weight + sum of a weight for each category and each cross     remembers what goes together
    deep      dense layers over numbers and an embedding of each category             generalises
    outputs   wide + deep, of which the loss is taken

The wide part begins at 0, the embeddings are normal, dense layers are Glorot's or, before a ReLU, He's. One optimizer trains both
parts, where the paper takes FTRL for the wide one. Source: Cheng et al., "Wide and deep learning for recommender systems", 2016,
arXiv:1606.07792.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.activation import Activation
from lepton_mpi.layers.batch_norm import BatchNorm
from lepton_mpi.layers.column_embedding import ColumnEmbedding
from lepton_mpi.layers.compose import From, Parallel, Part, Reshape, Sequential, Sum
from lepton_mpi.layers.crossed_linear import Cross, CrossedLinear
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.dropout import Dropout
from lepton_mpi.layers.initial import glorot_uniform, he_uniform, zeros
from lepton_mpi.layers.norm import LayerNorm
from lepton_mpi.layers.sync_batch_norm import SyncBatchNorm
from lepton_mpi.models.built_network import network_for
from lepton_mpi.models.model import DataFacts
from lepton_mpi.models.network import Network
from lepton_mpi.models.wide_options import columns_of
from lepton_mpi.wording import did_you_mean, one_line


def build(options: Mapping[str, Any], data: DataFacts) -> Network:
    """From the options of ``wide_options.py``, ``hidden``, ``activation``, ``dropout``, ``loss`` and ``huber_delta``.

    Raises
    ------
    ConfigurationError
        For data without categories, and for crosses of columns that there are not.
    """
    numbers, categories = _inputs_of(data)
    values, outputs = data.inputs[categories].counts, data.output_count
    crosses = _crosses_of(options["crosses"], data.category_names, len(values))
    wide: dict[str, Part] = {
        "categories": From(
            categories, CrossedLinear(values, outputs, crosses, options["cross_buckets"])
        )
    }
    width = options["embedding_width"]
    embedding = ColumnEmbedding(values, (width,) * len(values) if width else None)
    features: dict[str, Part] = {"categories": From(categories, embedding)}
    if numbers:
        linear: dict[str, Part] = {"flat": Reshape()}
        linear["linear"] = Dense(outputs, bias=False, initial=zeros)
        wide = {"numbers": From(numbers, Sequential(linear)), **wide}
        features = {"numbers": From(numbers, Reshape()), **features}
    deep = {"features": Parallel(features), **_dense_layers(options)}
    deep["out"] = Dense(outputs)
    body = Parallel({"wide": Parallel(wide, Sum()), "deep": Sequential(deep)}, Sum())
    return network_for("wide_and_deep", body, data.inputs, options, data)


def _dense_layers(options: Mapping[str, Any]) -> dict[str, Part]:
    """The hidden layers by name."""
    activation, norm, parts = options["activation"], options["norm"], dict[str, Part]()
    initial = he_uniform if activation == "relu" else glorot_uniform
    for number, width in enumerate(options["hidden"]):
        if norm == "none":
            parts[f"hidden{number}"] = Dense(width, activation, initial=initial)
        else:
            parts[f"hidden{number}"] = Dense(width, bias=False, initial=initial)
            is_fused = norm != "layer" and activation == "relu"
            norms: dict[str, Part] = {"batch": BatchNorm(is_fused), "layer": LayerNorm()}
            norms["sync_batch"] = SyncBatchNorm(is_fused)
            parts[f"norm{number}"] = norms[norm]
            if not is_fused:
                parts[f"activation{number}"] = Activation(activation)
        if options["dropout"]:
            parts[f"dropout{number}"] = Dropout(options["dropout"])
    return parts


def _inputs_of(data: DataFacts) -> tuple[str, str]:
    """Names of the inputs of numbers, empty if there is none, and of categories. Raises ConfigurationError."""
    names: dict[str, list[str]] = {"numbers": [], "categories": [], "tokens": []}
    for name, spec in data.inputs.items():
        names[spec.kind].append(name)
    numbers, categories = names["numbers"], names["categories"]
    if names["tokens"] or len(categories) != 1 or len(numbers) > 1:
        raise ConfigurationError(
            "--model wide_and_deep: expected rows with an input of categories, and at most one of numbers, got "
            f"{_listed(data.inputs)}; python -m lepton_mpi prepare TABLE.csv table.h5 --label NAME --categories inputs keeps the "
            "categories of a table apart; --model mlp takes numbers alone"
        )
    return (*numbers, "")[0], categories[0]


def _listed(inputs: Mapping[str, Input]) -> str:
    return ", ".join(f"{name} ({spec.kind}, {spec.shape})" for name, spec in inputs.items())


def _crosses_of(crosses: Sequence[str], names: Sequence[str], count: int) -> list[Cross]:
    """Numbers of the columns of each cross. Data without names have numbers from 0. Raises ConfigurationError."""
    known = list(names) or [str(column) for column in range(count)]
    found = []
    for cross in crosses:
        columns = columns_of(cross)
        for name in columns:
            if name not in known:
                raise ConfigurationError(
                    f"--crosses {cross}: expected columns of categories, {one_line(', '.join(known))}, got "
                    f"{name!r}{did_you_mean(name, known)}"
                )
        found.append(tuple(known.index(name) for name in columns))
    return found
