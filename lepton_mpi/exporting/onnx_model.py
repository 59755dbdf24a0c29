"""A trained model as ONNX: inputs as a batch has them, the layers of its network, and outputs by name.

    inputs      x, categories, tokens, …     the batch's arrays by name, channels last; rows are a dimension of any size ("batch"), and the
                                             positions of a gpt ("length"), up to its context
    outputs     logits, probabilities        of classes, (batch, classes); of tokens at every position, (batch, length, tokens)
                prediction                   of targets, (batch, targets)

With preprocessing inputs of numbers are float64, as a data file has them before normalisation, so that no digit of a year or a time is lost
before the mean goes; ``prediction`` is float64 in the units of the file. Without it both are of the parameters' type, normalised and scaled
as in training. Codes of categories and tokens are int32 either way. The metadata say what numbers stand for (``subject.about``).
Onnx's checker, with shapes inferred, has passed the model before it is returned.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper

from lepton_mpi import __version__
from lepton_mpi.batch import Input
from lepton_mpi.data.target_scale import TargetScale
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.exporting import (
    onnx_language,
    onnx_norms,
    onnx_pointwise,
    onnx_recurrent,
    onnx_tables,
    onnx_windows,
)
from lepton_mpi.exporting.onnx_graph import IR_VERSION, OPSET, GraphBuilder, Place, tensor_type
from lepton_mpi.exporting.subject import Subject
from lepton_mpi.layers.activation import Activation
from lepton_mpi.layers.attention import Attention
from lepton_mpi.layers.batch_norm import BatchNorm
from lepton_mpi.layers.column_embedding import ColumnEmbedding
from lepton_mpi.layers.compose import Concatenate, Node, Sum
from lepton_mpi.layers.convolution import Conv1d, Conv2d
from lepton_mpi.layers.crossed_linear import CrossedLinear
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.dropout import Dropout
from lepton_mpi.layers.embedding import Embedding, Positions
from lepton_mpi.layers.gated import SwiGlu
from lepton_mpi.layers.group_norm import GroupNorm
from lepton_mpi.layers.gru import Gru
from lepton_mpi.layers.losses import CrossEntropy, Huber, SquaredError
from lepton_mpi.layers.norm import LayerNorm, RmsNorm
from lepton_mpi.layers.pooling import AveragePool, MaxPool
from lepton_mpi.layers.rotary import Rotary
from lepton_mpi.layers.sync_batch_norm import SyncBatchNorm
from lepton_mpi.layers.token_loss import TokenLoss
from lepton_mpi.models.gpt import Gpt
from lepton_mpi.models.network import Network
from lepton_mpi.wording import size_text

# From a layer, its place and the names of what comes in to the name of what comes out. A class that inherits from one of these may compute
# anything, so it has to be here itself.
LAYERS: Mapping[type, Callable[..., str]] = {
    Activation: onnx_pointwise.activation,
    Attention: onnx_language.attention,
    AveragePool: onnx_windows.average_pool,
    BatchNorm: onnx_norms.batch_norm,
    ColumnEmbedding: onnx_tables.column_embedding,
    Concatenate: onnx_pointwise.concatenated,
    Conv1d: onnx_windows.convolution,
    Conv2d: onnx_windows.convolution,
    CrossedLinear: onnx_tables.crossed_linear,
    Dense: onnx_pointwise.dense,
    Dropout: onnx_pointwise.dropout,
    Embedding: onnx_language.embedding,
    GroupNorm: onnx_norms.group_norm,
    Gru: onnx_recurrent.gru,
    LayerNorm: onnx_norms.layer_norm,
    MaxPool: onnx_windows.max_pool,
    Positions: onnx_language.positions,
    RmsNorm: onnx_norms.rms_norm,
    Rotary: onnx_language.rotary,
    Sum: onnx_pointwise.added,
    SwiGlu: onnx_pointwise.swiglu,
    SyncBatchNorm: onnx_norms.batch_norm,
}
# Of a message of protobuf, which an ONNX file is, without room for nodes and names.
BYTES_MAX = (1 << 31) - (1 << 24)
_HEADS = (CrossEntropy, Huber, SquaredError, TokenLoss)


def make(subject: Subject, preprocess: bool) -> onnx.ModelProto:
    """See the module. Raises ConfigurationError for layers that are not of the package, and for more than a file can hold."""
    network, arrays = subject.network()
    _check_layers(network)
    _check_size(network, sum(array.nbytes for array in arrays.values()))
    graph = GraphBuilder(arrays)
    inputs, values = _inputs(graph, subject, network, preprocess)
    output = _lay(graph, network, values)
    outputs = _end(graph, subject, network, output, preprocess)
    # Of float64 convolutions in groups there are more numbers than the parameters have.
    _check_size(network, sum(len(each.raw_data) for each in graph.initializers.values()))
    made = helper.make_graph(
        graph.nodes, network.name, inputs, outputs, list(graph.initializers.values())
    )
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="lepton_mpi",
        producer_version=__version__,
    )
    facts = subject.about() | {"preprocessing": "in the graph" if preprocess else "by the caller"}
    helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    return model


def _check_layers(network: Network) -> None:
    """Raises ConfigurationError, with the names of all that are not known."""
    nodes = [node for node in network.graph.nodes if node.layer is not None]
    unknown = [f"{n.name} ({type(n.layer).__name__})" for n in nodes if type(n.layer) not in LAYERS]
    if unknown:
        raise ConfigurationError(
            f"model {network.name}: expected layers of the package, whose formulas are known, got {', '.join(unknown)}; .npz and "
            ".safetensors hold the parameters"
        )
    head = network.graph.head.layer
    if type(head) not in _HEADS:
        raise ConfigurationError(
            f"model {network.name}: expected a head of the package, got {type(head).__name__}; .npz and .safetensors hold the parameters"
        )


def _check_size(network: Network, size: int) -> None:
    """Raises ConfigurationError."""
    if size > BYTES_MAX:
        raise ConfigurationError(
            f"model {network.name}: expected at most {size_text(BYTES_MAX)} of constants, which an ONNX file holds, got "
            f"{size_text(size)}; .safetensors and .npz hold more"
        )


def _inputs(
    graph: GraphBuilder, subject: Subject, network: Network, preprocess: bool
) -> tuple[list[Any], dict[int, str]]:
    """What the graph is given, and the network's values of the inputs, normalised and in its shapes."""
    data, infos, values, start = subject.data, [], dict[int, str](), 0
    # A single input may have another name in the network.
    wanted = dict(network.inputs)
    if len(wanted) == 1:
        wanted = dict(zip(data.inputs, wanted.values(), strict=True))
    numbers = {name: number for number, name in enumerate(wanted)}
    for name, spec in data.inputs.items():
        dims: list[Any] = ["batch", *spec.shape]
        if isinstance(network, Gpt):
            dims = ["batch", "length"]
        is_codes = spec.kind != "numbers"
        dtype = np.int32 if is_codes else np.float64 if preprocess else graph.dtype
        infos.append(helper.make_tensor_value_info(name, tensor_type(dtype), dims))
        value, graph.at = name, f"{name}_preprocessing"
        if not is_codes:
            part = slice(start, start + spec.size)
            start += spec.size
            if preprocess:
                value = _normalised(graph, value, spec, data.normalisation, part)
        if wanted[name].shape != spec.shape:
            value = graph.reshape(value, 0, *wanted[name].shape)
        values[numbers[name]] = value
    return infos, values


