"""Strategies and codecs by name: the options ``--strategy`` and ``--compress``.

A strategy is called as ``make(setting)`` and returns a ``Strategy``; a codec as ``make(option, dtype)``, with the text behind
its name and a colon, and returns a ``Codec``, ``PowerSgd``, or None for none.
"""

from lepton_mpi.options import names
from lepton_mpi.registry import Registry

STRATEGIES = Registry("--strategy", names.STRATEGIES)
CODECS = Registry("--compress", names.CODECS)
