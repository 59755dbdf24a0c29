"""TCP connections by which hosts learn of each other's end, beside MPI, which may wait for ever for a host that is gone.

A star: the leader of every host (its local rank 0) has one connection to the leader of host 0, which passes on what it hears.

    FAILED     the sender's host has said why the job ends: end it here, too, and say nothing
    LEFT       the leader has closed its world; what happens to its host from now on does not matter
    closed     without either: the leader's process has ended
    an error   Linux has heard nothing from the other host for ``limit_seconds``: the host or the network is gone

Words of 9 bytes; the others are of ``stopping.py`` and ``loss_news.py``. Linux itself asks an idle connection for a sign of life (TCP keep-alive), and answers for a process that
is stopped, or holds the interpreter lock for minutes: a stuck rank is the watchdog's business, not that of these connections.
So they cost a step nothing. The watchdog's thread of each leader waits for them together with the ends of its neighbours.

Hosts that cannot be connected (a firewall) are not watched; ``unwatched`` has their names.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import struct
import weakref
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lepton_mpi.world.rank_group import RankGroup

_TOKEN_BYTES = 16
_GREETING = struct.Struct(f"{_TOKEN_BYTES}sI")

# Between the hosts of a cluster a connection takes less than a millisecond.
_MEET_SECONDS, _ADDRESS_SECONDS = 5.0, 1.0
_SIOCGIFADDR = 0x8915
# Of the time limit, the first part that an idle connection may be idle, and probes in the rest.
_IDLE_PART, _PROBES = 0.5, 4

# What one leader sends another, and what a connection itself says.
FAILED, LEFT, WANTED, PROPOSED, YES, NO, DECIDED, FORGOTTEN, LOST = range(9)
ENDED, UNREACHABLE = 9, 10
_WORD = struct.Struct("<Bq")


class News(NamedTuple):
    """What a connection says: one of the words above, the index of the host at its other end, and a number."""

    kind: int
    host: int
    value: int = 0


class _Meeting(NamedTuple):
    """Where the leader of host 0 waits for the others, and what they say to each other there."""

    addresses: list[str]
    port: int
    question: bytes
    answer: bytes


class HostLinks:
    """Connections of this rank; none unless it is a leader of one of several hosts. Collective over the job to make.

    Parameters
    ----------
    group : RankGroup
        All ranks.
    limit_seconds : float
        After this long without a sign of life a host counts as gone.

    Attributes
    ----------
    names : list of str
        Of the hosts.
    unwatched : list of str
        Those without a connection, the same on all ranks.
    """

    def __init__(self, group: RankGroup, limit_seconds: float) -> None:
        self.limit_seconds = limit_seconds
        self._links: dict[int, tuple[socket.socket, int]] = {}
        self._parts: dict[int, bytes] = {}
        leaders = [ranks[0] for ranks in group.ranks_of_hosts]
        names = group.comm.allgather(socket.gethostname())
        self.names: list[str] = [names[leader] for leader in leaders]
        self.unwatched: list[str] = []
        if len(leaders) > 1:
            found = self._meet(group, leaders)
            self.unwatched = [
                name for host, name in enumerate(self.names[1:], 1) if host not in found
            ]
            _forget_in_children(self)

    @property
    def unwatched_text(self) -> str:
        """What ``unwatched`` means, for people."""
        return f"no TCP connection to {', '.join(self.unwatched)}: if a host is lost, only --timeout ends the job"

    def _meet(self, group: RankGroup, leaders: list[int]) -> list[int]:
        """Connect the leaders; returns the hosts that have a connection."""
        root = leaders[0]
        listener = _listener() if group.rank == root else None
        meeting: _Meeting | None = group.comm.bcast(listener and _meeting(listener), root=root)
        if listener and meeting:
            with listener:
                self._accept(listener, meeting, len(leaders) - 1)
        elif meeting and group.local_rank == 0:
            self._connect(meeting, group.host_index)
        found: list[int] = group.comm.bcast([host for _, host in self._links.values()], root=root)
        if group.rank != root and group.host_index not in found:
            self._drop_all()
        for link, _ in self._links.values():
            _watch(link, self.limit_seconds)
        return found

    def descriptors(self) -> list[int]:
        """To poll for input; pass those that are ready to ``read``."""
        return list(self._links)

    def read(self, descriptor: int) -> list[News]:
        """What a connection says. One that will say nothing more is closed, and must not be polled again."""
        link, host = self._links[descriptor]
        try:
            said = link.recv(4096)
        except BlockingIOError:
            return []
        except ConnectionError:  # its process was killed with something unread
            said = b""
        except OSError:
            self._drop(descriptor)
            return [News(UNREACHABLE, host)]
        if not said:
            self._drop(descriptor)
            return [News(ENDED, host)]
        said = self._parts.pop(descriptor, b"") + said
        whole = len(said) // _WORD.size * _WORD.size
        self._parts[descriptor] = said[whole:]
        news = [News(kind, host, value) for kind, value in _WORD.iter_unpack(said[:whole])]
        if any(each.kind == LEFT for each in news):
            self._drop(descriptor)
        return news

    def tell_failure(self) -> None:
        """Have the other hosts end the job, too, without a word."""
        self.send(FAILED)

    def close(self) -> None:
        """Leave: the end of this process is no failure any more. Does nothing the second time."""
        self.send(LEFT)
        self._drop_all()

    def send(self, kind: int, value: int = 0) -> None:
        """To all hosts that this rank is connected to."""
        for link, _ in list(self._links.values()):
            with suppress(OSError):  # it is told by its own connection that this host has gone
                link.send(_WORD.pack(kind, value))

    def _drop(self, descriptor: int) -> None:
        link, _ = self._links.pop(descriptor)
        link.close()

    def _drop_all(self) -> None:
        for descriptor in list(self._links):
            self._drop(descriptor)

    def _accept(self, listener: socket.socket, meeting: _Meeting, count: int) -> None:
        """On the leader of host 0: take connections until there are ``count``, or the time is over."""
        end = monotonic() + _MEET_SECONDS
        while len(self._links) < count and (left := end - monotonic()) > 0:
            listener.settimeout(left)
            with suppress(OSError):
                link, _ = listener.accept()
                link.settimeout(_ADDRESS_SECONDS)
                question, host = _GREETING.unpack(_receive(link, _GREETING.size))
                if question == meeting.question:
                    link.sendall(meeting.answer)
                    self._links[link.fileno()] = link, host
                else:
                    link.close()

    def _connect(self, meeting: _Meeting, host: int) -> None:
        """On another leader: the first address that knows the answer is that of host 0."""
        end = monotonic() + _MEET_SECONDS
        for address in meeting.addresses:
            left = min(_ADDRESS_SECONDS, end - monotonic())
            if left <= 0:
                return
            with suppress(OSError):
                link = socket.create_connection((address, meeting.port), left)
                link.sendall(_GREETING.pack(meeting.question, host))
                if _receive(link, _TOKEN_BYTES) == meeting.answer:
                    self._links[link.fileno()] = link, 0
                    return
                link.close()


def _listener() -> socket.socket | None:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", 0))
    except OSError:
        return None


def _meeting(listener: socket.socket) -> _Meeting:
    words = secrets.token_bytes(_TOKEN_BYTES), secrets.token_bytes(_TOKEN_BYTES)
    return _Meeting(_addresses(listener), listener.getsockname()[1], *words)


def _addresses(listener: socket.socket) -> list[str]:
    """This host's: IPv4 of its interfaces, and what its name stands for if there is none."""
    found = []
    for _, name in socket.if_nameindex():
        request = struct.pack("256s", name.encode()[:15])
        with suppress(OSError):  # an interface without an address
            reply = fcntl.ioctl(listener.fileno(), _SIOCGIFADDR, request)
            found.append(socket.inet_ntoa(reply[20:24]))
    found = [address for address in found if not address.startswith("127.")]
    if not found:
        with suppress(OSError):
            found = [str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)]
    return found


