"""``--trace``: the last steps of all ranks as a file for Perfetto (ui.perfetto.dev) or chrome://tracing, on one axis of time.

    every rank        phases of long steps, sums of short ones -> its rows of rings in its host's memory (world/phase_ring.py, step_ring.py)
    at the end        all rows to rank 0, clocks of hosts compared before and after -> FILE
    at a failure      one rank of each host writes what that host's rows hold: FILE, and FILE with .host1 before its suffix, and so on

A run that all ranks end together, by a signal too, is a run's end. Written in the JSON Trace Event Format: a process for each host, a thread for
each rank, in it a slice for each step and in that the phases. Of waiting within a phase only the sum is known; it is drawn at the phase's begin.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lepton_mpi.durable import replacing
from lepton_mpi.errors import ConfigurationError, LauncherError, LeptonError
from lepton_mpi.run.hook import QuietHook
from lepton_mpi.run.per_rank import STEP_PHASES
from lepton_mpi.world import clock_offsets, step_ring
from lepton_mpi.world.clock_offsets import Offset
from lepton_mpi.world.phase_ring import Phase, Recorder, phases_of
from lepton_mpi.world.step_ring import StepRecorder

if TYPE_CHECKING:
    from lepton_mpi.run.run import Run

# Entries of a step beside those of its micro-batches, and of a ring at least.
_ENTRIES_OF_STEP, _ENTRIES_MIN = 16, 1024
# Of a failing job, which has three seconds.
_PHASES_AT_FAILURE = 100_000
# An entry of a phase costs about so much, of which a step may be made slower by this share.
_ENTRY_SECONDS, _SHARE = 0.5e-6, 0.004
_MARK = '{"lepton_mpi": "trace"'


class Track(NamedTuple):
    """What one rank did."""

    rank: int
    host: int
    phases: Sequence[Phase]
    stop: float


class Clocks(NamedTuple):
    """Offsets of all hosts at the run's begin, and now."""

    begin: Sequence[Offset]
    now: Sequence[Offset]

    def aligned(self, host: int, seconds: float) -> float:
        """A moment of the host's clock by that of the first host."""
        return clock_offsets.aligned(self.begin[host], self.now[host], seconds)

    def error_seconds(self) -> float:
        """Of the worst host."""
        return max(offset.error_seconds for offset in [*self.begin, *self.now])


