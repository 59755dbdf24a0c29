"""The parameters of a model in a ``.weights.h5`` of Keras 3: the k-th layer of a kind there is the k-th of that kind here.

    layers/conv2d_1/vars/0        Keras counts layers of a class in the order of ``model.layers`` and says nothing of how they are joined

Layouts are the same: channels last, (height, width, in, out), (in, out). Variables of a layer: kernel, bias; gamma, beta, moving mean, moving
variance. ``model.layers`` of a Functional model is ordered by distance from its end, so that a block with a convolution as its shortcut has its
first convolution, then, side by side, the second one and the shortcut's, whichever the program named first: the shapes of these two tell, and their
normalisations come in the same order. Source: keras/src/saving/saving_lib.py, keras/src/models/functional.py.
"""

import re
from collections.abc import Mapping, Sequence

from lepton_mpi.layers.layer import Shape
from lepton_mpi.models.torch_names import Stored

# Models whose layers Keras has, and one after the other.
KERAS_MODELS = ("mlp", "logistic", "cnn", "resnet8", "resnet20", "resnet32", "resnet18")

# By class in Keras, which variable each of our parameters is.
_VARIABLES = {
    "conv2d": ("weight", "bias"),
    "dense": ("weight", "bias"),
    "batch_normalization": ("weight", "bias", "running_mean", "running_variance"),
    "group_normalization": ("weight", "bias"),
}
_NO_PARAMETER = re.compile(r"^(?!layers/)|(^|/)seed_generator/")


def keras_names(
    model: str, shapes: Mapping[str, Shape], found: Mapping[str, Shape]
) -> dict[str, Stored]:
    """How a file of Keras keeps each parameter of one of ``KERAS_MODELS``; ``found`` are the shapes of its arrays by name."""
    layers: dict[str, list[str]] = {}
    for name in shapes:
        layer = name.rpartition("/")[0]
        of_class = layers.setdefault(_class_of(layer, shapes), [])
        if layer not in of_class:
            of_class.append(layer)
    orders = {kind: _in_keras_order(kind, of_class, found) for kind, of_class in layers.items()}
    table = {}
    for kind, order in orders.items():
        for number, layer in enumerate(order):
            for place, variable in enumerate(_VARIABLES[kind]):
                name = f"{layer}/{variable}".lstrip("/")
                if name in shapes:
                    path = f"layers/{_counted(kind, number)}/vars/{place}"
                    table[name] = _stored(path, shapes[name], is_column=model == "logistic")
    return table


def is_no_parameter(name: str) -> bool:
    """Whether an array of such a file is an optimizer's, a metric's or a random generator's."""
    return _NO_PARAMETER.search(name) is not None


def _class_of(layer: str, shapes: Mapping[str, Shape]) -> str:
    prefix = f"{layer}/" if layer else ""
    if f"{prefix}running_mean" in shapes:
        return "batch_normalization"
    dimensions = len(shapes[f"{prefix}weight"])
    if dimensions == 4:
        return "conv2d"
    return "group_normalization" if layer.endswith("norm") else "dense"


def _in_keras_order(kind: str, layers: Sequence[str], found: Mapping[str, Shape]) -> list[str]:
    """Ours lay a shortcut first; see the module."""
    if kind == "dense":
        return list(layers)
    order: list[str] = []
    for layer in layers:
        order.append(layer)
        if "/body/second" not in layer:
            continue
        # The last three, if the block has a shortcut: shortcut, first, second.
        block = layer.partition("/residual/")[0]
        own = [other for other in order if other.startswith(f"{block}/residual/")]
        if len(own) == 3:
            shortcut, first, second = own
            start = len(order) - 3
            shape = found.get(f"layers/{_counted('conv2d', start + 1)}/vars/0", ())
            later = [shortcut, second] if shape[:2] == (1, 1) else [second, shortcut]
            order[start:] = [first, *later]
    return order


def _counted(kind: str, number: int) -> str:
    return f"{kind}_{number}" if number else kind


def _stored(path: str, shape: Shape, is_column: bool) -> Stored:
    """A logistic regression is a dense layer of one output there."""
    if is_column and path.endswith("/0"):
        return Stored(path, shape, (*shape, 1), shape, (0,))
    return Stored.plain(path, shape)
