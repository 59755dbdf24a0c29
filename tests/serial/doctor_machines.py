"""Facts of machines that are well."""

from lepton_mpi.doctor import (
    cores,
    launching,
    memory,
    network,
    storage,
    versions,
)

OPEN_MPI = "mpirun of Open MPI"
GIB = 1 << 30
LAUNCHED = launching.Facts(launcher=OPEN_MPI, started=4, size=4, library="Open MPI 5.0.11")
ALONE = launching.Facts(
    library="Open MPI 5.0.11",
    mpirun="/v/bin/mpirun",
    mpirun_kind="Open MPI",
    own_mpirun="/v/bin/mpirun",
)
CORES = cores.Facts({0: [0], 1: [1], 2: [2], 3: [3]}, [0, 1, 2, 3])
# Hyperthreads 0 and 4 are one core, 1 and 5 another.
THREADED = cores.Facts(
    {0: [0], 1: [1]}, list(range(8)), {core: [core % 4, core % 4 + 4] for core in range(8)}
)
MEMORY = memory.Facts(4, 8 * GIB, 16 * GIB, 8 * GIB, 8 * GIB, [])
STORAGE = storage.Facts(
    "/data", kind="nfs4", trial=storage.Trial("3.16", "2.0", read_bytes_per_second=1e9)
)
ETHERNET = [network.Interface("eth0", 10000), network.Interface("docker0", 0, True)]
FAST = network.Link(20e-6, 900e6, 0.001)
NETWORK = network.Facts(
    {"a": ETHERNET, "b": ETHERNET, "c": ETHERNET, "d": ETHERNET},
    {"b": FAST, "c": FAST, "d": FAST},
    "Open MPI 5.0.11",
)
PACKAGES = versions.Facts({"Python": "3.12.1", "numpy": "2.4.1", "numba": "0.66"})
