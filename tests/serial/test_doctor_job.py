"""Findings of a job of several hosts, and how they are printed."""

import json
from dataclasses import replace

import pytest

from lepton_mpi.doctor import (
    cores,
    job,
    launching,
    report,
)
from lepton_mpi.doctor.finding import Level, fault, note, numbers_text, ok
from lepton_mpi.doctor.host_facts import HostFacts
from tests.serial.doctor_machines import (
    ETHERNET,
    FAST,
    GIB,
    LAUNCHED,
    MEMORY,
    OPEN_MPI,
    PACKAGES,
    STORAGE,
)

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
    assert said["facts"]["hosts"]["node1"]["found"]["memory"]["free"] == 8 * GIB


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, ""),
        ({"OMPI_COMM_WORLD_SIZE": "2", "PMI_SIZE": "2"}, OPEN_MPI),
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
