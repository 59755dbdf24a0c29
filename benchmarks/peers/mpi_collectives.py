"""Collectives on MPI ranks: those of ``Communicator``, or MPI's own by mpi4py; ``--library lepton_mpi`` or ``mpi``."""

from typing import Any

import numpy as np

from benchmarks.peers.collective_cases import measure_all, parse_arguments
from lepton_mpi.collectives.communicator import Communicator
from lepton_mpi.collectives.messages.mpi import MpiRanks
from lepton_mpi.world.mpi import MPI, mpi_library
from lepton_mpi.world.world import World, run


class MpiLibrary:
    """See ``collective_cases.Library``; buffers are NumPy's, as mpi4py's users have them."""

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm

    def allreduce(self, array: np.ndarray) -> None:
        self._comm.Allreduce(MPI.IN_PLACE, array)

    def reduce(self, array: np.ndarray, root: int) -> None:
        mine = self._comm.rank == root
        self._comm.Reduce(MPI.IN_PLACE if mine else array, array if mine else None, root=root)

    def broadcast(self, array: np.ndarray, root: int) -> None:
        self._comm.Bcast(array, root)

    def allgather(self, output: np.ndarray, input: np.ndarray) -> None:
        self._comm.Allgather(input, output)

    def reduce_scatter(self, output: np.ndarray, input: np.ndarray) -> None:
        self._comm.Reduce_scatter_block(input, output)

    def alltoall(self, output: np.ndarray, input: np.ndarray) -> None:
        self._comm.Alltoall(input, output)

    def gather(self, outputs: Any, input: np.ndarray, root: int) -> None:
        # Rows of one matrix, which is what MPI takes.
        self._comm.Gather(input, None if outputs is None else outputs[0].base, root)

    def scatter(self, output: np.ndarray, inputs: Any, root: int) -> None:
        self._comm.Scatter(None if inputs is None else inputs[0].base, output, root)

    def send(self, array: np.ndarray, to: int) -> None:
        self._comm.Send(array, to)

    def receive(self, array: np.ndarray, source: int) -> None:
        self._comm.Recv(array, source)


def _main(world: World) -> None:
    arguments = parse_arguments("--library")
    is_ours = arguments.library == "lepton_mpi"
    library: Any = Communicator(world) if is_ours else MpiLibrary(world.comm.Dup())
    facts = {"library": arguments.library, "version": mpi_library()}
    measure_all(arguments, MpiRanks(world.comm), library, facts)


if __name__ == "__main__":
    raise SystemExit(run(_main, 600))
