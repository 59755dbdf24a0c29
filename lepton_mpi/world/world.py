"""The ranks of a job: who they are, how they are watched, and ``run``, the way in.

The rule that keeps a job from hanging: an error is either agreed on, and then every rank raises it at the
same place (``World.agree``), or it is one rank's own, and then that rank aborts the job. There is no
third way: the excepthook of ``failure.py`` makes sure of it for code that knows nothing of this rule.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakMethod

import numpy as np

from lepton_mpi import early_signals, launcher, report_word
from lepton_mpi.errors import ConfigurationError, LeptonError, RankError
from lepton_mpi.wording import WARNING
from lepton_mpi.world import deaths, exits, leftovers, presence, witness
from lepton_mpi.world.deaths import CrashStacks, Ended, MemoryKills
from lepton_mpi.world.failure import Failure, end_child
from lepton_mpi.world.host_links import ENDED, FAILED, UNREACHABLE, HostLinks, News, lost_host
from lepton_mpi.world.losses import Losses, check_possible
from lepton_mpi.world.rank_group import RankGroup
from lepton_mpi.world.stopping import Stopping, caught_signals
from lepton_mpi.world.watchdog import PhaseClock, Watchdog

if TYPE_CHECKING:
    from mpi4py import MPI

# A year: what C libraries take as a time is limited, what a user may want to wait is not.
_LIMIT_SECONDS_MAX = 365 * 86400.0

# Until a rank that is itself the cause has spoken, or its backstop has written where it is.
_CAUSE_FIRST_SECONDS = 2.0

# How long Open MPI waits before it ends the job for a connection that was closed: the dead rank's host reports meanwhile.
_MPI_ABORT_SECONDS = 3
# Until the ranks of a host have reported that their leader died.
_HOST_SPEAKS_SECONDS = 1.5
# A launcher that has lost a host does not end by itself.
_LOST_LAUNCHER_SECONDS = 2.0


def run(
    function: Callable[[World], Any],
    timeout_seconds: float = 300.0,
    peer_timeout_seconds: float = 30.0,
    raises: bool = False,
    is_elastic: bool = False,
) -> int:
    """Call ``function(world)`` on every rank and return the exit code of the job. Collective.

    A LeptonError that all ranks raise ends in one line and its exit code; an error of one rank alone ends the job, with
    exit code 5 if it is not a LeptonError. ``lepton_mpi/world/__init__.py`` has a program that uses it.

    Parameters
    ----------
    function : callable (World) -> anything
    timeout_seconds, peer_timeout_seconds, is_elastic
        See ``World``.
    raises : bool
        Whether a LeptonError that all ranks raise, and any error of a single rank, is raised here in place of a line and an exit code.
    """
    try:
        world = World(timeout_seconds, peer_timeout_seconds, is_elastic)
    except LeptonError as error:
        if raises:
            raise
        launcher.complain(f"lepton_mpi: {error}")
        return error.exit_code
    try:
        function(world)
    except BaseException as error:
        is_everybodys = isinstance(error, LeptonError) and error.agreed
        if raises and not world.is_child and (is_everybodys or world.size == 1):
            world.close()  # an interactive Python that shows the error goes on
            raise
        code = _ended_by(error, world)
        if code is None:
            raise
        exits.exit_code = code
        return code
    if world.is_child:
        end_child(None)
    world.close()
    exits.exit_code = 0
    return 0


def _ended_by(error: BaseException, world: World) -> int | None:
    """The exit code where all ranks raised what ``function(world)`` raised; None where the excepthook is to end the job."""
    if world.is_child:
        end_child(error)
    if isinstance(error, LeptonError):
        if not error.agreed:
            world.fail(f"lepton_mpi: rank {world.rank} of {world.size}: {error}", error.exit_code)
        if world.rank == 0:
            print(f"lepton_mpi: {error}", file=sys.stderr, flush=True)
        world.close()
        return error.exit_code
    if isinstance(error, SystemExit):
        # Of one rank: it would wait in MPI's end for the others, and they for it.
        world.fail(
            f"lepton_mpi: rank {world.rank} of {world.size} left by sys.exit({error.code!r})"
        )
    world.abandon()
    return None


class World(RankGroup):
    """All ranks of the job, as a ``Group``. Making one and closing it are collective over the job.

    Parameters
    ----------
    timeout_seconds : float
        Time without progress after which the job ends; more where the start or a checkpoint takes it.
    peer_timeout_seconds : float
        Time after which a host that sends no sign of life, not even from its kernel, counts as gone; then the job ends.
    is_elastic : bool
        Whether the job goes on when a rank is lost: then its death ends nothing but the waits of the others, who call ``go_on``.

    Attributes
    ----------
    timeout_seconds : float
    watchdog : Watchdog
    stopping : Stopping
        On which step the ranks stop if ``catching_signals`` is around what they do.

    Raises
    ------
    LauncherError
        No MPI library, a launcher that belongs to another one, or ranks of a host that cannot share memory.
    ConfigurationError
        A ``timeout_seconds`` or ``peer_timeout_seconds`` that is not above 0; or ``is_elastic`` where that cannot be.
    """

    stopping: Stopping

    def __init__(
        self,
        timeout_seconds: float = 300.0,
        peer_timeout_seconds: float = 30.0,
        is_elastic: bool = False,
    ) -> None:
        for name, seconds in (
            ("timeout", timeout_seconds),
            ("peer_timeout", peer_timeout_seconds),
        ):
            if not seconds > 0:
                raise ConfigurationError(f"{name}: expected seconds above 0, got {seconds}")
        from lepton_mpi.world.mpi import MPI, check_launcher

        check_launcher()
        if is_elastic:
            check_possible()
        self._process_id = os.getpid()
        launcher.die_with_launcher()
        self.timeout_seconds = min(timeout_seconds, _LIMIT_SECONDS_MAX)
        self._peer_timeout_seconds = peer_timeout_seconds
        self._launcher, self._interrupts = os.getppid(), 0
        self._witness: subprocess.Popen[bytes] | None = None
        with ExitStack() as undo:
            losses = Losses() if is_elastic else None
            if losses:
                undo.callback(losses.close)
            self._begin(MPI.COMM_WORLD.Dup(), losses)
            undo.pop_all()

    def _begin(self, comm: MPI.Intracomm, losses: Losses | None) -> None:
        """Be the world of the ranks of ``comm``, and watch them; what a start that fails has begun is undone."""
        self._is_watched, self._witness = False, None
        self.comm = comm  # of which ``go_on`` makes the next one, whatever happens here
        with ExitStack() as undo:
            if losses:
                losses.revoke_with(comm)
                losses.watch(comm.allgather(os.getpid()))
            super().__init__(comm, PhaseClock(), losses=losses)
            if self.size == 1 and not losses:  # others would have to do it at the same time
                undo.callback(super().close)
            if losses:
                losses.tell_by(self.host_array((1,), np.int64, "lost"))
            shown = presence.show(self, self.timeout_seconds, undo)
            self._host, self._file, self._place_at_end = shown.host, shown.file, ""
            self.clock = self._calls.clock = shown.clock
            self._guard(shown, undo)
            if self._links.unwatched and self.rank == 0:
                print(f"{WARNING}{self._links.unwatched_text}", file=sys.stderr)
            if self.local_rank == 0 and self.size > 1:
                leftovers.remove()
                if not losses:  # it would take a lost rank for the end of the job
                    self._witness = witness.start(self._host.to_json(0), self._file)
            undo.pop_all()
        self._is_watched = True

    def _guard(self, shown: presence.Shown, undo: ExitStack) -> None:
        """See to it that all ranks end when one does, or stop when one is to."""
        from lepton_mpi.world.mpi import delay_abort

        self._links = HostLinks(self, self._peer_timeout_seconds)
        undo.callback(self._links.close)
        tell, place = self._links.tell_failure, self._place
        self._failure = Failure(self.rank, self.size, shown.file, shown.reported, tell, place)
        undo.callback(self._failure.close, hooks_stay=self.size > 1 or self.losses is not None)
        self._memory_kills = MemoryKills()
        self._crashes = CrashStacks(self._host.process_ids, self._host.stack_files, self.local_rank)
        undo.callback(self._crashes.close)
        self.can_agree_to_stop = not self._links.unwatched
        self.stopping = Stopping(self, self._links, self._host.process_ids[0])
        self._looks: list[WeakMethod[Callable[[], str]]] = []
        self.watchdog = Watchdog(
            *(self.clock, self.timeout_seconds, self._host.process_ids),
            *(self, shown.backstop, self._links),
        )
        undo.callback(self.watchdog.stop)
        if self.size > 1:
            delay_abort(_MPI_ABORT_SECONDS)

    @property
    def is_child(self) -> bool:
        """Whether this process is not the rank, but one that the rank has forked: then nothing here is its own."""
        return os.getpid() != self._process_id

    def at_failure(self, last_words: Callable[[], None] | None) -> None:
        """See ``RankGroup``."""
        self._failure.last_words = last_words

    def watch(self, look: Callable[[], str]) -> None:
        """See ``Group``."""
        self._looks.append(WeakMethod(look))

    def fail(self, report: str, exit_code: int = 5) -> None:
        """Print ``report``, unless another rank of this host has failed before, and end the job."""
        if self.is_child:
            end_child(RankError(report))
        self._failure.fail(report, exit_code)

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """A block that asks ``stopping.is_due`` after every step: a signal to stop does nothing else, but a second Ctrl-C.

        Does nothing where the hosts cannot agree.
        """
        if not self.can_agree_to_stop:
            early_signals.give_up()
            yield
            return
        goes_on = self.losses is not None and self.losses.is_awaited
        with caught_signals(self.watchdog.signal_file, goes_on):
            yield

    def go_on(self) -> list[int]:
        """Be the world of the ranks that are left; returns the numbers that the lost ones had. Collective over those that are left.

        To be called where ``losses`` explains an error. Arrays and groups of before belong to nobody. More may be lost meanwhile.
        Signals to stop that come meanwhile are remembered until ``catching_signals`` begins again.
        """
        early_signals.remember(with_interrupts=True)
        losses = self.losses
        assert losses is not None
        before = dict(zip(self._host.process_ids, self.host_ranks, strict=True))
        wanted = self.stopping.wanted
        exits.has_lost = True
        while True:
            if self._is_watched:
                self._is_watched = False
                wanted = next(iter(self._stop_watching(hooks_stay=True)), wanted)
                self._links.close()
            # Until the next backstop, should a rank that is alive not come.
            faulthandler.dump_traceback_later(self.timeout_seconds, exit=True)
            losses.begin_anew()
            try:
                self._begin(cast("MPI.Intracomm", self.comm.Shrink()), losses)
                break
            except Exception as error:
                if not losses.explain(error):
                    raise
        if wanted:
            self.stopping.want(wanted)
        return sorted(rank for process, rank in before.items() if process in losses.dead)

    def close(self) -> None:
        """Give back all that the world holds; ranks may go on without each other. Collective; once."""
        if not self._is_open or self.is_child:
            return
        if self.losses:
            with suppress(Exception):  # from here on the others may end without being lost
                self.comm.Barrier()
            self.losses.close()
        has_lost = bool(self.losses and self.losses.dead)
        self._stop_watching(hooks_stay=self.size > 1 or has_lost)
        self._links.close()
        if has_lost:
            self._is_open, exits.has_lost = False, True  # communicators of ranks that are gone
        else:
            super().close()

    def abandon(self) -> None:
        """The same after an error of this rank alone, which the excepthook is to see; not collective."""
        if self._is_open and not self.is_child:
            self._stop_watching(hooks_stay=True)
            if self.size == 1:
                super().close()

    def _stop_watching(self, hooks_stay: bool) -> bytes:
        """Returns the signals that the watchdog has not read."""
        self._place_at_end = self._place()
        self.clock.enter("over")
        report_word.set_address(0)
        if self._witness:
            self._witness.kill()
            self._witness.wait()
        self._crashes.close()
        unread = self.watchdog.stop()
        self._failure.close(hooks_stay)
        os.close(self._file)
        return unread

    # -- what the watchdog's thread calls ----------------------------------------------------------

    def died(self, ended: dict[int, int | None]) -> None:
        """See ``Alarms``."""
        if self.losses and self.losses.is_awaited:
            return  # its thread has seen it, too
        found = [Ended(rank, status, self._crashes.of(rank)) for rank, status in ended.items()]
        beats, kills = self.clock.heartbeats(), self._memory_kills
        report = deaths.report(self._host, beats, found, kills, self._on_host)
        details = [*report, *(each.stack for each in found)]
        self._failure.fail("\n".join(report), details="\n".join(details))

    @property
    def _on_host(self) -> str:
        """In a job of several hosts where its processes are."""
        return f" on {self._links.names[self.host_index]}" if self.host_count > 1 else ""

    def _place(self) -> str:
        """Process, phase and step; of a world that is over, where it was before that."""
        return (
            self._place_at_end
            or f"process {os.getpid()}{self._on_host}, {self.clock.heartbeats()[self.local_rank]}"
        )

    def timed_out(self) -> None:
        """See ``Alarms``."""
        stack = ""
        if self.clock.waits_for_others():
            time.sleep(_CAUSE_FIRST_SECONDS)
        else:
            frame = sys._current_frames().get(threading.main_thread().ident or 0)
            stack = "".join(traceback.format_stack(frame))
        self.fail(self._host.hang_report(self.clock.heartbeats(), self.local_rank, stack))

    def looked(self) -> None:
        """See ``Alarms``."""
        if self._failure.has_begun:
            self.fail("")
        for reference in list(self._looks):
            look = reference()
            if look is None:
                self._looks.remove(reference)
            elif (text := look()) and not (self.losses and self.losses.is_told):
                self.fail(f"lepton_mpi: {text}")
        self.stopping.look()

    def signalled(self, number: int) -> None:
        """See ``Alarms``."""
        if self._failure.has_begun or os.getppid() != self._launcher:
            os._exit(128 + number)  # the launcher ends a job that has failed
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            self.fail("lepton_mpi: interrupted twice: nothing was saved", 130)
        self.stopping.want(number)

    def heard(self, news: News) -> None:
        """See ``Alarms``."""
        if news.kind == FAILED:
            self.fail("")
        elif news.kind not in (UNREACHABLE, ENDED):
            self.stopping.heard(news)
        elif news.kind == UNREACHABLE:
            report = lost_host(self, self._links, news)
            self._failure.fail(report, launcher_seconds=_LOST_LAUNCHER_SECONDS)
        elif news.kind == ENDED:
            time.sleep(_HOST_SPEAKS_SECONDS)
            self._failure.fail(lost_host(self, self._links, news))
