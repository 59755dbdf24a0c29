"""Options of the speech models alone. Imports no NumPy: ``--help speech_gru`` reads them."""

from dataclasses import dataclass
from typing import Literal

from lepton_mpi.models.image_options import NORM, Norm, check_groups
from lepton_mpi.options.option import WHOLE_FROM_1, Checked, option


@dataclass(frozen=True, kw_only=True)
class SpeechCnnOptions(Checked):
    """For log-mel spectrograms of about a second. The defaults are the paper's small network."""

    width: int = option(64, "channels of every convolution", WHOLE_FROM_1)
    blocks: int = option(
        4, "of a 3x3 convolution of each channel alone and one over channels", WHOLE_FROM_1
    )
    norm: Norm = option("batch", NORM)

    def check_together(self) -> None:
        """Raises ConfigurationError."""
        check_groups(self.norm, "--width", (self.width,))


@dataclass(frozen=True, kw_only=True)
class SpeechGruOptions(Checked):
    """For log-mel spectrograms, or other sequences of numbers, of any length."""

    layers: int = option(1, "recurrent layers, one on top of the other", WHOLE_FROM_1)
    width: int = option(64, "numbers of a layer's state", WHOLE_FROM_1)
    bidirectional: bool = option(
        False, "two of each layer, one of which reads from the end, with states side by side"
    )
    pooling: Literal["mean", "last"] = option(
        "mean", "what of the top layer's states is classified: their mean, or the last"
    )
