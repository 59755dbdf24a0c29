"""Strategies by name: the option ``--strategy``. Each is called as ``make(setting)`` and returns a ``Strategy``."""

from lepton_mpi.options import names
from lepton_mpi.registry import Registry

STRATEGIES = Registry("--strategy", names.STRATEGIES)
