"""Gated recurrent units as nodes of ONNX: its GRU in float32, which has the gates z, r, n; in float64, where onnxruntime has none, a Scan."""

import numpy as np

from lepton_mpi.exporting.onnx_graph import GraphBuilder, Place
from lepton_mpi.layers.gru import Gru
from lepton_mpi.layers.layer import Array


def gru(graph: GraphBuilder, layer: Gru, place: Place, x: str) -> str:
    if graph.dtype != np.float32:
        return _by_scan(graph, layer, place, x)
    weights = [
        graph.constant(_gates_z_r_n(graph.array(place, name)).T[None])
        for name in ("weight_ih", "weight_hh")
    ]
    biases = [_gates_z_r_n(graph.array(place, name)) for name in ("bias_ih", "bias_hh")]
    states, last = graph.add_several(
        "GRU",
        [graph.transpose(x, 1, 0, 2), *weights, graph.constant(np.concatenate(biases)[None])],
        2,
        hidden_size=layer.width,
        linear_before_reset=1,
        direction="reverse" if layer.is_reversed else "forward",
    )
    if layer.returns == "last":
        return graph.add("Squeeze", last, graph.whole(0))
    # From (steps, directions, rows, width).
    return graph.transpose(graph.add("Squeeze", states, graph.whole(1)), 1, 0, 2)


def _gates_z_r_n(array: Array) -> Array:
    """Columns of gates in ONNX's order, from r, z, n."""
    r, z, n = np.split(array, 3, axis=-1)
    return np.concatenate([z, r, n], axis=-1)


def _by_scan(graph: GraphBuilder, layer: Gru, place: Place, x: str) -> str:
    """What goes from step to step is the body; the products of x are made before, for all steps."""
    width, reverse = layer.width, int(layer.is_reversed)
    of_x = graph.add("MatMul", x, graph.parameter(place, "weight_ih"))
    of_x = graph.add("Add", of_x, graph.parameter(place, "bias_ih"))
    shape = graph.add("Concat", graph.size(x, 0), graph.whole(width), axis=0)
    zeros = graph.add("Expand", graph.constant(0), shape)
    last, states = graph.add_several(
        "Scan",
        [zeros, graph.transpose(of_x, 1, 0, 2)],
        2,
        num_scan_inputs=1,
        scan_input_directions=[reverse],
        scan_output_directions=[reverse],
        body=_step(graph, width, place),
    )
    return last if layer.returns == "last" else graph.transpose(states, 1, 0, 2)


def _step(graph: GraphBuilder, width: int, place: Place) -> object:
    inner = GraphBuilder(graph.arrays, graph)
    state, given = (f"{place.name}/{name}" for name in ("state", "step"))
    parts = {"axis": -1, "num_outputs": 3}
    of_state = inner.add("MatMul", state, graph.parameter(place, "weight_hh"))
    of_state = inner.add("Add", of_state, graph.parameter(place, "bias_hh"))
    r, z, n = inner.add_several("Split", [given], 3, **parts)
    r_state, z_state, n_state = inner.add_several("Split", [of_state], 3, **parts)
    r = inner.add("Sigmoid", inner.add("Add", r, r_state))
    z = inner.add("Sigmoid", inner.add("Add", z, z_state))
    n = inner.add("Tanh", inner.add("Add", n, inner.add("Mul", r, n_state)))
    new = inner.add("Mul", inner.add("Sub", inner.constant(1), z), n)
    after = inner.add("Add", new, inner.add("Mul", z, state))
    inputs = {state: (width,), given: (3 * width,)}
    outputs = {f"{place.name}/{name}": after for name in ("state_after", "state_kept")}
    return inner.body(f"{place.name}/body", inputs, outputs)
