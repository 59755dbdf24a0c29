"""The parameters of each model as torch has them: one table, by which files are read (``--initial``) and written.

    ours (names of ``Model.shapes``)                    theirs (keys of a torch state dict)
    resnet*  stage1_block0/residual/body/first/conv/weight   layer2.0.conv1.weight                   as torchvision
    gpt      block0/attention/body/qkv/weight                transformer.h.0.attn.c_attn.weight      as Hugging Face's GPT-2
    others   block0/conv/weight                              block0.conv.weight                      the same with dots

Layouts: weights of convolutions are (height, width, in, out) here and (out, in, height, width) there; of dense layers (in, out) and
(out, in), but for GPT-2's Conv1D, (in, out) in both; tables of embeddings, and what has one dimension, are the same. A GRU's gates are r, z, n in
both. Behind a flattened image a dense layer counts its inputs by (place, channel) here and by (channel, place) there.
Sources: torchvision/models/resnet.py, transformers/models/gpt2/modeling_gpt2.py, documentation of torch.nn.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_mpi.layers.layer import Shape

Array = NDArray[Any]


@dataclass(frozen=True)
class Stored:
    """How another program keeps a parameter.

    Attributes
    ----------
    name : str
        By which it is written, and read.
    own_shape, shape : tuple of int
        Here, and there.
    split, axes : tuple of int
        ``array.reshape(split).transpose(axes).reshape(shape)`` is theirs.
    aliases : tuple of str
        Other names by which it is read.
    repeats : tuple of str
        Names under which a file may have the same numbers once more.
    may_be_longer : bool
        Whether the first rows of a longer array are what the parameter is: positions of a context.
    """

    name: str
    own_shape: Shape
    shape: Shape
    split: Shape
    axes: tuple[int, ...]
    aliases: tuple[str, ...] = ()
    repeats: tuple[str, ...] = ()
    may_be_longer: bool = False

    @classmethod
    def plain(cls, name: str, shape: Shape) -> "Stored":
        """In the same layout."""
        return cls(name, shape, shape, shape, tuple(range(len(shape))))

    def theirs(self, array: Array) -> Array:
        """What is written of a parameter, contiguous."""
        turned = array.reshape(self.split).transpose(self.axes).reshape(self.shape)
        return np.ascontiguousarray(turned)

    def ours(self, array: Array) -> Array:
        """The parameter of an array that was written, whose shape is ``shape``, or longer where that may be."""
        if self.may_be_longer:
            array = array[: self.shape[0]]
        split = tuple(self.split[axis] for axis in self.axes)
        back = tuple(np.argsort(self.axes))
        return array.reshape(split).transpose(back).reshape(self.own_shape)

    def fits(self, shape: Shape) -> bool:
        """Whether an array of this shape can be read."""
        is_longer = self.may_be_longer and shape[:1] > self.shape[:1]
        return shape == self.shape or (is_longer and shape[1:] == self.shape[1:])


def torch_names(model: str, shapes: Mapping[str, Shape]) -> dict[str, Stored]:
    """How torch keeps each parameter of a built-in model; of any other, by its own names with dots, in its own layout.

    Parameters
    ----------
    model : str
        ``--model``.
    shapes
        ``Model.shapes``.
    """
    if model not in _LAYOUT_AS_HERE:
        return {name: Stored.plain(name.replace("/", "."), shape) for name, shape in shapes.items()}
    is_gpt2 = model == "gpt" and _is_gpt2(shapes)
    found = {}
    for name, shape in shapes.items():
        names = _names_of(model, name, is_gpt2)
        is_same = is_gpt2 or any(fnmatchcase(name, same) for same in _LAYOUT_AS_HERE[model])
        split, axes, theirs = _turn(model, name, shape, shapes)
        if is_same:
            split, axes, theirs = shape, tuple(range(len(shape))), shape
        found[name] = Stored(
            *(names[0], shape, theirs, split, axes, names[1:]),
            # A tied output layer is the embedding, which some files have twice.
            ("lm_head.weight",) if _is_tied(model, name, shapes) else (),
            _is_context(model, name),
        )
    return found


def own_names(model: str, shapes: Mapping[str, Shape]) -> dict[str, Stored]:
    """How a checkpoint of this program keeps each parameter: as it is."""
    return {
        name: replace(Stored.plain(name, shape), may_be_longer=_is_context(model, name))
        for name, shape in shapes.items()
    }


def is_no_parameter(name: str) -> bool:
    """Whether a name of a torch file is known to be something else: counters of batches, masks of causal attention."""
    return _NO_PARAMETER.search(name) is not None


def options_of(model: str, found: Mapping[str, Shape]) -> str:
    """Options of a model whose parameters have these shapes, by torch's names or ours; empty if they do not say it."""

    def shape_of(*patterns: str) -> list[Shape]:
        return [s for n, s in found.items() if any(fnmatchcase(n, one) for one in patterns)]

    if model == "gpt":
        tables = shape_of("*wte.weight", "embedding[./]weight")
        blocks = {
            m[1] for name in found if (m := re.search(r"(?:^|\.)h\.(\d+)\.|^block(\d+)", name))
        }
        if len(tables) == 1 and len(tables[0]) == 2 and blocks:
            vocabulary, width = tables[0]
            return f"--layers {len(blocks)} --width {width}, and a vocabulary of {vocabulary}"
    if model.startswith("resnet"):
        stems = shape_of("conv1.weight")
        if len(stems) == 1 and len(stems[0]) == 4:
            return f"--width {stems[0][0]}, and images of {stems[0][1]} channels"
    if model == "mlp":
        layers = shape_of("layer*.weight")
        if layers and all(len(shape) == 2 for shape in layers):
            return f"--hidden {' '.join(str(shape[0]) for shape in layers[:-1])}".rstrip()
    return ""


