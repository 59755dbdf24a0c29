"""``--trace``: what a ring holds at any moment, how clocks of hosts are compared, and that the file keeps the rules of its format."""

import json
import os
import random
from itertools import pairwise

import numpy as np
import pytest

from lepton_mpi.durable import check_target
from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.run import trace as traces
from lepton_mpi.run.per_rank import STEP_PHASES
from lepton_mpi.run.trace import Clocks, Trace, Track
from lepton_mpi.world import step_ring, watchdog
from lepton_mpi.world.clock_offsets import Offset, aligned, best_of
from lepton_mpi.world.heartbeats import PHASES, Heartbeat
from lepton_mpi.world.phase_ring import Phase, Recorder, phases_of
from lepton_mpi.world.step_ring import StepRecorder
from lepton_mpi.world.watchdog import PhaseClock

# -- the ring ----------------------------------------------------------------------------------------


def test_a_ring_holds_the_last_phases_whole():
    """After every entry, before and after it begins anew: the same phases as a list that forgets nothing."""
    ring = np.zeros((8, 2))
    recorder, all_phases = Recorder(ring), []
    draw = random.Random(1)
    assert phases_of(ring) == []
    now, entries = 1.0, []
    for number in range(50):
        now += draw.random()
        if number % 3 == 2:
            seconds = draw.random()
            recorder.wait(now, PHASES.index(all_phases[-1].name), PHASES.index("waiting"), seconds)
            waited = all_phases[-1].waited + seconds
            all_phases[-1] = all_phases[-1]._replace(waited=waited)
            entries.append(None)
        else:
            if all_phases:
                all_phases[-1] = all_phases[-1]._replace(stop=now)
            phase = draw.choice([name for name in PHASES if name != "over"])
            recorder.begin(now, 1000 + number, PHASES.index(phase))
            all_phases.append(Phase(phase, 1000 + number, now, None))
            entries.append(phase)
        kept = sum(entry is not None for entry in entries[-8:])
        found = phases_of(ring)
        assert [each[:4] for each in found] == [each[:4] for each in all_phases[-kept:]]
        for each, whole in zip(found[1:], all_phases[-kept:][1:], strict=True):
            assert each.waited == pytest.approx(whole.waited, abs=2e-9)


def test_entries_of_one_moment_keep_their_order():
    """A clock may stand still between two entries, also where the ring begins anew."""
    for before in range(5):
        ring = np.zeros((4, 2))
        recorder = Recorder(ring)
        for number in range(before):
            recorder.begin(1.0 + number, number, 1)
        recorder.begin(90.0, 10, PHASES.index("input"))
        recorder.begin(90.0, 10, PHASES.index("compute"))
        assert [each.name for each in phases_of(ring)][-2:] == ["input", "compute"]


def test_a_clock_records_while_it_is_told_to(monkeypatch):
    """Phases with their steps, waits where they are told, also after their phase has ended; nothing before and after."""
    now = [100.0]
    monkeypatch.setattr(watchdog, "monotonic", lambda: now[0])
    clock, ring = PhaseClock(), np.zeros((64, 2))
    clock.enter("compute", 6)
    clock.record(Recorder(ring))
    for phase, step in (
        ("input", 7),
        ("compute", None),
        ("communication", None),
        ("compute", None),
    ):
        now[0] += 1.0
        clock.enter(phase, step)
    clock.move("communication", "waiting", 0.25)
    now[0] += 1.0
    clock.enter("checkpoint")
    now[0] += 1.0
    clock.enter("compute")
    clock.record(None)
    clock.enter("input", 8)
    assert phases_of(ring) == [
        Phase("compute", 6, 100.0, 101.0),
        Phase("input", 7, 101.0, 102.0),
        Phase("compute", 7, 102.0, 103.0),
        Phase("communication", 7, 103.0, 104.0, 0.25),
        Phase("compute", 7, 104.0, 105.0),
        Phase("checkpoint", 7, 105.0, 106.0),
        Phase("compute", 7, 106.0, None),
    ]
    assert clock.seconds["waiting"] == 0.25 and clock.seconds["checkpoint"] == 1.0


