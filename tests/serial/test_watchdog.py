"""The watchdog notices the death of a neighbour, on new kernels and on old ones, and says who holds up whom."""

import os
import queue
import signal
import subprocess
import sys
from time import monotonic

import numpy as np
import pytest

from lepton_mpi.world.backstop import Backstop
from lepton_mpi.world.heartbeats import PHASES, Heartbeat, Host, heartbeats_of
from lepton_mpi.world.watchdog import PhaseClock, Watchdog


class Alarms:
    """What the watchdog has called, as words and local ranks."""

    def __init__(self):
        self.deaths, self.timeouts, self.told = (queue.SimpleQueue() for _ in range(3))

    def died(self, ended):
        self.deaths.put(ended)

    def timed_out(self):
        self.timeouts.put(True)

    def heard(self, news):
        self.told.put(news)

    def signalled(self, number):
        pass

    def looked(self):
        pass


def _fail(*_):
    raise OSError("no such call")


@pytest.mark.parametrize("kernel", ["new", "old"])
@pytest.mark.parametrize("phase", ["compute", "over"])
def test_a_death_before_the_end_is_noticed(monkeypatch, kernel, phase):
    """With process descriptors, and without them, as before Linux 5.3; a rank in phase over may go."""
    if kernel == "old":
        monkeypatch.setattr(os, "pidfd_open", _fail, raising=False)
    rows = np.zeros((2, 3))
    clock = PhaseClock(rows, 0)
    clock.enter("communication", 1)
    rows[1] = 1, PHASES.index(phase), 0
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as neighbour:
        alarms = Alarms()
        watchdog = Watchdog(clock, 2.0, [os.getpid(), neighbour.pid], alarms, Backstop())
        try:
            neighbour.kill()  # not waited for: a zombie has ended too
            if phase == "compute":
                assert alarms.deaths.get(timeout=20) == {1: signal.SIGKILL}
            else:
                with pytest.raises(queue.Empty):
                    alarms.deaths.get(timeout=1.5)
        finally:
            watchdog.stop()


def test_code_of_a_program_may_take_any_time_while_nobody_waits():
    """And is too long once another rank of the host has waited for the limit."""
    rows = np.zeros((2, 3))
    clock = PhaseClock(rows, 0)
    clock.is_free = True
    clock.enter("compute", 7)
    now = monotonic()
    for phase, waited, is_overdue in [
        ("compute", 500.0, False),
        ("communication", 250.0, False),
        ("communication", 301.0, True),
    ]:
        rows[0, 2], rows[1] = now - 1000.0, (7, PHASES.index(phase), now - waited)
        assert clock.is_overdue(300.0) == is_overdue, (phase, waited)
    clock.enter("communication")
    rows[0, 2], rows[1] = now - 301.0, (7, PHASES.index("compute"), now)
    assert clock.is_overdue(300.0), "it waits itself"
    clock.is_free = False
    clock.enter("compute")
    rows[0, 2] = now - 301.0
    assert clock.is_overdue(300.0)


def test_a_program_is_not_ended_by_a_watchdog_that_nobody_waits_for():
    """Its thread runs on, and ends the job once a rank waits."""
    rows = np.zeros((2, 3))
    clock = PhaseClock(rows, 0)
    clock.is_free = True
    clock.enter("compute", 1)
    rows[1] = 1, PHASES.index("compute"), monotonic()
    alarms = Alarms()
    watchdog = Watchdog(clock, 0.2, [os.getpid(), os.getpid()], alarms, Backstop())
    try:
        with pytest.raises(queue.Empty):
            alarms.timeouts.get(timeout=1.0)
        rows[1] = 2, PHASES.index("communication"), monotonic()
        assert alarms.timeouts.get(timeout=20)
    finally:
        watchdog.stop()


def test_signals_that_its_thread_has_not_read_are_given_back():
    """It has ended with the death of another rank."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as neighbour:
        alarms, clock = Alarms(), PhaseClock(np.zeros((2, 3)), 0)
        watchdog = Watchdog(clock, 60.0, [os.getpid(), neighbour.pid], alarms, Backstop())
        neighbour.kill()
    assert alarms.deaths.get(timeout=20) == {1: signal.SIGKILL}
    os.write(watchdog.signal_file, bytes([signal.SIGTERM, signal.SIGUSR1]))
    assert list(watchdog.stop()) == [signal.SIGTERM, signal.SIGUSR1]


def test_a_phase_begins_with_its_time():
    """The watchdog, in another thread, must not see a phase with the age of the one before."""
    clock = PhaseClock()
    clock.enter("start", 0)
    phases = []

    class Row(list):
        def __setitem__(self, place, value):
            if place == 2:
                phases.append(clock._phase)
            super().__setitem__(place, value)

    clock._row = Row([0, 0, 0])
    clock.enter("compute", 1)
    assert phases == ["start"] and clock._phase == "compute"


def test_a_long_phase_that_ends_while_the_watchdog_looks_is_no_timeout():
    """Its age is compared with its own limit, not with that of the phase behind it."""
    looked = queue.SimpleQueue()

    class Turning(PhaseClock):
        def age_seconds(self):
            age = super().age_seconds()
            self.enter("compute")
            looked.put(age)
            return age

    clock, alarms = Turning(), Alarms()
    clock._row[2] -= 400  # of 600 that "start" may take
    watchdog = Watchdog(clock, 2.0, [os.getpid()], alarms, Backstop())
    try:
        assert looked.get(timeout=20) >= 400
        assert looked.get(timeout=20) < 20
    finally:
        watchdog.stop()
    assert alarms.timeouts.empty()


def test_a_stopped_rank_is_the_cause_wherever_it_is():
    """It waits for others as they wait for it; the report names it, and what its steps are of."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as neighbour:
        neighbour.send_signal(signal.SIGSTOP)
        os.waitpid(neighbour.pid, os.WUNTRACED)
        waiting = PHASES.index("communication")
        beats = [Heartbeat(step, waiting, monotonic() - 7, "gossip") for step in (3, 2)]
        host = Host(8, [4, 5], [os.getpid(), neighbour.pid], [-1] * 2, [-1] * 2, 5.0)
        first, of_4, of_5 = host.hang_report(beats, 0).splitlines()
        neighbour.kill()
    assert first.startswith("lepton_mpi: rank 5 of 8 made no progress for 5 s (--timeout)")
    assert of_4 == "  rank 4: communication in step 3 of gossip for 7.0 s"
    assert of_5 == "  rank 5: communication in step 2 of gossip for 7.0 s, stopped by a signal"


