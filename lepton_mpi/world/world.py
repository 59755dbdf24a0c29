"""The ranks of a job: who they are, how they are watched, and ``run``, the way in.

The rule that keeps a job from hanging: an error is either agreed on, and then every rank raises it at the
same place (``World.agree``), or it is one rank's own, and then that rank aborts the job. There is no
third way: the excepthook of ``failure.py`` makes sure of it for code that knows nothing of this rule.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from lepton_mpi import early_signals, launcher
from lepton_mpi.errors import ConfigurationError, LauncherError, LeptonError
from lepton_mpi.world import (
    exits,
    joining,
)
from lepton_mpi.world.failure import end_child, ended_by
from lepton_mpi.world.launchers import end_launcher, launcher_of
from lepton_mpi.world.losses import Losses, check_possible
from lepton_mpi.world.stopping import Stopping, caught_signals
from lepton_mpi.world.watched_group import WatchedGroup

if TYPE_CHECKING:
    from mpi4py import MPI

    from lepton_mpi.world.members import Member

# From the end of a host's ranks to that of their launcher, if it waits for a host that is lost: it prints meanwhile what they have said.
_LAUNCHER_SECONDS = 3.0
# A year: what C libraries take as a time is limited, what a user may want to wait is not.
_LIMIT_SECONDS_MAX = 365 * 86400.0


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
        code = ended_by(error, world)
        if code is None:
            raise
        exits.exit_code = code
        return code
    if world.is_child:
        end_child(None)
    world.close()
    exits.exit_code = 0
    return 0


class World(WatchedGroup):
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
    has_joined : bool
        Whether this rank has joined a job that was running.
    is_first : bool
        Whether it is the first world of this process.
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
        me = launcher.joining()
        limit = joining.limited_start() if me and not exits.has_grown else None
        from lepton_mpi.world.mpi import MPI, check_launcher

        check_launcher()
        if is_elastic:
            check_possible()
        launcher.die_with_launcher()
        super().__init__(min(timeout_seconds, _LIMIT_SECONDS_MAX), peer_timeout_seconds)
        self.has_joined, self._has_launcher_ender = me is not None, False
        self.is_first, exits.has_begun = not exits.has_begun, True
        with ExitStack() as undo:
            losses = Losses() if is_elastic else None
            if losses:
                undo.callback(losses.close)
            if me is None and not exits.has_grown:
                self._begin(MPI.COMM_WORLD.Dup(), losses)
            else:
                self._join(me if not exits.has_grown else None, losses)
            undo.pop_all()
        if limit:
            limit.close()

    def _join(self, me: launcher.Joining | None, losses: Losses | None) -> None:
        """Be a rank of the world that is there."""
        if me is None or losses is None:
            raise LauncherError(
                "ranks join one run of a program, its first with --elastic, got another"
            )
        self.losses, losses.is_awaited = losses, True
        try:
            self.grow(joining.merged_with_job(me))
        except Exception as error:
            if not losses.explain(error):
                raise
            self.go_on()

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
        before, wanted = self._members, self._wanted
        exits.has_lost = True
        self._end_launcher_later(before, losses.left_of(before))
        while True:
            wanted = next(iter(self._leave()), wanted)
            losses.begin_anew()
            try:
                self._begin(cast("MPI.Intracomm", self.comm.Shrink()), losses)
                break
            except Exception as error:
                if not losses.explain(error):
                    raise
        if wanted:
            self.stopping.want(wanted)
        self._end_launcher_later(before, self._members)
        return [rank for rank, member in enumerate(before) if member not in self._members]

    def _end_launcher_later(self, before: list[Member], left: list[Member]) -> None:
        """Where a host is lost, its launcher's process may be, too: then a signal alone ends the others, however these ranks end."""
        has_lost_host = {one.host for one in before} != {one.host for one in left}
        if has_lost_host and self.local_rank == 0 and not self._has_launcher_ender:
            end_launcher(launcher_of(os.getpid()), _LAUNCHER_SECONDS, self._host.process_ids)
            self._has_launcher_ender = True

    def _end_launcher_if_lost(self) -> None:
        """The same where a host is lost from now on. Before the others leave, which closes the connections to them."""
        exits.had_hosts = True
        if (links := self._links.descriptors()) and not self._has_launcher_ender:
            launcher_id, behind = launcher_of(os.getpid()), self._host.process_ids
            end_launcher(launcher_id, _LAUNCHER_SECONDS, behind, links)

    def grow(self, comm: MPI.Intracomm) -> None:
        """Be the world of the ranks of ``comm``, which ``joining`` has made: these, and new ones behind them. Collective over all of them.

        If one of them is lost meanwhile, it raises what ``losses`` explains, and ``go_on`` is the next thing to do. Signals as there.
        """
        early_signals.remember(with_interrupts=True)
        losses, wanted = self.losses, self._wanted
        assert losses is not None
        exits.has_grown, self.comm = True, comm
        losses.revoke_with(comm)
        comm.Barrier()  # nobody uses what was there before
        wanted = next(iter(self._leave()), wanted)
        losses.begin_anew(kept=comm)
        self._begin(comm, losses)
        if wanted:
            self.stopping.want(wanted)

    @property
    def _wanted(self) -> int:
        return self.stopping.wanted if self._members else 0

    def _leave(self) -> bytes:
        """What belongs to ranks of which some are gone, or to fewer than there are; returns signals that nobody has read."""
        unread = b""
        if self._is_watched:
            self._is_watched = False
            # Connections to other hosts stay until there are new ones.
            unread = self._stop_watching(hooks_stay=True)
        # Until the next backstop, should a rank that is alive not come.
        faulthandler.dump_traceback_later(self.timeout_seconds, exit=True)
        return unread

    def close(self) -> None:
        """Give back all that the world holds; ranks may go on without each other. Collective; once."""
        if not self._is_open or self.is_child:
            return
        if self.losses:
            if self.host_count > 1:
                self._end_launcher_if_lost()
            with suppress(Exception):  # from here on the others may end without being lost
                self.comm.Barrier()
            self._end_launcher_later(self._members, self.losses.left_of(self._members))
            self.losses.close()
        has_lost = bool(self.losses and (self.losses.dead or exits.has_lost or exits.has_grown))
        self._stop_watching(hooks_stay=self.size > 1 or has_lost)
        self._links.close()
        if has_lost:
            self._is_open = False  # communicators of ranks that are gone, or may go first
            exits.has_lost = True
        else:
            super().close()

    def abandon(self) -> None:
        """The same after an error of this rank alone, which the excepthook is to see; not collective."""
        if self._is_open and not self.is_child:
            self._stop_watching(hooks_stay=True)
            if self.size == 1:
                super().close()
