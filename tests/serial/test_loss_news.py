"""What a leader is told of other hosts reaches the ranks of its own, and wakes the thread that ends their waits."""

import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from lepton_mpi import processes
from lepton_mpi.world import launchers, members, pmix
from lepton_mpi.world.host_links import ENDED, LEFT, LOST, UNREACHABLE, News
from lepton_mpi.world.loss_news import LossNews
from lepton_mpi.world.losses import Losses, RankLostError
from lepton_mpi.world.pmix import Name

_HOSTS = [[0, 1], [2, 3]]


class _Links:
    """A leader's connection, a pipe in place of one, and what was said by it."""

    def __init__(self) -> None:
        self.to_read: list[News] = []
        self.sent: list[tuple[int, int]] = []
        self._mine, self._other = os.pipe()

    def descriptors(self) -> list[int]:
        return [self._mine] if self._mine >= 0 else []

    def read(self, descriptor: int) -> list[News]:
        os.read(descriptor, 1)
        return [self.to_read.pop(0)]

    def say(self, *news: News) -> None:
        self.to_read += news
        os.write(self._other, b"x" * len(news))

    def send(self, kind: int, value: int = 0) -> None:
        self.sent.append((kind, value))

    def close(self) -> None:
        self.send(LEFT)
        for descriptor in (self._mine, self._other):
            os.close(descriptor)
        self._mine = -1


class _NoLinks:
    """Of a rank that is no leader."""

    def descriptors(self) -> list[int]:
        return []

    def send(self, kind: int, value: int = 0) -> None:
        pass

    def close(self) -> None:
        pass


class _Host:
    """Two ranks of one of two hosts, in one process: each with a thread that ends its waits; the first is the leader."""

    def __init__(self, index: int, everybody: list[members.Member]) -> None:
        self.words, self.told, self.links, self.heard = np.zeros(5, np.int64), [], _Links(), []
        self.losses = [self._rank(index, local, everybody) for local in (0, 1)]

    def _rank(self, index: int, local: int, everybody: list[members.Member]) -> Losses:
        made, me = Losses(), everybody[_HOSTS[index][local]]
        made.me, made.is_awaited = me, True
        comm = SimpleNamespace(bcast=self._bcast, Barrier=lambda: None)
        group = SimpleNamespace(
            size=4, host_count=2, host_index=index, ranks_of_hosts=_HOSTS, local_rank=local,
            host_comm=comm, host_array=lambda *_: self.words,
        )  # fmt: skip
        made.watch(everybody)
        made.hear(
            LossNews(group, everybody, _NoLinks() if local else self.links), self.heard.append
        )
        return made

    def _bcast(self, value):
        self.told.append(value)
        return self.told[0]

    def close(self) -> None:
        for each in reversed(self.losses):
            each.close()


@pytest.fixture
def sleeping():
    """Four processes, of which nobody dies."""
    made = [
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in "1234"
    ]
    yield made
    for each in made:
        each.kill()
        each.wait()
        each.stdin.close()


@pytest.fixture
def host_of(sleeping):
    """The first or second host, as its ranks see it."""
    made = []

    def make(index: int) -> tuple[_Host, list[members.Member]]:
        everybody = [
            members.Member(100 + rank, f"host {rank // 2}", sleeping[rank].pid, Name("", -1))
            for rank in range(4)
        ]
        made.append(_Host(index, everybody))
        return made[-1], everybody

    yield make
    for each in made:
        each.close()


def _until(is_so) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _dead(host: _Host) -> list[set[int]]:
    return [each.dead for each in host.losses]


def test_a_process_of_another_host(host_of):
    """All ranks of this host leave what they wait in; the other hosts are told, who may not know it."""
    host, _ = host_of(0)
    host.links.say(News(LOST, 1, 103))
    _until(lambda: _dead(host) == [{103}, {103}])
    for each in host.losses:
        with pytest.raises(RankLostError):
            each.check()
    assert host.links.sent == [(LOST, 103)] and not host.heard


def test_the_leader_of_another_host(host_of):
    """Its connection is closed: of its host no more is known."""
    host, _ = host_of(0)
    host.links.say(News(ENDED, 1))
    _until(lambda: _dead(host) == [{102}, {102}])


def test_a_host_that_cannot_be_reached(host_of):
    """All of its ranks are lost, for those that can reach the first host; the others end the job on their side."""
    host, _ = host_of(0)
    host.links.say(News(UNREACHABLE, 1))
    _until(lambda: _dead(host) == [{102, 103}, {102, 103}])
    other, _ = host_of(1)
    other.links.say(News(UNREACHABLE, 0))
    _until(lambda: other.heard)
    assert other.heard == [News(UNREACHABLE, 0)] and _dead(other) == [set(), set()]


def test_before_anybody_goes_on_it_ends_the_job(host_of):
    """Such as in --prepare."""
    host, _ = host_of(0)
    for each in host.losses:
        each.is_awaited = False
    host.links.say(News(ENDED, 1), News(UNREACHABLE, 1))
    _until(lambda: len(host.heard) == 2)
    assert _dead(host) == [set(), set()]


