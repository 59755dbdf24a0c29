"""What ``--compress`` means for a strategy: the codec of a text, and a ``Compression`` of the gradient on several hosts."""

from lepton_mpi.collectives.compressing.codec import Codec, check_dtype
from lepton_mpi.collectives.compressing.compression import Compression
from lepton_mpi.collectives.compressing.powersgd import PowerSgd
from lepton_mpi.registry import is_own_file
from lepton_mpi.strategies.registry import CODECS
from lepton_mpi.strategies.strategy import Setting


def codec_of(setting: Setting) -> Codec | PowerSgd | None:
    """The codec of ``setting.compress``; None for none. Raises ConfigurationError."""
    text = setting.compress
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
    return Compression(group, codec, setting.layout, setting.seed, list(setting.averaged))
