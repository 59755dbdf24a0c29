"""What models of images and signals have in common: rows as images or signals, the loss, a convolution and what follows it."""

from lepton_mpi.batch import Input
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.activation import Activation
from lepton_mpi.layers.batch_norm import BatchNorm
from lepton_mpi.layers.compose import Part, Sequential
from lepton_mpi.layers.convolution import Conv1d, Conv2d
from lepton_mpi.layers.group_norm import GroupNorm
from lepton_mpi.layers.layer import Layer, Shape
from lepton_mpi.layers.sync_batch_norm import SyncBatchNorm
from lepton_mpi.layers.windows import Window
from lepton_mpi.models.image_options import GROUP_CHANNELS
from lepton_mpi.models.model import DataFacts, only_numbers


def rows_of(name: str, data: DataFacts, dimensions: int, wanted: str = "") -> Input:
    """The only input of the data, channels last: with one dimension less it has one channel. Raises ConfigurationError.

    ``wanted`` are the names of the dimensions, if they are not those of an image or a signal.
    """
    only_numbers(name, data)
    shape: Shape = tuple(data.feature_shape)
    if len(shape) == dimensions - 1:
        shape = (*shape, 1)
    if len(shape) != dimensions:
        usual = "height, width and channels" if dimensions == 3 else "length and channels"
        wanted = wanted or usual
        raise ConfigurationError(
            f"--model {name}: expected rows of {wanted}, or without channels, got shape {shape}"
        )
    return Input("numbers", shape)


def convolution(
    outputs: int,
    window: Window,
    norm: str,
    relu: bool = True,
    is_sequence: bool = False,
    groups: int = 1,
) -> Part:
    """A convolution, its normalisation and a ReLU; there is a bias only where no normalisation takes it away again."""
    kind = Conv1d if is_sequence else Conv2d
    layer = kind(outputs, window, groups, bias=norm == "none")
    if norm == "none":
        return Sequential({"conv": layer, "relu": Activation("relu")}) if relu else layer
    follows: Layer
    if norm == "group":
        follows = GroupNorm(outputs // GROUP_CHANNELS, relu)
    else:
        follows = SyncBatchNorm(relu) if norm == "sync_batch" else BatchNorm(relu)
    return Sequential({"conv": layer, "norm": follows})
