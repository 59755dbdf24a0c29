"""Options of ``--model gpt`` alone. Imports no NumPy: ``--help gpt`` reads them."""

from dataclasses import dataclass
from typing import Literal

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.option import WHOLE_FROM_0, WHOLE_FROM_1, Checked, option


@dataclass(frozen=True, kw_only=True)
class GptOptions(Checked):
    """The defaults are the layout of GPT-2, small."""

    layers: int = option(4, "blocks of attention and feed-forward layers", WHOLE_FROM_1)
    width: int = option(128, "numbers of each position between the blocks", WHOLE_FROM_1)
    heads: int = option(4, "of attention, a divisor of the width", WHOLE_FROM_1)
    shared_heads: int = option(
        0, "heads of keys and values, a divisor of the heads; 0: as many", WHOLE_FROM_0
    )
    positions: Literal["learned", "rotary"] = option("learned", "how positions are told apart")
    norm: Literal["layer", "rms"] = option("layer", "what is normalised: mean and size, or size")
    feed_forward: Literal["gelu_tanh", "gelu", "swiglu"] = option(
        "gelu_tanh", "what is between its two dense layers, of 4 times the width; swiglu: 8/3 times"
    )
    tied: bool = option(True, "the last layer's weight is the embedding's")

    def check_together(self) -> None:
        """Raises ConfigurationError."""
        if self.width % self.heads:
            raise ConfigurationError(
                f"--heads: expected a divisor of --width {self.width}, got {self.heads}"
            )
        if self.shared_heads and self.heads % self.shared_heads:
            raise ConfigurationError(
                f"--shared-heads: expected a divisor of --heads {self.heads}, got {self.shared_heads}"
            )
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ConfigurationError(
                f"--positions rotary: expected heads of an even width, got {self.width // self.heads}"
            )
