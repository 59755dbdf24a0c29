"""An ONNX graph that grows node by node; the modules beside it say which nodes a layer is.

Values have names: those of inputs and parameters are the program's own, those between nodes are ``LAYER/OPERATOR_NUMBER``.
Source: github.com/onnx/onnx, docs/Operators.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lepton_mpi.batch import Input
from lepton_mpi.layers.layer import Array, Shape

# The first with bitwise operators, and the oldest format of a file that may hold it.
OPSET, IR_VERSION = 18, 8


class Place(NamedTuple):
    """A layer's in its network.

    Attributes
    ----------
    name : str
    x : Input
        What comes in, of a row; of a join the first.
    out : tuple of int
        The shape of what comes out, of a row.
    parameters : mapping of str to str
        The layer's own name of each to the network's.
    """

    name: str
    x: Input
    out: Shape
    parameters: Mapping[str, str]


class GraphBuilder:
    """See the module.

    Parameters
    ----------
    arrays : mapping of str to array
        Parameters by the network's names.
    outer : GraphBuilder, optional
        The graph around this one, whose values it may read: a body of Scan.
    """

    def __init__(self, arrays: Mapping[str, Array], outer: "GraphBuilder | None" = None) -> None:
        self.arrays, self.nodes = arrays, list[onnx.NodeProto]()
        self.dtype = next(iter(arrays.values())).dtype
        self.initializers: dict[str, onnx.TensorProto] = outer.initializers if outer else {}
        self._counts: dict[str, int] = outer._counts if outer else {}
        self.at: str = outer.at if outer else ""

    def parameter(self, place: Place, own: str) -> str:
        """The parameter that a layer calls ``own``, as it is."""
        return self._initial(place.parameters[own], self.array(place, own))

    def array(self, place: Place, own: str) -> Array:
        """The same as an array."""
        return self.arrays[place.parameters[own]]

    def constant(self, values: Any, dtype: Any = None) -> str:
        """Numbers, of the parameters' type unless ``dtype`` says otherwise."""
        array = np.asarray(values, dtype or self.dtype)
        return self._initial(self._named("constant"), array)

    def whole(self, *values: int) -> str:
        """int64, shape (n,): shapes, axes."""
        return self.constant(values, np.int64)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output, whose name is returned."""
        return self.add_several(operator, inputs, 1, **attributes)[0]

    def add_several(
        self, operator: str, inputs: Sequence[str], count: int, **attributes: Any
    ) -> list[str]:
        """A node of several outputs."""
        name = self._named(operator.lower())
        outputs = [name] if count == 1 else [f"{name}_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name, **attributes))
        return outputs

    def reshape(self, x: str, *shape: int) -> str:
        """0 stands for the dimension that is there, as that of rows."""
        return self.add("Reshape", x, self.whole(*shape))

    def cast(self, x: str, dtype: Any) -> str:
        """To another type of numbers."""
        return self.add("Cast", x, to=tensor_type(dtype))

    def transpose(self, x: str, *axes: int) -> str:
        return self.add("Transpose", x, perm=axes)

    def slice(self, x: str, start: int, stop: str, axis: int) -> str:
        """Positions from ``start`` up to those that ``stop``, int64 of shape (1,), says."""
        return self.add("Slice", x, self.whole(start), stop, self.whole(axis))

    def size(self, x: str, axis: int) -> str:
        """Of one dimension, int64, shape (1,)."""
        return self.add("Shape", x, start=axis, end=axis + 1)

    def body(self, name: str, inputs: Mapping[str, Shape], outputs: Mapping[str, str]) -> Any:
        """This graph as a body: inputs and, by the names that they get, outputs."""
        of_type = tensor_type(self.dtype)
        nodes = [helper.make_node("Identity", [value], [given]) for given, value in outputs.items()]
        ends = [helper.make_tensor_value_info(given, of_type, None) for given in outputs]
        begins = [
            helper.make_tensor_value_info(given, of_type, [None, *shape])
            for given, shape in inputs.items()
        ]
        return helper.make_graph([*self.nodes, *nodes], name, begins, ends)

    def _initial(self, name: str, array: Array) -> str:
        if name not in self.initializers:
            tensor = numpy_helper.from_array(np.asarray(array, order="C"), name)
            self.initializers[name] = tensor
        return name

    def _named(self, what: str) -> str:
        """A new name for a value of the layer ``at``."""
        count = self._counts[what] = self._counts.get(what, -1) + 1
        return f"{self.at}/{what}_{count}".lstrip("/")


def tensor_type(dtype: Any) -> int:
    """ONNX's number of a NumPy type."""
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