def without_wrappers(names: list[str]) -> dict[str, str]:
    """Names without what DataParallel and ``torch.compile`` put before all of them, to the names of the file."""
    start = 0
    while names and (
        wrapper := next((w for w in _WRAPPERS if all(n.startswith(w, start) for n in names)), "")
    ):
        start += len(wrapper)
    return {name[start:]: name for name in names}


# Built-in models, and patterns of parameters with two dimensions or more that are the same in both layouts.
_LAYOUT_AS_HERE: dict[str, tuple[str, ...]] = {
    "mlp": (),
    "logistic": (),
    "cnn": (),
    "tcn": (),
    "speech_cnn": (),
    "speech_gru": (),
    "resnet8": (),
    "resnet20": (),
    "resnet32": (),
    "resnet18": (),
    "gpt": ("embedding/weight", "positions/weight", "head/weight"),
    # Tables of embeddings, the wide one being an EmbeddingBag that sums.
    "wide_and_deep": ("wide/categories/weight", "deep/features/categories/column*"),
}
_WRAPPERS = ("module.", "_orig_mod.")
_NO_PARAMETER = re.compile(r"(^|\.)(num_batches_tracked|attn\.bias|attn\.masked_bias)$")

# Of a residual network: parts of our names, and of theirs.
_RESNET = (
    (re.compile(r"^stem/conv/"), "conv1."),
    (re.compile(r"^stem/norm/"), "bn1."),
    (re.compile(r"^classes/"), "fc."),
    (re.compile(r"^stage(\d+)_block(\d+)/residual/"), lambda m: f"layer{int(m[1]) + 1}.{m[2]}."),
    (re.compile(r"shortcut/norm/"), "downsample.1."),
    (re.compile(r"shortcut/(conv/)?"), "downsample.0."),
    (re.compile(r"body/first/norm/"), "bn1."),
    (re.compile(r"body/second/norm/"), "bn2."),
    (re.compile(r"body/first/(conv/)?"), "conv1."),
    (re.compile(r"body/second/(conv/)?"), "conv2."),
)
# Of networks for CIFAR, whose names are not all torchvision's.
_RESNET_ALIASES = (("fc.", "linear."), (".downsample.", ".shortcut."))

