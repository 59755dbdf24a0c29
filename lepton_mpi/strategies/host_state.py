"""Parameters and optimizer state that a host holds once, in memory that its ranks share."""

import numpy as np

from lepton_mpi.collectives.within_host.vectors import HostVectors, map_pages
from lepton_mpi.optimizers.optimizer import Optimizer, Settings, kind_of
from lepton_mpi.vectors import Layout


def host_state(
    world, layout: Layout, dtype: np.dtype, settings: Settings
) -> tuple[np.ndarray, Optimizer]:
    """Parameters, shape (layout.size,), and an optimizer with its state, all zeros. Collective over the host."""
    parameters = world.host_array((layout.size,), dtype, "parameters")
    state = world.host_array((len(kind_of(settings)[1]), layout.size), dtype, "state")
    for memory in (parameters, state):
        map_pages(world, memory, [])
    return parameters, Optimizer(settings, layout, dtype, state)


def vector_counts(optimizer: Optimizer, gradients: HostVectors) -> dict[str, int]:
    """How many vectors of the parameters' length a host holds, by the purposes that ``memory.py`` counts."""
    return {"parameters": 1, "state": len(optimizer.state), "gradients": len(gradients.table)}
