"""Torch programs of ``gpt``: Hugging Face's GPT-2 where it has the same parts, else the blocks themselves."""

from lepton_mpi.exporting.subject import Subject
from lepton_mpi.models.gpt import Gpt, Shape
from lepton_mpi.models.torch_names import torch_names

_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu"}


def gpt(subject: Subject) -> str:
    model = subject.model
    assert isinstance(model, Gpt)
    names = torch_names("gpt", model.shapes).values()
    is_gpt2 = any(stored.name.startswith("transformer.") for stored in names)
    return _gpt2(model.shape) if is_gpt2 else _blocks(model.shape, subject)


def _gpt2(shape: Shape) -> str:
    tied = "" if shape.tied else ", tie_word_embeddings=False"
    head = "" if shape.tied else "  # with lm_head.weight"
    return f"""from transformers import GPT2Config, GPT2LMHeadModel

model = GPT2LMHeadModel(GPT2Config(
    vocab_size={shape.vocabulary}, n_positions={shape.context}, n_embd={shape.width}, n_layer={shape.layers}, n_head={shape.heads},
    activation_function={_ACTIVATIONS[shape.feed_forward]!r}, bos_token_id=None, eos_token_id=None{tied},{head}
))"""


def _blocks(shape: Shape, subject: Subject) -> str:
    shared, size = shape.shared_heads or shape.heads, shape.width // shape.heads
    names, width = subject.model.shapes, shape.width

    def linear(part: str) -> str:
        inputs, outputs = names[f"block0/{part}/weight"]
        bias = "" if f"block0/{part}/bias" in names else ", bias=False"
        return f"nn.Linear({inputs}, {outputs}{bias})"

    norm = "RMSNorm" if shape.norm == "rms" else "LayerNorm"
    rotated = "        q, k = rotated(q), rotated(k)\n" * (shape.positions == "rotary")
    positions = f"        self.positions = nn.Embedding({shape.context}, {width})\n"
    added = " + self.positions.weight[: tokens.shape[1]]"
    head = f"        self.head = nn.Linear({width}, {shape.vocabulary}, bias=False)\n"
    weight = "self.embedding.weight" if shape.tied else "self.head.weight"
    is_learned = shape.positions == "learned"
    return f"""

def norm():
    return nn.{norm}({width}, eps=1e-5)

{_ROTATED.format(size=size) * (not is_learned)}
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        attention = {{"norm": norm(), "qkv": {linear("attention/body/qkv")}, "out": {linear("attention/body/out")}}}
        feed_forward = {{"norm": norm(), "up": {linear("feed_forward/body/up")}, "out": {linear("feed_forward/body/out")}}}
        self.attention = nn.ModuleDict({{"body": nn.ModuleDict(attention)}})
        self.feed_forward = nn.ModuleDict({{"body": nn.ModuleDict(feed_forward)}})

    def forward(self, x):
        body = self.attention["body"]
        parts = body["qkv"](body["norm"](x)).unflatten(-1, (-1, {size})).transpose(1, 2)
        q, k, v = parts.split([{shape.heads}, {shared}, {shared}], 1)
{rotated}        k, v = (part.repeat_interleave({shape.heads // shared}, 1) for part in (k, v))
        h = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + body["out"](h.transpose(1, 2).flatten(2))
        body = self.feed_forward["body"]
        h = body["up"](body["norm"](x))
        return x + body["out"]({_between(shape)})


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding({shape.vocabulary}, {width})
{positions * is_learned}{head * (not shape.tied)}        for n in range({shape.layers}):
            self.add_module(f"block{{n}}", Block())
        self.norm = norm()

    def forward(self, tokens):
        x = self.embedding(tokens.long()){added * is_learned}
        for n in range({shape.layers}):
            x = self.get_submodule(f"block{{n}}")(x)
        return self.norm(x) @ {weight}.T


model = Gpt()"""


def _between(shape: Shape) -> str:
    """The activation of the feed-forward layer, of h."""
    if shape.feed_forward == "swiglu":
        return "nn.functional.silu(h.chunk(2, -1)[0]) * h.chunk(2, -1)[1]"
    how = ', approximate="tanh"' * (shape.feed_forward == "gelu_tanh")
    return f"nn.functional.gelu(h{how})"


_ROTATED = """
def rotated(x):
    rates = 10_000.0 ** (-torch.arange(0, {size}, 2, dtype=torch.float64) / {size})
    angles = torch.arange(x.shape[2], dtype=torch.float64)[:, None] * rates
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    left, right = x.chunk(2, -1)
    return torch.cat([left * cosine - right * sine, right * cosine + left * sine], -1)

"""