def _normalised(graph: GraphBuilder, x: str, spec: Input, normalisation: Any, part: slice) -> str:
    """``(x - shift) * scale``, the difference in float64."""
    shift, scale = (values[part].reshape(spec.shape) for values in normalisation)
    centred = graph.add("Sub", x, graph.constant(_short(shift), np.float64))
    return graph.add("Mul", graph.cast(centred, graph.dtype), graph.constant(_short(scale)))


def _short(values: np.ndarray[Any, Any]) -> Any:
    """One number in place of many equal ones."""
    return values.flat[0] if values.size and (values == values.flat[0]).all() else values


def _lay(graph: GraphBuilder, network: Network, values: dict[int, str]) -> str:
    """All layers; returns what the head reads."""
    of_graph = network.graph
    for node in of_graph.nodes:
        graph.at = node.name
        xs = [values[value] for value in node.inputs]
        out = of_graph.values[node.output].shape
        if node.layer is None:
            values[node.output] = graph.reshape(xs[0], 0, *out)
        else:
            place = _place(network, node)
            values[node.output] = LAYERS[type(node.layer)](graph, node.layer, place, *xs)
    return values[of_graph.head.inputs[0]]


def _place(network: Network, node: Node) -> Place:
    values = network.graph.values
    return Place(node.name, values[node.inputs[0]], values[node.output].shape, node.parameters)


def _end(
    graph: GraphBuilder, subject: Subject, network: Network, output: str, preprocess: bool
) -> list[Any]:
    """The outputs by name."""
    head, graph.at = network.graph.head, "head"
    shape: list[Any] = ["batch", *network.graph.output.shape]
    dtype = graph.dtype
    if isinstance(head.layer, TokenLoss):
        shape = ["batch", "length" if isinstance(network, Gpt) else shape[1], head.layer.values]
        place = Place("head", network.graph.output, (), head.parameters)
        turned = graph.transpose(graph.parameter(place, "weight"), 1, 0)
        output = graph.add("MatMul", output, turned)
    if isinstance(head.layer, CrossEntropy | TokenLoss):
        found = {"logits": output, "probabilities": graph.add("Softmax", output, axis=-1)}
    else:
        if preprocess:
            output, dtype = _unscaled(graph, output, subject.data.target_scale), np.dtype("f8")
        found = {"prediction": output}
    nodes = [helper.make_node("Identity", [value], [name]) for name, value in found.items()]
    graph.nodes.extend(nodes)
    return [helper.make_tensor_value_info(name, tensor_type(dtype), shape) for name in found]


def _unscaled(graph: GraphBuilder, y: str, how: TargetScale) -> str:
    """As ``TargetScale.unscaled``, in float64."""
    y = graph.cast(y, np.float64)
    y = graph.add("Div", y, graph.constant(how.scale, np.float64))
    y = graph.add("Add", y, graph.constant(how.shift, np.float64))
    if not how.log.any():
        return y
    powers = graph.add("Sub", graph.add("Exp", y), graph.constant(1, np.float64))
    return graph.add("Where", graph.constant(how.log, np.bool_), powers, y)


def value_text(value: onnx.ValueInfoProto) -> str:
    """Of an input or output, for people: name, type and shape."""
    of = value.type.tensor_type
    dims = [dim.dim_param or str(dim.dim_value) for dim in of.shape.dim]
    return f"{value.name} {helper.tensor_dtype_to_np_dtype(of.elem_type)} ({', '.join(dims)})"