def test_limits_are_still_moved_while_a_clock_records():
    """The watchdog is told when a patient phase begins and when it ends, and not otherwise."""
    clock, told = PhaseClock(), []
    clock.enter("compute", 1)
    clock.record(Recorder(np.zeros((16, 2))))
    clock.on_new_limit = lambda: told.append(clock.phase_of(0))
    for phase in ("input", "checkpoint", "compute", "input"):
        clock.enter(phase)
    assert told == ["checkpoint", "compute"]


# -- sums of steps -----------------------------------------------------------------------------------


def test_sums_of_steps_become_phases(monkeypatch):
    """In their order, whole; a step that was recorded phase by phase is not there twice, and what is between epochs is as it was."""
    now = [100.0]
    monkeypatch.setattr(step_ring, "monotonic", lambda: now[0])
    monkeypatch.setattr(watchdog, "monotonic", lambda: now[0])
    clock = PhaseClock()
    seconds = clock.seconds
    ring = np.zeros((7, step_ring.WORDS))
    recorder = StepRecorder(ring, clock)

    def goes_on(entry: int, **spent: float) -> None:
        for name, more in spent.items():
            seconds[name] += more
            now[0] += more
        clock.since = now[0] - 0.03125  # of the next computation, not told yet
        seconds["compute"] -= 0.03125
        recorder.end(entry)
        seconds["compute"] += 0.03125

    for step in range(1, 9):  # pushed out of the ring, but for the last
        goes_on(step, compute=1.0)
    goes_on(9, input=0.25, compute=0.5, communication=0.125, waiting=0.0625)
    goes_on(-10, compute=2.0)
    now[0] += 50.0  # an evaluation, and the next epoch begins
    goes_on(10)
    goes_on(11, compute=3.0)
    singly = [
        Phase("compute", 9, 108.5, 108.9375),  # its clock was not told to stop at once
        Phase("input", 10, 108.9375, 109.0),
        Phase("compute", 10, 109.0, 110.9375),
        Phase("evaluation", 10, 110.9375, 160.9375),
        Phase("input", 10, 160.9375, None),
    ]
    found = step_ring.merged(ring, singly, Phase("communication", 12, 164.5, None))
    assert found[-8:] == [
        Phase("input", 9, 108.0, 108.25),
        Phase("compute", 9, 108.25, 108.75),
        Phase("communication", 9, 108.75, 108.9375, 0.0625),
        *singly[1:4],
        Phase("compute", 11, 160.9375, 163.9375),
        Phase("communication", 12, 164.5, None),
    ]
    assert found[:2] == [Phase("compute", n, 99.0 + n, 100.0 + n) for n in (7, 8)]
    assert len(found) == 10


# -- clocks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [-3.5, 0.0, 1e6])
def test_offsets_are_within_their_errors(ahead):
    """Of messages that take any time there and back, unevenly; a busy machine delays most of them."""
    draw = random.Random(3)
    for _ in range(50):
        rounds, now = [], 1000.0
        for _ in range(20):
            there, back = 1e-4 + draw.expovariate(1e3), 3e-4 + draw.expovariate(1e3)
            rounds.append((now, now + there + ahead, now + there + back))
            now += 1.0
        found = best_of(rounds)
        assert abs(found.seconds - ahead) <= found.error_seconds + 1e-9
        assert found.error_seconds == min(r - s for s, _, r in rounds) / 2


def test_drift_is_followed_between_two_measurements():
    first, second = Offset(10.0, 1.0, 1e-6), Offset(110.0, 1.01, 1e-6)
    for true in (0.0, 10.0, 60.0, 200.0):
        assert aligned(first, second, true + 1.0 + 1e-4 * (true - 10.0)) == pytest.approx(true)
    assert aligned(first, first, 60.0) == 59.0


