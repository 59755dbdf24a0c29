"""Gated recurrent unit (GRU): a state h that each step of a sequence changes, as far as gates let it; h is 0 before the first.

    r = sigmoid(x @ W_ir + b_ir + h @ W_hr + b_hr)              how much of h the new value sees (reset)
    z = sigmoid(x @ W_iz + b_iz + h @ W_hz + b_hz)              how much of h stays (update)
    n = tanh(x @ W_in + b_in + r * (h @ W_hn + b_hn))           the new value
    h' = (1 - z) * n + z * h

Shapes: x (rows, T, m), weight_ih (m, 3 k), weight_hh (k, 3 k), bias_ih and bias_hh (3 k,), columns of r, z, n side by side; out (rows, k),
the last state, or (rows, T, k), all of them. With g the gradient by h', from the last step to the first::

    by n's argument: g * (1 - z) * (1 - n**2)          by z's: g * (h - n) * z * (1 - z)
    by r's: (that of n) * (h @ W_hn + b_hn) * r * (1 - r)
    grad_h = g * z + (those of r and z, and r times that of n) @ weight_hh.T

Source: Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation", 2014,
arXiv:1406.1078, with r behind the product and two biases, as torch.nn.GRU and cuDNN have it.
"""

from collections.abc import Mapping
from math import sqrt
from typing import Literal

from numpy import int64

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.kernels.product_kernels import product
from lepton_mpi.kernels.transpose_kernels import transpose
from lepton_mpi.layers import dense_layer_kernels as dense_kernels
from lepton_mpi.layers import gru_kernels as kernels
from lepton_mpi.layers.compose import Parallel
from lepton_mpi.layers.initial import uniform
from lepton_mpi.layers.layer import Array, Arrays, Layer, Memory, Parameter, Shape, When

Returns = Literal["last", "all"]


class Gru(Layer):
    """See the module.

    Parameters
    ----------
    width : int
        Numbers of the state, k.
    returns : {"last", "all"}
        The state after the last step, or after each of them.
    is_reversed : bool
        From the end of the sequence to its beginning: the last state is that at position 0, and of all states each stands at the
        position that it was made at.
    """

    kernels = (
        kernels.order_by_time,
        kernels.recur,
        kernels.recur_gradient,
        dense_kernels.dense,
        dense_kernels.dense_gradient,
        product,
        transpose,
    )

    def __init__(self, width: int, returns: Returns = "last", is_reversed: bool = False) -> None:
        self.width, self.returns, self.is_reversed = width, returns, is_reversed

    def parameters(self, x: Input) -> Mapping[str, Parameter]:
        if x.kind != "numbers" or len(x.shape) != 2 or not x.shape[0]:
            raise ConfigurationError(
                f"a GRU: expected rows of numbers of shape (steps, features), one step at least, got {x.kind} of shape {x.shape}"
            )
        gates, initial = 3 * self.width, uniform(1 / sqrt(self.width))
        return {
            "weight_ih": Parameter((x.shape[1], gates), initial, decays=True),
            "weight_hh": Parameter((self.width, gates), initial, decays=True),
            "bias_ih": Parameter((gates,), initial, decays=False),
            "bias_hh": Parameter((gates,), initial, decays=False),
        }

    def out_shape(self, x: Input) -> Shape:
        return (self.width,) if self.returns == "last" else (x.shape[0], self.width)

    def memory(self, rows: int, x: Input) -> Mapping[str, Memory]:
        (length, features), k = x.shape, self.width
        numbers = dict.fromkeys(
            ("there", "back", "numbers"), Memory((rows * length,), "scratch", int64)
        )
        return numbers | {
            "gates": Memory((rows * length, 3 * k), "kept", rounds=True),
            "candidates": Memory((rows * length, k), "kept", rounds=True),
            "states": Memory((rows * (length + 1), k), "kept", rounds=True),
            "products": Memory((rows, 3 * k), "scratch"),
            "of_state": Memory((rows * length, 3 * k), "backward"),
            "slope": Memory((2 * rows, k), "backward"),
            "turned": Memory((3 * k, k), "backward"),
            "turned_x": Memory((3 * k, features), "grad_x"),
        }

    def forward(self, p: Mapping[str, Array], at: Arrays, when: When) -> None:
        memory, gates, out = at.memory, at.memory["gates"], at.out.reshape(-1, self.width)
        self._order(at)
        given = (
            at.x.reshape(-1, at.x.shape[2]),
            memory["there"],
            False,
            p["weight_ih"],
            p["bias_ih"],
        )
        dense_kernels.dense(*given, dense_kernels.NO_ACTIVATION, gates, gates[:0])
        of_state = memory["numbers"], memory["there"], p["weight_hh"], p["bias_hh"]
        filled = gates, memory["candidates"], memory["states"], memory["products"], out
        kernels.recur(*of_state, *filled)

    def backward(
        self, p: Mapping[str, Array], at: Arrays, grad: Mapping[str, Array], when: When
    ) -> None:
        memory, gates, of_state = at.memory, at.memory["gates"], at.memory["of_state"]
        rows, turned, x = len(at.x), memory["turned"], at.x.reshape(-1, at.x.shape[2])
        self._order(at)
        transpose(p["weight_hh"], turned)
        kept = gates, memory["candidates"], memory["states"]
        scratch = memory["slope"][:rows], memory["slope"][rows:]
        slopes = at.grad_out.reshape(-1, self.width), *scratch, of_state
        kernels.recur_gradient(memory["numbers"], memory["there"], turned, *kept, *slopes)
        filled = grad["weight_ih"], grad["bias_ih"]
        dense_kernels.dense_gradient(x, memory["there"], False, gates, *filled)
        before, filled = memory["states"], (grad["weight_hh"], grad["bias_hh"])
        dense_kernels.dense_gradient(before, memory["numbers"], True, of_state, *filled)
        if at.grad_x is not None:
            transpose(p["weight_ih"], memory["turned_x"])
            product(gates, memory["back"], memory["turned_x"], at.grad_x.reshape(x.shape))

    def _order(self, at: Arrays) -> None:
        rows, length = at.x.shape[:2]
        tables = at.memory["there"], at.memory["back"]
        kernels.order_by_time(rows, length, self.is_reversed, *tables)


def bidirectional(width: int, returns: Returns = "last") -> Parallel:
    """Two layers, one of them from the end on, side by side in the last dimension: (rows, …, 2 width).

    Source: Schuster and Paliwal, "Bidirectional recurrent neural networks", 1997.
    """
    return Parallel([Gru(width, returns), Gru(width, returns, is_reversed=True)])
