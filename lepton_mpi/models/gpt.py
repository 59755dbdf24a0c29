"""``gpt``: a decoder of blocks over tokens, in the layout of GPT-2, as options say also that of Llama.

    x = embedding[tokens] + positions
    for each block:  x += out(attention(qkv(norm(x))));  x += down(gelu(up(norm(x))))
    logits = norm(x) @ embedding.T

Initial weights as published for GPT-2: normal of deviation 0.02, those of layers that end in the sum 0.02 / sqrt(2 blocks), biases 0.
Source: Radford et al., "Language models are unsupervised multitask learners", 2019.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.attention import Attention
from lepton_mpi.layers.compose import Part, Residual, Sequential
from lepton_mpi.layers.dense import Dense
from lepton_mpi.layers.dropout import Dropout
from lepton_mpi.layers.embedding import Embedding, Positions
from lepton_mpi.layers.gated import SwiGlu
from lepton_mpi.layers.initial import normal
from lepton_mpi.layers.norm import LayerNorm, RmsNorm
from lepton_mpi.layers.rotary import Rotary
from lepton_mpi.layers.token_loss import TokenLoss
from lepton_mpi.models.model import DataFacts
from lepton_mpi.models.network import Network

_DEVIATION = 0.02


@dataclass(frozen=True)
class Shape:
    """What a gpt is made of; names as in ``gpt_options.py``, context and vocabulary are the data's."""

    context: int
    vocabulary: int
    layers: int = 4
    width: int = 128
    heads: int = 4
    shared_heads: int = 0
    positions: Literal["learned", "rotary"] = "learned"
    norm: Literal["layer", "rms"] = "layer"
    feed_forward: Literal["gelu_tanh", "gelu", "swiglu"] = "gelu_tanh"
    tied: bool = True
    dropout: float = 0.0


class Gpt(Network):
    """See the module.

    Parameters
    ----------
    shape : Shape
    length : int
        Tokens of a row; 0: ``shape.context``. Fewer: each batch goes on where the last one ended, as generation does.
    recompute, activations
        As in ``Network``.
    """

    def __init__(
        self, shape: Shape, length: int = 0, recompute: int = 0, activations: str = "dtype"
    ) -> None:
        self.shape = shape
        tied = "embedding/weight" if shape.tied else ""
        tokens = Input("tokens", (length or shape.context,), shape.vocabulary)
        head = TokenLoss(shape.vocabulary, tied)
        body = _body(shape, length > 0)
        super().__init__("gpt", body, {"tokens": tokens}, head, recompute, activations)

    def __str__(self) -> str:
        shape = self.shape
        words = f"gpt {shape.layers}x{shape.width}, {shape.heads} heads, context {shape.context}"
        return words + (f", dropout {shape.dropout:g}" if shape.dropout else "")

    def step_by_step(self) -> "Gpt":
        """The same model for one token after the other, with a cache of keys and values; its first token begins a text."""
        return Gpt(self.shape, 1)


def _body(shape: Shape, continues: bool) -> Sequential:
    parts: dict[str, Part] = {
        "embedding": Embedding(shape.vocabulary, shape.width, normal(_DEVIATION))
    }
    if shape.positions == "learned":
        parts["positions"] = Positions(shape.context, normal(_DEVIATION), continues)
    if shape.dropout:
        parts["dropout"] = Dropout(shape.dropout)
    for number in range(shape.layers):
        block = {"attention": _attention(shape, continues), "feed_forward": _feed_forward(shape)}
        parts[f"block{number}"] = Sequential(block)
    parts["norm"] = _norm(shape)
    return Sequential(parts)


def _attention(shape: Shape, continues: bool) -> Residual:
    shared, size = shape.shared_heads or shape.heads, shape.width // shape.heads
    turned = shape.heads + shared
    parts: dict[str, Part] = {
        "norm": _norm(shape),
        "qkv": _dense((turned + shared) * size, shape, 1),
    }
    if shape.positions == "rotary":
        parts["rotary"] = Rotary(turned, size, shape.context, continues=continues)
    cache = shape.context if continues else 0
    parts["heads"] = Attention(shape.heads, shared, cache=cache)
    return _ending(parts, shape)


def _feed_forward(shape: Shape) -> Residual:
    parts: dict[str, Part] = {"norm": _norm(shape)}
    if shape.feed_forward == "swiglu":
        # Two thirds of 4 times the width, so that three matrices have as many weights as two.
        parts["up"] = _dense(2 * (8 * shape.width // 3), shape, 1)
        parts["gate"] = SwiGlu()
    else:
        parts["up"] = Dense(4 * shape.width, shape.feed_forward, initial=normal(_DEVIATION))
    return _ending(parts, shape)


def _ending(parts: dict[str, Part], shape: Shape) -> Residual:
    parts["out"] = _dense(shape.width, shape, 2 * shape.layers)
    if shape.dropout:
        parts["dropout"] = Dropout(shape.dropout)
    return Residual(Sequential(parts))


def _dense(outputs: int, shape: Shape, summed: int) -> Dense:
    """``summed``: how many such layers end in one sum. Llama's have no bias, nor have their norms."""
    deviation = _DEVIATION / sqrt(summed)
    return Dense(outputs, bias=shape.norm == "layer", initial=normal(deviation))


def _norm(shape: Shape) -> Part:
    return LayerNorm() if shape.norm == "layer" else RmsNorm()


def build(options: Mapping[str, Any], data: DataFacts) -> Gpt:
    """From the options of ``gpt_options.py``, ``dropout``, ``recompute`` and ``activations``. Raises ConfigurationError for data that are no text."""
    (x, *others) = data.inputs.values()
    if others or x.kind != "tokens" or len(x.shape) != 1 or data.class_count:
        raise ConfigurationError(
            f"--model gpt: expected a text in one piece, of tokens, got {', '.join(data.inputs)}, {data.outputs_text}"
        )
    names = ("layers", "width", "heads", "shared_heads", "positions", "norm", "feed_forward")
    chosen = {name: options[name] for name in (*names, "tied", "dropout")}
    shape = Shape(x.shape[0], data.output_count, **chosen)
    return Gpt(shape, recompute=options["recompute"], activations=options["activations"])
