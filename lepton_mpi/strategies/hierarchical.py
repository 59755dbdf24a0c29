"""``--strategy hierarchical``: synchronous inside a host, where memory is fast; between hosts as ``--between`` says.

    step       the ranks of a host together, as with ``--strategy sync``: one copy of parameters and state a host
    meeting    every H steps hosts average (``local``), or make an outer step (``diloco``); rank l of each host
               exchanges slice l, n lanes side by side

It is ``--strategy local --workers hosts``, or ``diloco``, under the name that people look for. On one host it is ``sync``.
"""

from lepton_mpi.strategies.diloco import Diloco
from lepton_mpi.strategies.local import Local
from lepton_mpi.strategies.strategy import Setting, Strategy
from lepton_mpi.strategies.strategy_options import (
    DilocoOptions,
    HierarchicalOptions,
    LocalOptions,
)


def make(setting: Setting) -> Strategy:
    """Collective over the group. Raises ConfigurationError."""
    options = setting.own or HierarchicalOptions()
    every = options.sync_every
    if options.between == "diloco":
        return Diloco(setting, DilocoOptions(sync_every=every, workers="hosts"))
    return Local(setting, LocalOptions(sync_every=every, workers="hosts"))
