"""Parameters and optimizer state that a host holds once, in memory that its ranks share."""

import numpy as np

from lepton_mpi.collectives.within_host.vectors import HostVectors, map_pages
from lepton_mpi.optimizers.optimizer import Optimizer
from lepton_mpi.optimizers.registry import rule_of
from lepton_mpi.strategies.strategy import Setting


def host_state(setting: Setting) -> tuple[np.ndarray, Optimizer]:
    """Parameters, shape (layout.size,), and an optimizer with its state, all zeros. Collective over the host."""
    group, layout, dtype = setting.group, setting.layout, setting.dtype
    parameters = group.host_array((layout.size,), dtype, "parameters")
    state_count = len(rule_of(setting.optimizer).state)
    state = group.host_array((state_count, layout.size), dtype, "state")
    for memory in (parameters, state):
        map_pages(group, memory, [])
    return parameters, Optimizer(
        *(setting.optimizer, layout, dtype, state),
        averaged=setting.averaged,
        decayed=setting.decayed,
        frozen=setting.frozen,
    )


def vector_counts(optimizer: Optimizer, gradients: HostVectors) -> dict[str, int]:
    """How many vectors of the parameters' length a host holds, by the purposes that ``memory.py`` counts."""
    return {"parameters": 1, "state": len(optimizer.state), "gradients": len(gradients.table)}
