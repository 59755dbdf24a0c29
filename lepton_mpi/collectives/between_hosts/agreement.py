"""The ranks of several hosts agree on the arguments of a call: the first rank of each host speaks for it.

    inside a host        all ranks compare; each knows the error, if there is one
    between first ranks  what the host was told, or its error: one message to each other host
    inside a host        the first rank leaves the verdict in shared memory; all ranks meet and read it

The verdict is the error of the first host that has one; or else the first host that was told other things than host 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lepton_mpi.collectives.calls import Fingerprint, difference_error, length_error
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.messages.mail import MPI_LOCK, wait_for
from lepton_mpi.collectives.within_host.staging import StagedCollectives
from lepton_mpi.errors import ConfigurationError, LeptonError, RankError

if TYPE_CHECKING:
    from mpi4py import MPI

_TAG, _LENGTHS_TAG = 13, 14
_KINDS = (ConfigurationError, RankError)
# Words of a message: number of the kind of error + 1, bytes of its text, the fingerprint; then the text.
_HEAD, _BYTES = 8, 2048


class Agreement:
    """Making one is collective over the group, and so are its methods.

    Parameters
    ----------
    group : Group
    comm : MPI.Comm
        All ranks; messages with two tags of this module.
    host : StagedCollectives
        The ranks of this host.
    meet : callable
        Returns once all ranks of this host have called it, and lets messages go on.
    """

    def __init__(
        self, group: Group, comm: MPI.Comm, host: StagedCollectives, meet: Callable[[], None]
    ) -> None:
        self._comm, self._host, self._meet = comm, host, meet
        self._hosts, self._here = group.ranks_of_hosts, group.host_index
        self._is_first, self._rank, self._size = group.local_rank == 0, group.rank, group.size
        hosts = len(self._hosts)
        # What the first ranks have said, of even and odd calls.
        self._said = group.host_array((2, hosts, _BYTES), np.uint8)
        self._lengths = group.host_array((2, group.size, 2, group.size), np.int64)
        self._calls = 0

    def reach(self, meet_host: Callable[[], None], told: Fingerprint) -> None:
        """``meet_host`` compares inside this host, and raises what is wrong there. Raises the same error on all ranks."""
        self._calls += 1
        said = self._said[self._calls % 2]
        self._meet()
        self._host.number_next(self._calls)
        error: LeptonError | None = None
        try:
            meet_host()
        except LeptonError as raised:
            error = raised
        if self._is_first:
            said[self._here] = _encoded(error, told)
            self._exchange(list(said), _TAG)
        self._meet()
        decoded = [_decoded(message) for message in said]
        for found, _ in decoded:
            if found is not None:
                raise found.on_all_ranks() from error
        for ranks, (_, other) in zip(self._hosts, decoded, strict=True):
            if other != decoded[0][1]:
                first = self._hosts[0][0], decoded[0][1]
                raise difference_error(self._calls, *first, ranks[0], other)

    def compare_lengths(
        self, told: Fingerprint, sent: Sequence[int], expected: Sequence[int]
    ) -> None:
        """Raise the same error on all ranks unless each rank sends as many bytes as the others expect from it."""
        table = self._lengths[self._calls % 2]
        table[self._rank, 0], table[self._rank, 1] = sent, expected
        self._meet()
        if self._is_first:
            rows = [table[ranks].copy() for ranks in self._hosts]
            self._exchange(rows, _LENGTHS_TAG)
            for host, ranks in enumerate(self._hosts):
                if host != self._here:
                    table[ranks] = rows[host]
        self._meet()
        senders, receivers = np.nonzero(table[:, 0] != table[:, 1].T)
        if len(senders):
            sender, receiver = int(senders[0]), int(receivers[0])
            lengths = int(table[sender, 0, receiver]), int(table[receiver, 1, sender])
            raise length_error(self._calls, told, sender, lengths[0], receiver, lengths[1])

    def _exchange(self, rows: list[np.ndarray], tag: int) -> None:
        """Send this host's row to the first ranks of the others, and receive theirs."""
        others = [host for host in range(len(self._hosts)) if host != self._here]
        requests = []
        with MPI_LOCK:
            for host in others:
                requests.append(self._comm.Irecv(rows[host], self._hosts[host][0], tag))
            for host in others:
                requests.append(self._comm.Isend(rows[self._here], self._hosts[host][0], tag))
        wait_for(requests)


def _encoded(error: LeptonError | None, told: Fingerprint) -> np.ndarray:
    message = np.zeros(_BYTES, np.uint8)
    words = message[: 8 * _HEAD].view(np.int64)
    words[2 : 2 + len(told)] = told
    if error is not None:
        kind = RankError if isinstance(error, RankError) else ConfigurationError
        text = str(error).encode()[: _BYTES - 8 * _HEAD]
        words[0], words[1] = _KINDS.index(kind) + 1, len(text)
        message[8 * _HEAD : 8 * _HEAD + len(text)] = np.frombuffer(text, np.uint8)
    return message


def _decoded(message: np.ndarray) -> tuple[LeptonError | None, Fingerprint]:
    words = message[: 8 * _HEAD].view(np.int64).tolist()
    told = Fingerprint(*words[2 : 2 + len(Fingerprint._fields)])
    if not words[0]:
        return None, told
    text = message[8 * _HEAD : 8 * _HEAD + words[1]].tobytes().decode(errors="replace")
    return _KINDS[words[0] - 1](text), told
