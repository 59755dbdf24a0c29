"""What ``--compress`` means for a strategy: the codec of a text, and a ``Compression`` of the gradient on several hosts."""

from lepton_mpi.collectives.compressing.codec import Codec, check_dtype
from lepton_mpi.collectives.compressing.compression import Compression
from lepton_mpi.collectives.compressing.powersgd import PowerSgd
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.registry import is_own_file
from lepton_mpi.strategies.registry import CODECS
from lepton_mpi.strategies.strategy import Setting

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


def compression_of(setting: Setting) -> Compression | None:
    """For the sum of gradients; None if nothing is compressed: on one host, or with none. Collective over the group.

    Parameters that are not trained are summed as they are. Raises ConfigurationError on every rank.
    """
    group = setting.group
    with group.agreeing():
        codec = codec_of(setting)
    if codec is None or group.host_count == 1:
        return None
    exact, decides = list(setting.averaged), setting.compress.startswith("auto")
    return Compression(group, codec, setting.layout, setting.seed, exact, decides)
