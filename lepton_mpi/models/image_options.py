"""Options of the convolutional models alone. Imports no NumPy: ``--help cnn`` reads them."""

from dataclasses import dataclass
from typing import Literal

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.option import WHOLE_FROM_1, Checked, option

Norm = Literal["batch", "sync_batch", "group", "none"]
# Channels of a group, with --norm group.
GROUP_CHANNELS = 8
NORM = (
    "what follows each convolution: normalisation over a micro-batch, over all of a step (sync_batch), or over groups of 8 channels of "
    "a row, or nothing"
)


def check_groups(norm: str, name: str, channels: tuple[int, ...]) -> None:
    """Whether --norm group can cut so many channels, of the option ``name``. Raises ConfigurationError."""
    for count in channels:
        if norm == "group" and count % GROUP_CHANNELS:
            raise ConfigurationError(
                f"{name}: expected multiples of {GROUP_CHANNELS} with --norm group, got {count}"
            )


@dataclass(frozen=True, kw_only=True)
class CnnOptions(Checked):
    """For small images."""

    channels: tuple[int, ...] = option(
        (16, 32),
        "of the convolutions, each of which halves the image",
        ("whole numbers of at least 1, one at least", lambda v: min(v, default=0) >= 1),
    )
    units: int = option(64, "of the dense layer behind them", WHOLE_FROM_1)
    norm: Norm = option("batch", NORM)

    def check_together(self) -> None:
        """Raises ConfigurationError."""
        check_groups(self.norm, "--channels", self.channels)


@dataclass(frozen=True, kw_only=True)
class ResnetOptions(Checked):
    """For images as of CIFAR, about 32x32."""

    width: int = option(16, "channels of the first of three stages, which double", WHOLE_FROM_1)
    norm: Norm = option("batch", NORM)

    def check_together(self) -> None:
        """Raises ConfigurationError."""
        check_groups(self.norm, "--width", (self.width,))


@dataclass(frozen=True, kw_only=True)
class WideResnetOptions(ResnetOptions):
    """For images as of ImageNet, about 224x224."""

    width: int = option(64, "channels of the first of four stages, which double", WHOLE_FROM_1)


@dataclass(frozen=True, kw_only=True)
class TcnOptions(Checked):
    """For signals."""

    levels: int = option(
        4, "residual blocks; the taps of each are twice as far apart", WHOLE_FROM_1
    )
    width: int = option(32, "channels of every level", WHOLE_FROM_1)
    taps: int = option(3, "of each convolution", WHOLE_FROM_1)
    norm: Norm = option("batch", NORM)

    def check_together(self) -> None:
        """Raises ConfigurationError."""
        check_groups(self.norm, "--width", (self.width,))
