"""What a job learns of its time limit, from variables and from what the commands of batch systems print; and what a run makes of it."""

import math
import os
import subprocess
import time
from datetime import datetime
from types import SimpleNamespace

import pytest

from lepton_mpi.batch_systems import time_left as asked
from lepton_mpi.batch_systems.time_left import TimeLeft, time_left
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.launcher import Joining
from lepton_mpi.options.config import Config
from lepton_mpi.run import time_limit
from lepton_mpi.run.time_limit import TimeLimit

_NOW = datetime(2026, 11, 30, 12, 0, 0).timestamp()

_QSTAT = """Job Id: 17.server
    Job_Name = lepton
    Resource_List.walltime = 02:00:00
    resources_used.walltime = 00:10:00
"""


def _left(environment, outputs=None):
    """With the outputs of commands by their first word; others fail."""
    commands = []

    def ask(words):
        commands.append(" ".join(words))
        return (outputs or {}).get(words[0], "")

    return time_left(environment, ask, _NOW), commands


@pytest.mark.parametrize(
    ("environment", "outputs", "seconds", "command"),
    [
        ({"SLURM_JOB_END_TIME": str(int(_NOW) + 300)}, {}, 300, None),
        ({"SLURM_JOB_END_TIME": str(int(_NOW) - 5)}, {}, 0, None),
        ({}, {"squeue": "1-01:30:00\n"}, 91800, "squeue --noheader --job 5 --format %L"),
        ({}, {"squeue": "5:00\n"}, 300, None),
        ({}, {"squeue": "UNLIMITED\n"}, math.inf, None),
        ({"SLURM_JOB_END_TIME": "0"}, {"squeue": "5:00"}, 300, None),
        (
            {},
            {
                "squeue": "INVALID",
                "scontrol": "JobId=5\n   StartTime=x EndTime=2026-11-30T13:00:00 Y=1",
            },
            3600,
            "scontrol show job 5",
        ),
        ({}, {"scontrol": "EndTime=Unknown Deadline=N/A"}, None, None),
        ({}, {}, None, None),
    ],
)
def test_slurm(environment, outputs, seconds, command):
    found, commands = _left({"SLURM_JOB_ID": "5", **environment}, outputs)
    assert found == (None if seconds is None else TimeLeft(seconds, "Slurm"))
    assert command is None or command in commands
    assert bool(commands) != ("SLURM_JOB_END_TIME" in environment and not outputs)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (f"{_QSTAT}    stime = Mon Nov 30 11:00:00 2026\n", 3600),
        (f"{_QSTAT}    start_time = Mon Nov 30 10:30:00 2026\n", 1800),
        (f"{_QSTAT}    stime = Mon Nov 30 09:00:00 2026\n", 0),
        (_QSTAT, 6600),
        (f"{_QSTAT}    Walltime.Remaining = 77\n", 77),
        ("Job Id: 17.server\n    Job_Name = lepton\n", math.inf),
        ("", None),
    ],
)
def test_pbs(said, seconds):
    """The job's start counts, not the time that PBS has counted some minutes ago."""
    found, commands = _left({"PBS_JOBID": "17.server"}, {"qstat": said})
    assert found == (None if seconds is None else TimeLeft(seconds, "PBS"))
    assert commands == ["qstat -f 17.server"]


def test_pbs_without_qstat_on_the_node():
    """TORQUE says the whole limit; the script is at least as old as this process."""
    found, _ = _left({"PBS_JOBID": "17", "PBS_WALLTIME": "100000"})
    assert found is not None
    assert 0 < found.seconds <= 100000 - asked.process_age_seconds() + 0.1


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("0:12 L", 720), ("26:00 E\n", 93600), ("-\n", math.inf), ("", None), ("TIME_LEFT", None)],
)
def test_lsf(said, seconds):
    found, commands = _left({"LSB_JOBID": "17", "LSB_JOBINDEX": "0"}, {"bjobs": said})
    assert found == (None if seconds is None else TimeLeft(seconds, "LSF"))
    assert commands == ["bjobs -noheader -o time_left 17"]


def test_lsf_asks_for_the_task_of_an_array():
    _, commands = _left({"LSB_JOBID": "17", "LSB_JOBINDEX": "3"})
    assert commands == ["bjobs -noheader -o time_left 17[3]"]


def test_outside_of_a_job_nothing_is_asked():
    assert _left({"SLURM_JOB_ID": "", "HOME": "/"}) == (None, [])


def test_commands_that_are_not_there_fail_or_wait_say_nothing(monkeypatch):
    monkeypatch.setattr(asked, "_ASK_SECONDS", 0.2)
    assert asked.ask(["no-such-command-here"]) == ""
    assert asked.ask(["sh", "-c", "echo half; exit 1"]) == ""
    assert asked.ask(["sleep", "5"]) == ""
    assert asked.ask(["echo", "5:00"]) == "5:00\n"


