"""Layers of language models give torch's values and gradients, to 1e-5 in float32; stored by ``tests/torch_layers.py``."""

import numpy as np
import pytest

from lepton_mpi.batch import Input
from lepton_mpi.layers.activation import Activation
from lepton_mpi.layers.attention import Attention
from lepton_mpi.layers.embedding import Embedding
from lepton_mpi.layers.gated import SwiGlu
from lepton_mpi.layers.layer import Array, Arrays, Layer, When
from lepton_mpi.layers.norm import LayerNorm, RmsNorm
from lepton_mpi.layers.token_loss import TokenLoss
from tests.torch_layers import FILE

STORED = dict(np.load(FILE))
LAYERS: dict[str, Layer] = {
    "layer norm": LayerNorm(),
    "rms norm": RmsNorm(),
    "gelu": Activation("gelu"),
    "gelu_tanh": Activation("gelu_tanh"),
    "silu": Activation("silu"),
    "swiglu": SwiGlu(),
    "embedding": Embedding(11, 5),
    "attention, causal": Attention(4),
    "attention, full": Attention(4, is_causal=False),
    "grouped, causal": Attention(4, 2),
    "grouped, full": Attention(4, 2, is_causal=False),
}


def _of(prefix: str) -> dict[str, Array]:
    return {
        key.removeprefix(prefix): array for key, array in STORED.items() if key.startswith(prefix)
    }


def _close(mine: Array, torchs: Array) -> None:
    assert mine.dtype == torchs.dtype == np.float32
    scale = max(1, np.abs(torchs).max())
    np.testing.assert_allclose(mine, torchs, rtol=0, atol=1e-5 * scale)


def _arrays(layer: Layer, x: Array, spec: Input) -> Arrays:
    at = Arrays((x,), np.full((len(x), *layer.out_shape(spec)), np.nan, np.float32), 0)
    for name, memory in layer.memory(len(x), spec).items():
        empty = np.zeros if memory.lives == "plan" else np.empty
        at.memory[name] = empty(memory.shape, memory.dtype or np.float32)
    return at


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_torchs_values_and_gradients(name):
    layer, x = LAYERS[name], STORED[f"{name}/x"]
    is_codes = x.dtype == np.int32
    spec = Input("tokens", x.shape[1:], 11) if is_codes else Input("numbers", x.shape[1:])
    p, expected = _of(f"{name}/parameter/"), _of(f"{name}/grad/")
    assert layer.parameters(spec).keys() == p.keys()
    at = _arrays(layer, x, spec)
    layer.forward(p, at, When(True))
    _close(at.out, STORED[f"{name}/out"])
    at.grad_out, grad = (
        STORED[f"{name}/slope"],
        {key: np.full_like(a, np.nan) for key, a in p.items()},
    )
    at.grad_x = None if is_codes else np.full_like(x, np.nan)
    layer.backward(p, at, grad, When(True))
    found = grad if at.grad_x is None else grad | {"x": at.grad_x}
    assert found.keys() == expected.keys()
    for key, mine in found.items():
        _close(mine, expected[key])


def test_the_loss_of_tokens_is_torchs():
    """Two targets do not count; summed over the others."""
    stored = _of("loss/")
    head, x = TokenLoss(len(stored["weight"])), stored["x"]
    at = _arrays(_Shaped(head), x, Input("numbers", x.shape[1:]))
    at.grad_x, grad = np.full_like(x, np.nan), {"weight": np.full_like(stored["weight"], np.nan)}
    y = stored["y"].astype(np.int32)
    loss, _ = head.loss_and_gradient({"weight": stored["weight"]}, at, grad, y)
    assert loss == pytest.approx(float(stored["loss"]), rel=1e-6)
    _close(at.grad_x, stored["grad/x"])
    _close(grad["weight"], stored["grad/weight"])


class _Shaped:
    """A head's memory, with an output that nobody reads."""

    def __init__(self, head: TokenLoss) -> None:
        self.memory = head.memory

    def out_shape(self, x: Input) -> tuple[int, ...]:
        return ()
