"""An MPI library's own Allreduce: ``mpirun -n 4 python -m benchmarks.peers.mpi --cases 8:in_place --json FILE``.

Which library it is and how it is tuned is up to whoever starts it. Buffers are NumPy arrays, as mpi4py's
users have them: NumPy asks for 2 MiB pages for large ones, which lepton_mpi's own memory does not get.
"""

from collections.abc import Callable

import numpy as np

from benchmarks.peers.cases import measure_cases, parse_arguments
from lepton_mpi.collectives.choosing.timing import WARM_UP_CALLS, Call
from lepton_mpi.collectives.messages.mpi import MpiRanks
from lepton_mpi.world.mpi import MPI, mpi_library


def in_place(comm: MPI.Comm, vector: np.ndarray) -> Call:
    """The sum replaces the input."""
    return Call(vector, lambda: comm.Allreduce(MPI.IN_PLACE, vector), vector)


def out_of_place(comm: MPI.Comm, vector: np.ndarray) -> Call:
    """The input stays."""
    result = np.empty_like(vector)
    return Call(vector, lambda: comm.Allreduce(vector, result), result)


def persistent(comm: MPI.Comm, vector: np.ndarray) -> Call:
    """In place, as a request of MPI-4 that is made once."""
    request = comm.Allreduce_init(MPI.IN_PLACE, vector)

    def run() -> None:
        request.Start()
        request.Wait()

    return Call(vector, run, vector)


FORMS: dict[str, Callable[[MPI.Comm, np.ndarray], Call]] = {
    "in_place": in_place,
    "out_of_place": out_of_place,
    "persistent": persistent,
}


def main() -> None:
    """Measure the cases of the command line."""
    arguments = parse_arguments()
    comm = MPI.COMM_WORLD.Dup()
    # What a library does in the first calls of a communicator has no part in any case.
    first = np.zeros(1)
    for _ in range(WARM_UP_CALLS):
        comm.Allreduce(MPI.IN_PLACE, first)
    measure_cases(
        arguments, MpiRanks(comm), lambda form, vector: FORMS[form](comm, vector), mpi_library()
    )


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        # One rank's error would leave the others waiting for ever.
        import traceback

        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)
