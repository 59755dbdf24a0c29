"""The order of an examination: alone, on every rank of a job, and among copies that do not see each other."""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lepton_mpi import launcher
from lepton_mpi.doctor import cores, launching, report, threads, trial
from lepton_mpi.doctor.finding import Finding
from lepton_mpi.doctor.host_facts import HostFacts, Wanted, gather, seconds_at_most
from lepton_mpi.doctor.job import JobFacts, RankFacts, findings
from lepton_mpi.doctor.last_words import LastWords
from lepton_mpi.errors import LauncherError, LeptonError, RankError
from lepton_mpi.wording import one_line, print_line

if TYPE_CHECKING:
    from mpi4py import MPI

    from lepton_mpi.doctor.messages import Ranks

# Beyond the limits of the checks: messages, and a machine that is busy.
_SPARE_SECONDS = 10.0
_LOOK_SECONDS = 0.05


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes
    ----------
    data : str
        File or folder whose file system is tried; empty for the current folder.
    json : str or None
        File for the findings; "-" prints them in place of the lines.
    limit_seconds : float
        For each check.
    environment : mapping
        That of this process before anything has changed it.
    remove_leftovers : bool
        Whether to remove what dead jobs have left in /dev/shm.
    """

    data: str
    json: str | None
    limit_seconds: float
    environment: Mapping[str, str]
    remove_leftovers: bool = False

    def wanted(self, ranks: Mapping[int, list[int]]) -> Wanted:
        """What to ask a host for."""
        path = Path(self.data or ".").resolve()
        folder = path if path.is_dir() else path.parent
        data = "" if path.is_dir() else str(path)
        environment = dict(self.environment)
        return Wanted(
            ranks, str(folder), data, environment, self.limit_seconds, self.remove_leftovers
        )


def examine(request: Request) -> int:
    """The whole examination; returns the exit code. Every rank calls it, one of them reports."""
    if reporter := _elder_copy(request.environment):
        return _wait_for(reporter)
    launcher.die_with_launcher()
    examination = Examination(request)
    return examination.run()


def _elder_copy(environment: Mapping[str, str]) -> int | None:
    """Without a launcher: the first of several processes like this one, which is to report; None if it is this one."""
    if launching.launcher_name(environment):
        return None
    first = launching.first_of(launching.copies())
    return None if first == os.getpid() else first


def _wait_for(process_id: int) -> int:
    """Wait until the process that reports has ended, since a launcher ends all as soon as one does."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process_id in launching.copies():
        time.sleep(0.2)
    return 1