def test_a_rank_that_joins_has_no_time_of_its_own(monkeypatch):
    """``--time-limit`` counts from the start of the program, also where those that joined are all that is left."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert asked.program_age_seconds() == pytest.approx(asked.process_age_seconds(), abs=1)
    began = round((now - 1000) * os.sysconf("SC_CLK_TCK"))
    for name, value in Joining(2, 3, 0, "token", began).variables().items():
        monkeypatch.setenv(name, value)
    assert asked.program_age_seconds() == pytest.approx(1000, abs=5)
    limit, source = time_limit._limit(Config(time_limit=1500.0))
    assert limit == pytest.approx(500, abs=5) and source == ""


def test_age_of_a_process():
    before = asked.process_age_seconds()
    child = subprocess.Popen(["sleep", "5"])
    try:
        time.sleep(0.1)
        assert asked.process_age_seconds(child.pid) < 3
        assert asked.process_age_seconds() >= before + 0.09 and before > 0
        assert asked.script_age_seconds() >= before
    finally:
        child.kill()
        child.wait()
    assert os.getpid() != child.pid


# -- what a run makes of it --------------------------------------------------------------------------


class _Clock:
    """A run of made-up times, and what it is told."""

    def __init__(self, monkeypatch, ends_at, before):
        self.now, self.stop_at, self.lines = 0.0, None, []
        monkeypatch.setattr(time_limit, "monotonic", lambda: self.now)
        self.limit = TimeLimit(self._told, ends_at, before, "")
        self.limit.saves = SimpleNamespace(save_seconds=0.0)
        self.step = 0
        self.start = SimpleNamespace(step=0)
        self.report = SimpleNamespace(say=lambda *words: self.lines.append(": ".join(words)))

    def _told(self, seconds):
        self.stop_at = seconds

    def epoch(self, *steps, after=0.0):
        self.limit.before_epoch(self)
        for seconds in steps:
            self.step, self.now = self.step + 1, self.now + seconds
            self.limit.after_step(self)
        self.now += after
        self.limit.after_epoch(self)


def test_short_steps_leave_the_time_as_it_was_asked_for(monkeypatch):
    """The first step, which may compile, does not count."""
    clock = _Clock(monkeypatch, 1000.0, 300.0)
    assert clock.stop_at == 700.0
    clock.epoch(250.0, 1.0, 2.0, after=10.0)
    assert (clock.stop_at, clock.lines) == (700.0, [])


def test_what_was_observed_counts_where_it_is_longer(monkeypatch):
    """Two steps, what follows an epoch, a checkpoint, and 2 s; said once."""
    clock = _Clock(monkeypatch, 1000.0, 60.0)
    clock.epoch(1.0, 20.0, after=30.0)
    assert clock.stop_at == 1000.0 - (2 * 20.0 + 30.0 + 0.0 + 2.0)
    clock.limit.saves.save_seconds = 5.0
    clock.epoch(25.0, after=10.0)
    assert clock.stop_at == 1000.0 - (2 * 25.0 + 30.0 + 5.0 + 2.0)
    assert clock.lines == [
        "stop: a step takes 20 s, what follows an epoch 30 s: the ranks are told 1 min 12 s before the time limit, not 1 min "
        "(--stop-before)"
    ]


def test_a_checkpoint_that_a_thread_writes_counts_at_once(monkeypatch):
    """In the middle of an epoch, whose steps are as short as before; a quicker one takes nothing back."""
    clock = _Clock(monkeypatch, 1000.0, 60.0)
    clock.epoch(1.0, 1.0)
    assert clock.stop_at == 940.0
    clock.limit.before_epoch(clock)
    for save, stop_at in ((100.0, 896.0), (200.0, 796.0), (5.0, 796.0)):
        clock.limit.saves.save_seconds = save
        clock.step, clock.now = clock.step + 1, clock.now + 1.0
        clock.limit.after_step(clock)
        assert clock.stop_at == stop_at
    clock.epoch(1.0)
    assert clock.stop_at == 796.0
    assert clock.lines == [
        "stop: a step takes 1 s, a checkpoint 1 min 40 s: the ranks are told 1 min 44 s before the time limit, not 1 min (--stop-before)"
    ]


def test_a_limit_alone_is_kept_and_nobody_is_warned(monkeypatch):
    clock = _Clock(monkeypatch, 1000.0, None)
    assert clock.stop_at == 1000.0
    clock.epoch(1.0, 20.0)
    assert (clock.stop_at, clock.lines) == (958.0, [])
    assert clock.limit.left_text() == "16 min 19 s before the time limit"


def test_hosts_that_cannot_connect_are_refused():
    """They could not agree on a step, and would wait for each other."""
    from contextlib import nullcontext

    world = SimpleNamespace(
        stopping=object(), can_agree_to_stop=False, agreeing=nullcontext, rank=0
    )
    with pytest.raises(ConfigurationError, match="expected hosts that can connect"):
        time_limit.begin(Config(time_limit=60.0), world)


@pytest.mark.parametrize(("before", "limit"), [(60, 60), ("2h", "1h")])
def test_times_that_exclude_each_other(before, limit):
    with pytest.raises(ConfigurationError, match=r"--stop-before: expected a time that is shorter"):
        Config(stop_before=before, time_limit=limit)