class Trace(QuietHook):
    """The hook of ``--trace``, before all others; ``WriteTrace`` is behind them. Making one, ``write`` and ``close`` are collective.

    Steps that are long enough are recorded phase by phase, and what is between epochs always is; others by their sums.
    Raises ConfigurationError, on every rank, for a file that is something else, and LauncherError for one that cannot be written.
    """

    def __init__(self, run: Run, name: str, steps: int) -> None:
        world = run.world
        self._world, self._path, self._steps = world, Path(name), steps
        with world.agreeing():
            if world.rank == 0:
                _check(self._path)
        per_step = 2 * run.micro_batches.count + _ENTRIES_OF_STEP
        shape = (world.local_size, max(steps * per_step, _ENTRIES_MIN), 2)
        self._ring = world.host_array(shape, np.float64, "trace")
        self._steps_ring = world.host_array(
            (world.local_size, steps + 2, step_ring.WORDS), np.float64, "trace"
        )
        self._phase_recorder = Recorder(self._ring[world.local_rank])
        self._recorder = StepRecorder(self._steps_ring[world.local_rank], world.clock)
        entries = 2 * len(run.strategy.numbers) + _ENTRIES_OF_STEP
        self._long_seconds = entries * _ENTRY_SECONDS / _SHARE
        self._is_long = self._records = False
        self._begin = clock_offsets.measure(world)
        self._record(True)
        world.at_failure(self._write_host)

    def before_epoch(self, run: Run) -> None:
        """What there was between epochs ends, and the order of the rows, which counts as input, is no part of the first step."""
        self._world.clock.enter("input")
        self._recorder.end(run.step)
        self._record(self._is_long)

    def after_step(self, run: Run) -> None:
        """One entry, and perhaps all phases of the next step, or of what there is between epochs."""
        seconds = self._recorder.end(-run.step if self._records else run.step)
        self._is_long = seconds > self._long_seconds
        self._record(self._is_long or run.position == run.steps_per_epoch)

    def write(self) -> str:
        """The file, and on rank 0 what there is to say of it."""
        world = self._world
        own = world.host_index, self._phases(world.local_rank), monotonic()
        self.close()
        now = clock_offsets.measure(world)
        found = world.comm.gather(own)
        text = ""
        with world.agreeing():
            if found is not None:
                tracks = [Track(rank, host, *rest) for rank, (host, *rest) in enumerate(found)]
                text = self._write(self._path, tracks, Clocks(self._begin, now), self._steps)
        return text

    def close(self) -> None:
        """Record no more."""
        self._record(False)
        self._world.at_failure(None)

    def _record(self, is_wanted: bool) -> None:
        """Phase by phase from the last entry on, or not."""
        if is_wanted != self._records:
            self._records = is_wanted
            recorder = self._phase_recorder if is_wanted else None
            self._world.clock.record(recorder, self._recorder.now)

    def _phases(self, local: int) -> list[Phase]:
        """Of a rank of this host, up to where it is now."""
        beat = self._world.clock.heartbeats()[local]
        present = Phase(beat.phase, int(beat.step), beat.since, None)
        return step_ring.merged(self._steps_ring[local], phases_of(self._ring[local]), present)

    def _write_host(self) -> None:
        """What is known of the ranks of this host, while the job fails."""
        world = self._world
        # Its time after its phases: the other ranks go on meanwhile, and a phase must not begin behind the end of its step.
        tracks = [
            Track(rank, world.host_index, self._phases(local), monotonic())
            for local, rank in enumerate(world.ranks_of_hosts[world.host_index])
        ]
        count = sum(len(track.phases) for track in tracks)
        steps = max(1, self._steps * _PHASES_AT_FAILURE // max(1, count))
        path = self._path
        if world.host_index:
            path = path.with_name(f"{path.stem}.host{world.host_index}{path.suffix}")
        self._write(path, tracks, Clocks(self._begin, self._begin), min(self._steps, steps))

    def _write(self, path: Path, tracks: Sequence[Track], clocks: Clocks, steps: int) -> str:
        last = max((track.phases[-1].step for track in tracks if track.phases), default=0)
        kept = [
            track._replace(phases=[each for each in track.phases if each.step > last - steps])
            for track in tracks
        ]
        try:
            with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
                file.writelines(_lines(kept, clocks))
        except OSError as error:
            raise LauncherError(f"cannot write {path}: {error.strerror}") from None
        first = min((track.phases[0].step for track in kept if track.phases), default=0)
        shown = f"{path}: steps {first} to {last} of {len(tracks)} ranks"
        if len(clocks.now) > 1:
            shown += (
                f", clocks of {len(clocks.now)} hosts within {clocks.error_seconds() * 1e6:.0f} us"
            )
        return f"{shown}; open it in https://ui.perfetto.dev"


class WriteTrace(QuietHook):
    """The hook of ``--trace`` behind those that have something to do at the end."""

    def at_end(self, run: Run) -> None:
        """Collective."""
        assert run.trace
        if text := run.trace.write():
            run.report.say("trace", text)


def say_written(run: Run) -> None:
    """Write the trace of a run that all its ranks leave by the same error, if it has one. Collective. What is wrong with it is not said."""
    if run.trace:
        with suppress(LeptonError):
            WriteTrace().at_end(run)


def _check(path: Path) -> None:
    """Whether the file may be written: where nothing is, or a trace. Raises LeptonError."""
    try:
        if not path.exists() or (path.is_file() and not path.stat().st_size):
            path.open("a").close()
            return
        if not path.is_file() and not path.is_dir():  # a pipe would have to be waited for
            raise ConfigurationError(f"--trace: expected a file, got {path}, a pipe or a device")
        with path.open("r", encoding="utf-8", errors="replace") as file:
            is_ours = file.read(len(_MARK)) == _MARK
    except OSError as error:
        raise LauncherError(f"cannot write {path}: {error.strerror}") from None
    if not is_ours:
        raise ConfigurationError(
            f"--trace: expected a new file, or one that --trace has written, got {path}, which is another"
        )


def _lines(tracks: Sequence[Track], clocks: Clocks) -> Iterator[str]:
    """The file. Written without ``json`` where there are many, since a failing job has little time; all words are known ones."""
    errors = [max(a.error_seconds, b.error_seconds) for a, b in zip(*clocks, strict=True)]
    about = {"lepton_mpi": "trace", "clock_error_us": [round(1e6 * each, 3) for each in errors]}
    yield json.dumps(about)[:-1] + ', "displayTimeUnit": "ms", "traceEvents": [\n'
    zero = min(
        (clocks.aligned(track.host, track.phases[0].start) for track in tracks if track.phases),
        default=0.0,
    )
    events = [event for track in tracks for event in _events(track, clocks, zero)]
    yield ",\n".join(events)
    yield "\n]}\n"


def _events(track: Track, clocks: Clocks, zero: float) -> Iterator[str]:
    # Number 0 is the idle thread's in Perfetto.
    ids = f'"pid":{track.host + 1},"tid":{track.rank + 1}'
    for kind, name in (("process", f"host {track.host}"), ("thread", f"rank {track.rank}")):
        yield f'{{"ph":"M",{ids},"name":"{kind}_name","args":{{"name":"{name}"}}}}'
    yield f'{{"ph":"M",{ids},"name":"thread_sort_index","args":{{"sort_index":{track.rank}}}}}'

    def slice_of(
        name: str, kind: str, start: float, stop: float | None, more: str = ""
    ) -> Iterator[str]:
        """None where the length rounds to 0, since Perfetto draws such a slice within the next; but where the rank is now stays."""
        # Both ends by the same rounding, so that what follows each other does not overlap.
        ends = (start, track.stop if stop is None else stop)
        begin, end = (round(1e9 * (clocks.aligned(track.host, at) - zero)) for at in ends)
        if end > begin or stop is None:
            times = f'"ts":{begin / 1e3:.3f},"dur":{max(0, end - begin) / 1e3:.3f}'
            yield f'{{"ph":"X",{ids},"name":"{name}","cat":"{kind}",{times}{more}}}'

    made = -1
    for phases in _by_step(track.phases):
        step = phases[0].step
        # What comes behind an evaluation has the number of the step before, and is none of it.
        if phases[0].name in STEP_PHASES and step != made:
            made = step
            more = f',"args":{{"step":{step}}}'
            yield from slice_of(f"step {step}", "step", phases[0].start, phases[-1].stop, more)
        for phase in phases:
            yield from slice_of(phase.name, "phase", phase.start, phase.stop)
            if phase.waited:
                end = track.stop if phase.stop is None else phase.stop
                waited = min(phase.waited, end - phase.start)
                yield from slice_of("waiting", "phase", phase.start, phase.start + waited)


def _by_step(phases: Sequence[Phase]) -> Iterator[list[Phase]]:
    """Phases of a step together; each that is of none alone. What begins an epoch has the number of the step before it."""
    group: list[Phase] = []
    for phase in phases:
        is_of_step = phase.name in STEP_PHASES
        if group and not (
            is_of_step and group[-1].name in STEP_PHASES and phase.step == group[-1].step
        ):
            yield group
            group = []
        group.append(phase)
    if group:
        yield group