class Examination:
    """One process's part of an examination.

    Attributes
    ----------
    job : JobFacts
        What is known so far; on other ranks than 0 without meaning.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._rank = launcher.launched_rank(request.environment)
        limit = request.limit_seconds
        self.job = JobFacts(launching.Facts(), limit_seconds=limit)
        self._limit_seconds = 2 * seconds_at_most(limit) + _SPARE_SECONDS
        self._stage, self._since = "start", time.monotonic()
        self._stage_seconds = limit + _SPARE_SECONDS
        self._code: int | None = None
        # Whether nothing is left behind that would keep this process, or MPI, from ending.
        self._is_whole, self._has_mpi, self._has_reported = True, False, False

    def run(self) -> int:
        """Examine in a thread; this one reports if that one is stuck, and ends the process."""
        self._arm_backstop()
        errors: list[BaseException] = []
        thread = threading.Thread(target=self._work, args=(errors,), daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not self._is_overdue():
                thread.join(_LOOK_SECONDS)
        except KeyboardInterrupt:
            _leave(128 + signal.SIGINT)
        if errors:
            self._end_by(errors[0])
        if thread.is_alive():
            self._give_up()
        code = 1 if self._code is None else self._code
        if not self._is_whole:
            _leave(code)
        faulthandler.cancel_dump_traceback_later()
        return code

    def _end_by(self, error: BaseException) -> NoReturn:
        """Raise it; in a job end it at once, since the other ranks wait for this one, here or in MPI's end."""
        if self._has_mpi:
            if isinstance(error, LeptonError):
                print(f"lepton_mpi doctor: {error}", file=sys.stderr)
                _leave(error.exit_code)
            traceback.print_exception(error)
            _leave(RankError.exit_code)
        raise error

    def _arm_backstop(self) -> None:
        """Whatever happens, this process ends."""
        faulthandler.dump_traceback_later(self._limit_seconds + 2 * _SPARE_SECONDS, exit=True)

    def _is_overdue(self) -> bool:
        return time.monotonic() - self._since > self._stage_seconds

    def _enter(self, stage: str, seconds: float) -> None:
        """What this process does from now on, and for how long at most."""
        self._stage, self._since = stage, time.monotonic()
        self._stage_seconds = seconds + _SPARE_SECONDS

    def _give_up(self) -> None:
        """End the process, with what is known."""
        if self._rank == 0 and not self._has_reported:
            self.job.stuck = self._stage
            self._report()
        _leave(1)

    def _work(self, errors: list[BaseException]) -> None:
        try:
            self._examine()
        except BaseException as error:
            errors.append(error)

    # -- alone or in a job -----------------------------------------------------------------------

    def _examine(self) -> None:
        request, environment = self._request, self._request.environment
        self.job.launching = launching.gather(environment)
        mine = RankFacts(cores.host_name(), cores.own_cores(), threads.variables_of(environment))
        self.job.ranks[0] = mine
        if self.job.launching.launcher:
            comm = self._start_mpi()
            if comm is not None and comm.size > 1:
                self._in_job(comm, mine)
                return
            if self._rank > 0:  # a copy: the first one reports
                self._rest()
                return
        else:
            self._enter("starting MPI in another process", request.limit_seconds)
            tried = _try_mpi(request.limit_seconds)
            self.job.launching = dataclasses.replace(self.job.launching, **tried)
        self._enter("facts of this host", seconds_at_most(request.limit_seconds))
        host = gather(request.wanted(self.job.ranks_of(mine.host)))
        self.job.hosts[mine.host] = host
        self._mind(host)
        if self.job.launching.started == 1:
            count = len(launching.copies())
            self.job.launching = dataclasses.replace(self.job.launching, copies=max(1, count))
        self._code = self._report()

    def _start_mpi(self) -> MPI.Comm | None:
        self._enter("MPI's start (MPI_Init)", self._limit_seconds)
        launcher.limit_threads(1)
        seconds = self._request.limit_seconds + _SPARE_SECONDS
        stuck = dataclasses.replace(self.job.launching, stuck_seconds=seconds)
        text = self._rendered(findings(dataclasses.replace(self.job, launching=stuck)))
        try:
            with self._ending_after(seconds, text):
                from lepton_mpi.world.mpi import MPI, mpi_library
        except LauncherError as error:
            self.job.launching = dataclasses.replace(
                self.job.launching, library_error=_reason(str(error))
            )
            return None
        comm, self._has_mpi = MPI.COMM_WORLD, MPI.COMM_WORLD.size > 1
        self.job.launching = dataclasses.replace(
            self.job.launching, library=mpi_library(), size=comm.size
        )
        self._rank = comm.rank if comm.size > 1 else self._rank
        return comm

    @contextmanager
    def _ending_after(self, seconds: float, text: str) -> Iterator[None]:
        """A block that may keep the interpreter lock: after ``seconds`` rank 0 prints ``text``, and the process ends."""
        later = 1.0 if self._rank == 0 else 3.0  # a launcher ends the others as soon as one ends
        with open(os.devnull, "w") as nowhere:
            faulthandler.dump_traceback_later(seconds + later, exit=True, file=nowhere)
            words = LastWords(text, seconds) if self._rank == 0 else nullcontext()
            try:
                with words:
                    yield
            finally:
                self._arm_backstop()

    def _rest(self) -> None:
        """Wait for the first copy to report and end, by which launchers end the others."""
        self._enter("waiting for the first copy", self._limit_seconds)
        elder = launching.first_of(launching.copies())
        while elder in launching.copies() and elder != os.getpid():
            time.sleep(0.2)
        self._code = 1

    # -- ranks that see each other ---------------------------------------------------------------

    def _in_job(self, comm: MPI.Comm, mine: RankFacts) -> None:
        from lepton_mpi.doctor import link
        from lepton_mpi.doctor.messages import serve
        from lepton_mpi.world.mpi import MPI

        if comm.rank == 0:
            self._lead(comm, mine)
        else:
            self._enter("waiting for rank 0", self._limit_seconds)
            answers = {
                "rank": lambda _: mine,
                "host": self._host_of_peer,
                "link": lambda _: link.answer(comm, 0),
            }
            self._code, self._is_whole = serve(comm, answers)
        if self._is_whole:
            self._enter("MPI's end (MPI_Finalize)", self._request.limit_seconds)
            MPI.Finalize()  # by the thread that has started it

    def _host_of_peer(self, ranks: Mapping[int, list[int]]) -> HostFacts:
        return gather(self._request.wanted(ranks))

    def _lead(self, comm: MPI.Comm, mine: RankFacts) -> None:
        from lepton_mpi.doctor.messages import Ranks, Verdict

        job, limit = self.job, self._request.limit_seconds
        ranks, others = Ranks(comm), range(1, comm.size)
        self._enter("cores and variables of every rank", limit)
        ranks.ask(others, "rank")
        answers = ranks.answers(others, limit)
        job.ranks = {0: mine} | dict(sorted(answers.items()))
        self._expect(others, answers, "its cores and variables")
        self._ask_hosts(ranks)
        self._measure_links(comm, ranks)
        self._code = self._report()
        self._enter("the end of the other ranks", limit)
        for host in job.hosts.values():
            self._mind(host)
        self._is_whole = self._is_whole and not job.silent
        if not ranks.end(others, Verdict(self._code, self._is_whole), limit):
            self._is_whole = False

    def _ask_hosts(self, ranks: Ranks) -> None:
        """Facts of all hosts at the same time."""
        job, seconds = self.job, seconds_at_most(self._request.limit_seconds)
        self._enter("facts of every host", 2 * seconds)
        began, leaders = time.monotonic(), self._leaders()
        for host, leader in leaders.items():
            if leader > 0:
                ranks.ask([leader], "host", job.ranks_of(host))
        own = gather(self._request.wanted(job.ranks_of(job.ranks[0].host)))
        peers = [leader for leader in leaders.values() if leader > 0]
        answers = ranks.answers(peers, began + seconds - time.monotonic() + 1)
        self._expect(peers, answers, "the facts of its host")
        job.hosts = {
            host: own if leader == 0 else answers[leader]
            for host, leader in leaders.items()
            if leader == 0 or leader in answers
        }

    def _measure_links(self, comm: MPI.Comm, ranks: Ranks) -> None:
        from lepton_mpi.doctor import link

        for host, leader in self._leaders().items():
            if leader > 0 and leader not in self.job.silent:
                self._enter(f"latency and bandwidth to {host}", self._request.limit_seconds)
                ranks.ask([leader], "link")
                self.job.links[host] = link.measure(comm, leader)

    def _leaders(self) -> dict[str, int]:
        """First rank of each host."""
        found: dict[str, int] = {}
        for rank, facts in self.job.ranks.items():
            found.setdefault(facts.host, rank)
        return found

    def _expect(self, asked: range | list[int], answers: Mapping[int, object], what: str) -> None:
        self.job.silent |= {rank: what for rank in asked if rank not in answers}

    def _mind(self, host: HostFacts) -> None:
        """A check that is left behind in its thread would keep the process from ending."""
        self._is_whole = self._is_whole and not host.late

    # -- the end -----------------------------------------------------------------------------------

    def _report(self) -> int:
        """Print or write what was found; returns the exit code."""
        self._has_reported = True
        found = findings(self.job)
        code = report.exit_code(found)
        print_line(self._rendered(found))
        if self._request.json and self._request.json != "-":
            try:
                Path(self._request.json).write_text(report.as_json(self.job, found) + "\n", "utf-8")
            except OSError as error:
                launcher.complain(
                    f"lepton_mpi doctor: --json: {self._request.json}: {error.strerror}"
                )
                return LauncherError.exit_code
        return code

    def _rendered(self, found: list[Finding]) -> str:
        """What is printed."""
        if self._request.json == "-":
            return report.as_json(self.job, found)
        return report.text(found, report.width())


def _leave(code: int) -> NoReturn:
    """End the process whatever its threads do."""
    sys.stdout.flush()
    sys.stderr.flush()
    if launcher.launched_rank() > 0:
        time.sleep(1.0)  # a launcher ends the others as soon as one ends so
    os._exit(code)


def _try_mpi(limit_seconds: float) -> dict[str, Any]:
    """The MPI library, started in another process; what of ``launching.Facts`` follows."""
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; from lepton_mpi.world.mpi import MPI, mpi_library; "
        "print('lepton_mpi:', MPI.COMM_WORLD.size, mpi_library())"
    )
    try:
        ended = trial.run([sys.executable, "-c", program], limit_seconds)
    except TimeoutError:
        return {"library_error": f"it had not started after {limit_seconds:g} s"}
    for line in ended.out.splitlines():
        mark, _, rest = line.partition(" ")
        if mark == "lepton_mpi:":
            size, _, library = rest.partition(" ")
            return {"library": library, "size": int(size)}
    return {"library_error": _reason(one_line(ended.reason))}


def _reason(message: str) -> str:
    """Of our own message, what mpi4py said."""
    _, found, rest = message.partition("no MPI library can be loaded (")
    return rest.partition("): install one")[0] if found else message