# -- the file ----------------------------------------------------------------------------------------


def _tracks() -> tuple[list[Track], list[list[Phase]]]:
    """Two hosts with a rank each, whose clocks differ by 5 s and drift; what happened by the first clock."""
    true = [
        [
            Phase("input", 41, 100.0, 100.25),
            Phase("compute", 41, 100.25, 100.5),
            Phase("communication", 41, 100.5, 101.0, 0.375),
            Phase("input", 42, 101.0, 101.25),
            Phase("evaluation", 42, 101.25, 103.0),
            Phase("compute", 43, 103.0, None),
        ]
    ] * 2
    skewed = [
        each._replace(
            start=_ahead(each.start),
            stop=each.stop and _ahead(each.stop),
            waited=each.waited * (1 + 1e-3),
        )
        for each in true[1]
    ]
    return [Track(0, 0, true[0], 104.0), Track(1, 1, skewed, _ahead(104.0))], true


def _ahead(moment: float) -> float:
    return moment + 5.0 + 1e-3 * (moment - 100.0)


_CLOCKS = Clocks(
    [Offset(), Offset(100.0, 5.0, 2e-5)],
    [Offset(), Offset(104.0, 5.004, 1e-5)],
)


def _written() -> dict:
    tracks, _ = _tracks()
    return json.loads("".join(traces._lines(tracks, _CLOCKS)))


def check_format(trace: dict) -> None:
    """Rules of the JSON Trace Event Format that Perfetto's importer counts errors of: types, names, and slices of a thread that nest."""
    assert isinstance(trace["traceEvents"], list) and trace["displayTimeUnit"] in ("ms", "ns")
    slices: dict[tuple, list] = {}
    for event in trace["traceEvents"]:
        assert event["ph"] in "XM" and isinstance(event["name"], str) and event["name"]
        assert type(event["pid"]) is int and event["pid"] > 0
        assert type(event["tid"]) is int and event["tid"] > 0
        if event["ph"] == "M":
            (key,) = event["args"]
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            assert key == {"thread_sort_index": "sort_index"}.get(event["name"], "name")
            continue
        assert event["ts"] >= 0 and event["dur"] >= 0 and event["cat"] in ("step", "phase")
        start = round(1000 * event["ts"])  # whole nanoseconds, as the importer has them
        stop = start + round(1000 * event["dur"])
        slices.setdefault((event["pid"], event["tid"]), []).append((start, -stop, event["name"]))
    for of_thread in slices.values():
        assert of_thread == sorted(of_thread, key=lambda each: each[:2])
        # Perfetto draws a slice of no length within the next; behind the last there is none.
        assert all(-stop > start or start == of_thread[-1][0] for start, stop, _ in of_thread)
        stack: list[int] = []
        for start, minus_stop, name in of_thread:
            while stop_before := stack and stack[-1] <= start and stack.pop():
                assert stop_before
            assert not stack or -minus_stop <= stack[-1], f"{name} overlaps"
            stack.append(-minus_stop)


def test_the_file_keeps_the_rules_of_its_format():
    check_format(_written())


def test_all_ranks_are_on_one_axis():
    """What happened at one moment on two hosts has one time, to the rounding; the errors of the clocks are told."""
    trace = _written()
    of_ranks = [
        [(e["name"], e["ts"], e["dur"]) for e in trace["traceEvents"] if e["ph"] == "X" and e["tid"] == tid]
        for tid in (1, 2)
    ]  # fmt: skip
    for one, other in zip(*of_ranks, strict=True):
        assert one[0] == other[0]
        assert one[1:] == pytest.approx(other[1:], abs=0.0011)  # us
    assert [each[0] for each in of_ranks[0]] == [
        *("step 41", "input", "compute", "communication", "waiting"),
        *("step 42", "input", "evaluation", "step 43", "compute"),
    ]
    assert of_ranks[0][4][1:] == (0.5e6, 0.375e6) and of_ranks[0][-1][1:] == (3e6, 1e6)
    assert trace["clock_error_us"] == [0.0, 20.0]


