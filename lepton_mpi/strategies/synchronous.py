"""``--strategy sync``: every step is made of the gradients of all ranks, summed in one order of additions.

Three executors, which give the same parameters: one copy of parameters and state per host, on one host
(``shared_parameters.py``) or on several (``overlapped_parameters.py``), and one per rank, for sums over messages
(``replicated.py``). Which one follows from ``--allreduce``.

With ``--compress`` the sums between hosts are of compressed gradients (``collectives/compressing``), overlapped as others are.
"""

from lepton_mpi.collectives.sliced_sum import choose_for_gradients
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.strategies.compression import compression_of
from lepton_mpi.strategies.overlapped_parameters import OverlappedParameters
from lepton_mpi.strategies.replicated import Replicated
from lepton_mpi.strategies.shared_parameters import SharedParameters
from lepton_mpi.strategies.strategy import Setting, Strategy
from lepton_mpi.strategies.undelivered import UncompressedOnOneHost


def make(setting: Setting) -> Strategy:
    """The executor that ``setting.allreduce`` asks for. Collective over the group. Raises ConfigurationError."""
    group = setting.group
    choice = choose_for_gradients(group, setting.allreduce, list(setting.buckets), setting.dtype)
    compression = compression_of(setting)
    if choice.algorithm not in ("host", "two_level"):
        if setting.compress != "none":
            raise ConfigurationError(
                f"--compress {setting.compress}: expected --allreduce auto, host or two_level, got {choice.algorithm}"
            ).on_all_ranks()
        return Replicated(setting, choice)
    if group.host_count == 1:
        one_host = SharedParameters if setting.compress == "none" else UncompressedOnOneHost
        return one_host(setting, choice)
    return OverlappedParameters(setting, choice, compression)
