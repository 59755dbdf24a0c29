"""What ``--compress`` means for a strategy: the codec of a text, a ``Compression`` on several hosts, and residuals as its state.

On one host nothing is compressed, but a run that goes on from several hosts has residuals left: gradients, or differences of
parameters, that no update has seen. They are ``_undelivered`` until the strategy has added them to its first ones.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_mpi.collectives.compressing.codec import Codec, check_dtype
from lepton_mpi.collectives.compressing.compression import Compression, is_of_codec, undelivered
from lepton_mpi.collectives.compressing.powersgd import PowerSgd
from lepton_mpi.collectives.group import Group
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.registry import is_own_file
from lepton_mpi.strategies.registry import CODECS
from lepton_mpi.strategies.strategy import Setting, StrategyBase

# What ``auto`` compresses with where it pays, unless another codec stands behind it.
_AUTO = "int8"


def codec_of(setting: Setting) -> Codec | PowerSgd | None:
    """The codec of ``setting.compress``, of auto the one that it may take; None for none. Raises ConfigurationError."""
    text = setting.compress
    if text == "auto" or text.startswith("auto:"):
        text = text.partition(":")[2] or _AUTO
        codec = _named(text, setting)
        if codec is None or isinstance(codec, PowerSgd):
            raise ConfigurationError(
                f"--compress: expected auto, or auto: and a codec of vectors, such as auto:{_AUTO}, got {setting.compress}"
            )
        return codec
    return _named(text, setting)


def _named(text: str, setting: Setting) -> Codec | PowerSgd | None:
    name, _, option = (text, "", "") if is_own_file(text) else text.partition(":")
    make = CODECS.find(name)
    return make(option, check_dtype(text, setting.dtype))


def compression_of(setting: Setting, rounds_of_step: int = 1) -> Compression | None:
    """For a sum of vectors of ``setting.layout``; None if nothing is compressed: on one host, or with none. Collective over the group.

    Parameters that are not trained are summed as they are, and so are all in the first ``setting.compress_after`` steps. The
    caller sets ``step`` to ``rounds_of_step`` times that of the optimizer, or to as much more as is less than that. Raises ConfigurationError on every rank.
    """
    group = setting.group
    with group.agreeing():
        codec = codec_of(setting)
    if codec is None or group.host_count == 1:
        return None
    exact, decides = list(setting.averaged), setting.compress.startswith("auto")
    after = setting.compress_after
    last = (after + 1) * rounds_of_step - 1 if after else 0
    return Compression(group, codec, setting.layout, setting.seed, exact, decides, last)


class Compressing(StrategyBase):
    """What strategies that compress have in common: residuals in checkpoints, and what is said of the codec.

    To inherit from before the base class whose state they are added to. Whoever does calls ``_use``.
    """

    compresses = True
    _group: Group
    _compression: Compression | None = None
    # Whether there is a codec, and one host.
    _is_idle = False
    _compress_after = 0
    # On the ranks that restore.
    _undelivered: np.ndarray | None = None

    def _use(self, compression: Compression | None, setting: Setting) -> None:
        """``compression`` is that of ``setting``."""
        self._compression, self._compress_after = compression, setting.compress_after
        self._is_idle = setting.compress != "none" and compression is None
        if compression:
            # Payloads depend on what a host has.
            self.reproducible = False

    def collect(self) -> None:
        """The residuals of all hosts."""
        if self._compression:
            self._compression.collect()

    def state(self) -> dict[str, np.ndarray]:
        """See ``Strategy``; with residuals once they are collected, or with what is not delivered yet."""
        return super().state() | self._residuals

    @property
    def _residuals(self) -> dict[str, np.ndarray]:
        if self._compression:
            return self._compression.state
        return {} if self._undelivered is None else {"residual.0": self._undelivered}

    def restore(self, parameters: np.ndarray | None, state: Mapping[str, np.ndarray]) -> None:
        """See ``Strategy``; residuals may be those of another number of hosts."""
        residuals = {name: vector for name, vector in state.items() if is_of_codec(name)}
        if not (self._compression or self._is_idle):
            residuals = {}  # and those that there are have no place
        elif self._compression and self._group.local_rank == 0:
            self._compression.restore(residuals)
        elif self._is_idle and residuals:
            self._undelivered = undelivered(residuals, self.parameters.size, self.parameters.dtype)
        rest = {name: vector for name, vector in state.items() if name not in residuals}
        super().restore(parameters, rest | self._residuals)

    def facts(self) -> dict[str, Any]:
        """With the codec."""
        return super().facts() | ({"compress": self._compression.name} if self._compression else {})

    def _sent_figures(self, step_count: int, uncompressed_bytes: float) -> dict[str, float]:
        """Of all ranks together in so many steps: bytes that they have sent to other hosts with the codec,
        ``sent_bytes_per_step``, and how many times more ``uncompressed_bytes`` are, ``compression_ratio``. Collective over the group.
        """
        sent = self._compression.sent_bytes if self._compression else 0
        (all_sent,) = self._group.sum(np.array([float(sent)])).tolist()
        if not all_sent or not step_count:
            return {}
        return {
            "sent_bytes_per_step": all_sent / step_count,
            "compression_ratio": uncompressed_bytes / all_sent,
        }

    def _codec_text(self) -> str:
        """For the head line, to end it."""
        if self._is_idle:
            return "; one host: nothing is compressed"
        if not self._compression:
            return ""
        after = f" after {self._compress_after} steps" if self._compress_after else ""
        return f"; between hosts {self._compression.name}{after}"