def test_phases_of_no_length_are_left_out():
    """A clock may stand still; but where the rank is now is told."""
    phases = [
        Phase("input", 1, 9.0, 9.0),
        Phase("compute", 1, 9.0, 10.0, 1e-10),
        Phase("evaluation", 1, 10.0, 10.0),
        Phase("input", 2, 10.0, 10.0),
        Phase("compute", 3, 10.0, None),
    ]
    text = "".join(traces._lines([Track(0, 0, phases, 10.0)], Clocks([Offset()], [Offset()])))
    trace = json.loads(text)
    check_format(trace)
    slices = [(e["name"], e["dur"]) for e in trace["traceEvents"] if e["ph"] == "X"]
    assert slices == [("step 1", 1e6), ("compute", 1e6), ("step 3", 0.0), ("compute", 0.0)]


def test_other_ranks_go_on_while_a_failing_one_writes(tmp_path, monkeypatch):
    """What they begin meanwhile is within their steps, too."""
    now = [100.0]

    def later() -> float:
        now[0] += 0.25
        return now[0]

    monkeypatch.setattr(traces, "monotonic", later)
    ring = np.zeros((1, 64, 2))
    recorder = Recorder(ring[0])
    recorder.begin(later(), 5, PHASES.index("input"))

    class World:
        host_index, ranks_of_hosts = 0, ((0,),)
        clock: "World"

        def heartbeats(self) -> list[Heartbeat]:
            # Another rank's, which has entered two phases since the host began to read.
            for name in ("communication", "compute"):
                recorder.begin(since := later(), 5, PHASES.index(name))
            return [Heartbeat(5, PHASES.index(name), since)]

    world = World()
    world.clock = world
    trace = object.__new__(Trace)
    trace._world, trace._path, trace._steps = world, tmp_path / "t.json", 7
    trace._ring, trace._steps_ring = ring, np.zeros((1, 9, step_ring.WORDS))
    trace._begin = [Offset()]
    trace._write_host()
    written = json.loads((tmp_path / "t.json").read_text())
    check_format(written)
    names = [event["name"] for event in written["traceEvents"] if event["ph"] == "X"]
    assert names == ["step 5", "input", "communication", "compute"]


def test_phases_of_one_step_stand_together():
    """But for the evaluation of its epoch; waiting at the epoch's end belongs to the last step."""
    names = ["input", "compute", "waiting", "evaluation", "waiting", "input"]
    phases = [Phase(name, 1 if i < 5 else 2, float(i), i + 1.0) for i, name in enumerate(names)]
    found = [[each.name for each in group] for group in traces._by_step(phases)]
    assert found == [["input", "compute", "waiting"], ["evaluation"], ["waiting"], ["input"]]
    assert set(STEP_PHASES) < set(PHASES) and all(a != b for a, b in pairwise(found))


def test_another_file_is_left_alone(tmp_path):
    path = tmp_path / "t.json"
    path.write_text('{"mine": 1}')
    with pytest.raises(ConfigurationError, match="--trace: expected a new file, or one that"):
        traces._check(path)
    assert path.read_text() == '{"mine": 1}'
    for text in ("", "".join(traces._lines(*_of_file()))):
        path.write_text(text)
        traces._check(path)
    with pytest.raises(LauncherError, match="cannot write"):
        traces._check(tmp_path / "no/t.json")


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(tmp_path):
    """Which nobody else has opened."""
    path = tmp_path / "t.json"
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match=r"--trace: expected a file, got .*, a pipe"):
        traces._check(path)
    with pytest.raises(ConfigurationError, match=r"--find-out: expected a file in a folder"):
        check_target(path, "--find-out", b"{", "--find-out")


def _of_file():
    return _tracks()[0], _CLOCKS