@pytest.mark.parametrize("label", ["", "gossip", "é" * 40, "x" * 80])
def test_a_label_is_read_as_far_as_it_has_room(label):
    """Of 56 bytes; a character that does not fit is left out. The program of the backstop reads it from the file."""
    memory = np.zeros(56, np.uint8)
    clock = PhaseClock(np.zeros((1, 3)), 0, memory)
    clock.name_steps("longer than the next")
    clock.name_steps(label)
    clock.enter("input", 12)
    expected = label.encode()[:56].decode(errors="ignore")
    (beat,) = clock.heartbeats()
    assert beat.label == expected
    of = f" of {expected}" if label else ""
    assert str(beat).startswith(f"input in step 12{of} for 0.0 s")
    content = bytes(8) + memory.tobytes() + clock.rows.tobytes()
    assert heartbeats_of(content) == [beat]


@pytest.mark.parametrize(
    ("phase", "said"),
    [("compute", "5 s (--timeout)"), ("start", "600 s (--timeout 5; 600 for start)")],
)
def test_the_report_says_the_limit_that_was_passed(phase, said):
    """Which is longer than the user's for phases that have nothing to do with the length of a step."""
    beats = [
        Heartbeat(3, PHASES.index("waiting"), monotonic() - 1000),
        Heartbeat(3, PHASES.index(phase), monotonic() - 1000),
    ]
    host = Host(8, [4, 5], [os.getpid()] * 2, [-1] * 2, [-1] * 2, 5.0)
    first = host.hang_report(beats, 1).splitlines()[0]
    assert first == f"lepton_mpi: rank 5 of 8 made no progress for {said}; the ranks of this host:"


def _host(ranks: int) -> Host:
    none = [-1] * ranks
    return Host(ranks, list(range(ranks)), [os.getpid()] * ranks, none, none, 5.0)


def test_a_rank_that_waits_in_a_call_of_all_is_not_the_cause():
    """Whatever its phase: in the first step all ranks agree while they compute."""
    clock = PhaseClock(np.zeros((2, 3)), 0)
    clock.enter("compute", 1)
    assert not clock.waits_for_others()
    clock.begin_meeting()
    assert clock.waits_for_others() and clock.phase_of(0) == "compute"
    clock.rows[1] = 1, PHASES.index("compute"), 0
    clock.rows[:, 2] = monotonic() - 7
    first, of_0, of_1 = _host(2).hang_report(clock.heartbeats(), 0).splitlines()
    assert first.startswith("lepton_mpi: rank 1 of 2 made no progress")
    assert of_0 == "  rank 0: compute in step 1, waiting for the others for 7.0 s"
    assert of_1 == "  rank 1: compute in step 1 for 7.0 s"
    clock.end_meeting()
    assert not clock.waits_for_others()


@pytest.mark.parametrize("ranks", [1, 4, 5, 512])
def test_a_report_has_12_lines_at_most(ranks):
    """The rank that is the cause has its line, and the innermost calls of its stack are there."""
    communicates, computes = PHASES.index("communication"), PHASES.index("compute")
    beats = [Heartbeat(3, communicates, monotonic() - 7)] * (ranks - 1)
    beats.append(Heartbeat(3, computes, monotonic() - 7))
    calls = [f'  File "a.py", line {n}, in f\n    call_{n}()\n    ^^^^^^\n' for n in range(40)]
    lines = _host(ranks).hang_report(beats, ranks - 1, "".join(calls)).splitlines()
    assert len(lines) <= 12
    assert any(line.startswith(f"  rank {ranks - 1}: compute in step 3 for 7.") for line in lines)
    assert lines[-2:] == ['  File "a.py", line 39, in f', "    call_39()"]
    if ranks > 4:
        assert f"  {ranks - 4} others: {ranks - 4} in communication in step 3" in lines