def _receive(link: socket.socket, byte_count: int) -> bytes:
    """So many bytes. Raises OSError where fewer come."""
    received = link.recv(byte_count, socket.MSG_WAITALL)
    if len(received) != byte_count:
        link.close()
        raise ConnectionError
    return received


def _watch(link: socket.socket, limit_seconds: float) -> None:
    """Have Linux look after a connection, so that it fails ``limit_seconds`` after the last sign of life."""
    idle = max(1, int(_IDLE_PART * limit_seconds))
    interval = max(1, int((limit_seconds - idle) / _PROBES))
    link.setblocking(False)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_NODELAY, 1),
        (socket.TCP_KEEPIDLE, min(idle, 32767)),
        (socket.TCP_KEEPINTVL, min(interval, 32767)),
        (socket.TCP_KEEPCNT, _PROBES),
        (socket.TCP_USER_TIMEOUT, int(1000 * min(limit_seconds, 1e6))),
    ):
        link.setsockopt(socket.IPPROTO_TCP, option, value)


def _forget_in_children(links: HostLinks) -> None:
    """A child that a rank forks holds no connections: else that rank's end would not close them."""
    known = weakref.ref(links)

    def forget() -> None:
        if (held := known()) is not None:
            held._drop_all()

    os.register_at_fork(after_in_child=forget)


def lost_host(group: RankGroup, links: HostLinks, news: News) -> str:
    """What the job ends with where a host cannot be reached, or its connection was closed."""
    ranks, name = group.ranks_of_hosts[news.host], links.names[news.host]
    if news.kind == UNREACHABLE:
        return (
            f"lepton_mpi: host {name} ({_ranks_text(ranks)} of {group.size}) cannot be reached from "
            f"{links.names[group.host_index]} for {links.limit_seconds:g} s (--peer-timeout): the host or its network is gone"
        )
    return (
        f"lepton_mpi: rank {ranks[0]} of {group.size} died, or host {name} ({_ranks_text(ranks)}): "
        "its connection was closed"
    )


def _ranks_text(ranks: list[int]) -> str:
    """Such as ``ranks 2, 3``; of many, the first and the last."""
    if len(ranks) > 8:
        return f"{len(ranks)} ranks, {ranks[0]} to {ranks[-1]}"
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
