"""``--strategy sync``: every step is made of the gradients of all ranks, summed in one order of additions.

Three executors, which give the same parameters: one copy of parameters and state per host, on one host
(``shared_parameters.py``) or on several (``overlapped_parameters.py``), and one per rank, for sums over messages
(``replicated.py``). Which one follows from ``--allreduce``.
"""

from lepton_mpi.collectives.sliced_sum import choose_for_gradients
from lepton_mpi.strategies.overlapped_parameters import OverlappedParameters
from lepton_mpi.strategies.replicated import Replicated
from lepton_mpi.strategies.shared_parameters import SharedParameters
from lepton_mpi.strategies.strategy import Setting, Strategy


def make(setting: Setting) -> Strategy:
    """The executor that ``setting.allreduce`` asks for. Collective over the group. Raises ConfigurationError."""
    group = setting.group
    choice = choose_for_gradients(group, setting.allreduce, list(setting.buckets), setting.dtype)
    if choice.algorithm not in ("host", "two_level"):
        return Replicated(setting, choice)
    if group.host_count == 1:
        return SharedParameters(setting, choice)
    return OverlappedParameters(setting, choice)
