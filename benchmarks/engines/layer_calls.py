"""One layer of this engine on its own: its arrays, and its two calls."""

import numpy as np

from lepton_mpi.batch import Input
from lepton_mpi.layers.layer import Array, Arrays, Layer, When


class LayerCalls:
    """A layer with memory around it, as a network's plan would give it.

    Parameters
    ----------
    layer : Layer
    x : Input
        Of one row.
    rows : int
    wants_grad_x : bool
        Whether ``backward`` fills ``grad_x``.

    Attributes
    ----------
    parameters, gradients : dict of str to array
        float32, all 0 until somebody fills them; so are ``at.x`` and ``at.grad_out``.
    at : Arrays
    """

    def __init__(self, layer: Layer, x: Input, rows: int, wants_grad_x: bool = True) -> None:
        self._layer = layer
        shapes = {name: found.shape for name, found in layer.parameters(x).items()}
        self.parameters = {name: _zeros(shape) for name, shape in shapes.items()}
        self.gradients = {name: _zeros(shape) for name, shape in shapes.items()}
        codes = None if x.kind == "numbers" else np.int32
        given, out = _zeros((rows, *x.shape), codes), _zeros((rows, *layer.out_shape(x)))
        self.at = at = Arrays((given,), out, 0)
        at.grad_out = np.zeros_like(out)
        at.grad_x = np.zeros_like(given) if wants_grad_x and codes is None else None
        at.grad_xs = (at.grad_x,)
        at.memory = {
            name: _zeros(memory.shape, memory.dtype)
            for name, memory in layer.memory(rows, x).items()
        }
        self._when = When(True, 1, np.arange(rows))

    def forward(self) -> None:
        """Fill ``at.out``, as in training."""
        self._layer.forward(self.parameters, self.at, self._when)

    def backward(self) -> None:
        """Fill ``gradients`` and ``at.grad_x``."""
        self._layer.backward(self.parameters, self.at, self.gradients, self._when)


def _zeros(shape: tuple[int, ...], dtype: type[np.generic] | None = None) -> Array:
    return np.zeros(shape, dtype or np.float32)