_GPT2 = (
    (re.compile(r"^embedding/"), "transformer.wte."),
    (re.compile(r"^positions/"), "transformer.wpe."),
    (re.compile(r"^norm/"), "transformer.ln_f."),
    (re.compile(r"^head/"), "lm_head."),
    (re.compile(r"^block(\d+)/"), r"transformer.h.\1."),
    (re.compile(r"attention/body/norm/"), "ln_1."),
    (re.compile(r"attention/body/qkv/"), "attn.c_attn."),
    (re.compile(r"attention/body/out/"), "attn.c_proj."),
    (re.compile(r"feed_forward/body/norm/"), "ln_2."),
    (re.compile(r"feed_forward/body/up/"), "mlp.c_fc."),
    (re.compile(r"feed_forward/body/out/"), "mlp.c_proj."),
)
# So that a torch model with the same names of modules, such as nn.GRU and nn.Embedding, takes them as they are.
_PLAIN = (
    (re.compile(r"branch0/((weight|bias)_[ih]h)$"), r"\1_l0"),
    (re.compile(r"branch1/((weight|bias)_[ih]h)$"), r"\1_l0_reverse"),
    (re.compile(r"((weight|bias)_[ih]h)$"), r"\1_l0"),
    (re.compile(r"(/column\d+)$"), r"\1/weight"),
    (re.compile(r"running_variance$"), "running_var"),
)


def _names_of(model: str, name: str, is_gpt2: bool) -> tuple[str, ...]:
    """The name that is written, and others that are read."""
    if is_gpt2:
        written = _replaced(name, _GPT2)
        return written, *(
            [bare] if (bare := written.removeprefix("transformer.")) != written else []
        )
    if not model.startswith("resnet"):
        return (_replaced(name, _PLAIN).replace("/", "."),)
    written = _replaced(_replaced(name, _RESNET), _PLAIN)
    aliases = [written]
    for theirs, other in _RESNET_ALIASES:
        aliases += [alias.replace(theirs, other) for alias in aliases if theirs in alias]
    return tuple(aliases)


def _replaced(name: str, rules: tuple[tuple[re.Pattern[str], Any], ...]) -> str:
    for pattern, by in rules:
        name = pattern.sub(by, name)
    return name


def _turn(
    model: str, name: str, shape: Shape, shapes: Mapping[str, Shape]
) -> tuple[Shape, tuple[int, ...], Shape]:
    """``split``, ``axes`` and ``shape`` of a parameter of a convolution or a dense layer, outputs last here and first there."""
    if model == "logistic" and name == "weight":
        return shape, (0,), (1, *shape)
    if model == "cnn" and name == "units/weight":
        channels = _channels_before_units(shapes)
        places = shape[0] // channels
        return (places, channels, shape[1]), (2, 1, 0), (shape[1], shape[0])
    if len(shape) < 2:
        return shape, tuple(range(len(shape))), shape
    dimensions = len(shape)
    # (…, in, out) to (out, in, …).
    axes = (dimensions - 1, dimensions - 2, *range(dimensions - 2))
    return shape, axes, tuple(shape[axis] for axis in axes)


def _channels_before_units(shapes: Mapping[str, Shape]) -> int:
    """Outputs of the last convolution of a cnn."""
    return [shape[-1] for name, shape in shapes.items() if name.endswith("conv/weight")][-1]


def _is_gpt2(shapes: Mapping[str, Shape]) -> bool:
    """Whether a gpt has the parts of GPT-2: learned positions, norms with a bias, as many keys as queries, four times the width between."""
    width = shapes["embedding/weight"][1]
    qkv, up = (f"block0/{part}" for part in ("attention/body/qkv", "feed_forward/body/up"))
    return (
        "positions/weight" in shapes
        and "norm/bias" in shapes
        and shapes[f"{qkv}/weight"] == (width, 3 * width)
        and shapes[f"{up}/weight"] == (width, 4 * width)
    )


def _is_tied(model: str, name: str, shapes: Mapping[str, Shape]) -> bool:
    return model == "gpt" and name == "embedding/weight" and "head/weight" not in shapes


def _is_context(model: str, name: str) -> bool:
    """Whether a parameter has a row for each position, of which the first ones do for a shorter context."""
    return model == "gpt" and name == "positions/weight"