def test_a_death_on_this_host_is_told_to_others(host_of, sleeping):
    """By the leader, whoever dies."""
    host, _ = host_of(0)
    sleeping[1].kill()
    _until(lambda: 101 in host.losses[0].dead)
    _until(lambda: host.links.sent == [(LOST, 101)])


def test_a_host_that_is_lost_while_the_others_meet(host_of):
    """The connections of before are read until there are new ones, and so are the words by ranks that wait for no bell."""
    host, everybody = host_of(0)
    host.links.say(News(LOST, 1, 103))
    _until(lambda: _dead(host) == [{103}, {103}])
    for each in host.losses:
        each.begin_anew()
        each.check()
    host.links.say(News(UNREACHABLE, 1))
    _until(lambda: _dead(host) == [{102, 103}, {102, 103}])
    assert all(each.explain(ValueError()) for each in host.losses)
    assert host.losses[1].left_of(everybody) == everybody[:2]


def test_mpi_is_told_where_nobody_has_gone_on(host_of, monkeypatch):
    """A moment later: its launcher is quicker, if it says so at all."""
    told: list[Name] = []
    monkeypatch.setattr(pmix, "tell_own_mpi", told.append)
    host, everybody = host_of(0)
    host.links.say(News(UNREACHABLE, 1))
    _until(lambda: len(told) == 4)  # two ranks, of two
    host.losses[0].begin_anew()
    host.losses[0].watch(everybody[:2])
    time.sleep(0.5)
    assert len(told) == 4


def test_numbers_are_those_of_one_process():
    """And its process number means it on one host alone."""
    one, other = members.own(), members.own()
    assert one.number != other.number and one.number > 0
    assert (one.host, one.process_id) == (other.host, os.getpid())
    assert pmix.own_name({"PMIX_NAMESPACE": "job", "PMIX_RANK": "3"}) == Name("job", 3)
    assert pmix.own_name({}) == Name("", -1)


def test_without_pmix_nothing_is_told():
    """This process has no MPI, or none that has joined a launcher."""
    pmix.tell_own_mpi(Name("", -1))
    pmix.tell_own_mpi(Name("job", 0))


def test_a_launcher_ends_behind_its_ranks(sleeping):
    """Not before: they may still have to write what they found."""
    launcher, rank = sleeping[:2]
    with _ending(launcher, f"{rank.pid},{1 << 30}") as ending:
        time.sleep(0.7)
        assert launcher.poll() is None and ending.poll() is None
        rank.kill()
        rank.wait()
        assert launcher.wait(10) < 0


def _ending(launcher, behind, links=()):
    """The program that ends it."""
    numbers = [link.fileno() for link in links]
    words = [launchers.__file__, str(launcher.pid), "0.1", behind, ",".join(map(str, numbers))]
    return subprocess.Popen([sys.executable, "-I", "-S", *words], pass_fds=numbers)


def test_a_launcher_ends_if_a_host_is_lost(sleeping):
    """By the error of one connection of several; what they say otherwise does not matter."""
    launcher, rank = sleeping[:2]
    mine, other = socket.socketpair()
    with mine, other, socket.socket() as broken:  # not connected: to read from it is an error
        mine.setblocking(False)
        other.send(b"a word")
        with _ending(launcher, str(rank.pid), [mine, broken]) as ending:
            time.sleep(0.5)
            assert launcher.poll() is None and ending.poll() is None
            rank.kill()
            rank.wait()
            assert launcher.wait(10) < 0


def test_a_launcher_whose_hosts_are_all_there_ends_by_itself(sleeping):
    """Their connections are closed when their launchers have ended."""
    launcher = sleeping[0]
    mine, other = socket.socketpair()
    with mine:
        mine.setblocking(False)
        with _ending(launcher, "", [mine]) as ending:
            time.sleep(0.5)
            assert ending.poll() is None
            other.close()
            assert ending.wait(10) == 0
    assert launcher.poll() is None
    mine, other = socket.socketpair()
    with mine, other, _ending(launcher, "", [mine]) as ending:
        launcher.kill()
        assert ending.wait(10) == 0


def test_which_launchers_outwait_lost_hosts():
    """By an option, of which the last counts, or a variable."""
    line = ["mpirun", "--prtemca", "oob_tcp_keepalive_time"]
    assert launchers.outwaits_lost_hosts([*line, "0"], {})
    assert launchers.outwaits_lost_hosts([*line, "-1"], {})
    assert not launchers.outwaits_lost_hosts([*line, "300"], {})
    assert not launchers.outwaits_lost_hosts(["mpirun"], {})
    assert launchers.outwaits_lost_hosts(["mpirun"], {"PRTE_MCA_oob_tcp_keepalive_time": "0"})
    assert processes.words_of(os.getpid())[0] and processes.words_of(None) == []
