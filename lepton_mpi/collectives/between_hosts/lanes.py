"""Between hosts: every lane completes its slice of the sum, by pairwise exchange in canonical order.

H hosts have each added up their own leaves, to one or a few whole nodes of the summation tree. Lane l, the
ranks of local_rank l, carries one slice of the vector, cut into H parts, of which host h owns part h:

    1. every host sends part d of its nodes to host d          (H-1)/H of the slice, times nodes
    2. the owner of a part finishes the tree over all nodes
    3. every owner sends its part of the sum to everybody      (H-1)/H of the slice

With one node a host, that is 2 (H-1)/H N bytes per host on the wire, the lower bound of any allreduce, and
n lanes share them. Parts are cut into segments: a segment of the sum leaves while the next are still
arriving, and all first sends are started at once, so that adding overlaps with sending.

``run`` does all of it; ``start_receiving``, ``start_sending`` and ``poll`` do the same without waiting, so that
several exchanges can be on their way at once. Then sums need a transport of their own, of the same lane: they are
sent when parts of the next exchange may already be under way.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lepton_mpi.chunks import chunk_bounds, segments
from lepton_mpi.collectives.combining import combination
from lepton_mpi.collectives.messages.plan import Request, Transport
from lepton_mpi.collectives.summation_tree import additions

# Below the size up to which Open MPI sends over TCP without asking the receiver first (64 KiB with its
# header). The answer would have to queue behind megabytes on their way in the same connection.
SEGMENT_BYTES = 60 << 10


class Lane(Protocol):
    """The sum of one slice over hosts, without waiting. Each call of a round is collective over the lane.

    Attributes
    ----------
    has_left, is_summed, has_sent : bool
        Whether ``poll`` has seen all leave that this host has to add to the sum; has finished this host's part of the sum; has
        seen that leave.
    """

    @property
    def has_left(self) -> bool: ...

    @property
    def is_summed(self) -> bool: ...

    @property
    def has_sent(self) -> bool: ...

    def start_receiving(self) -> None:
        """Begin a round: take what the other hosts send from now on."""

    def start_sending(self) -> None:
        """What this host has to add is complete: send it. After ``start_receiving``, before ``poll``."""

    def poll(self, sends_sums: bool = True) -> bool:
        """Go on as far as possible without waiting; whether the round is complete.

        Without ``sends_sums`` sums are not sent yet, which a later call does.
        """


class LaneExchange:
    """Complete the sum of one slice. Collective over the lane.

    Parameters
    ----------
    transport : Transport
        Between the hosts; ``transport.rank`` is the host's index.
    rows : list of arrays, shape (count,)
        This host's nodes, in ascending order; none if it holds no leaf. Used up by ``run``.
    result : array, shape (count,)
        Receives the sum; may be ``rows[0]``.
    node_starts : list of lists of int
        First leaf of every node, per host; what ``rows`` is for this host.
    start, stop : int
        The slice: elements [start, stop) of the rows.
    operation : {"sum", "max", "min"}
    segment_bytes : int
        Upper bound on one message.
    sum_transport : Transport, optional
        For the sums; by default that of the parts.
    """

    def __init__(
        self,
        transport: Transport,
        rows: Sequence[np.ndarray],
        result: np.ndarray,
        node_starts: Sequence[Sequence[int]],
        start: int,
        stop: int,
        operation: str = "sum",
        segment_bytes: int = SEGMENT_BYTES,
        sum_transport: Transport | None = None,
    ) -> None:
        sum_transport = sum_transport or transport
        me, hosts = transport.rank, transport.world_size
        others = [(me + shift) % hosts for shift in range(1, hosts)]
        bounds = [start + bound for bound in chunk_bounds(stop - start, hosts)]
        elements = max(1, segment_bytes // result.itemsize)
        cuts = [segments(bounds[host], bounds[host + 1], elements) for host in range(hosts)]
        origin, length = bounds[me], bounds[me + 1] - bounds[me]
        arrived = {
            host: np.empty((len(node_starts[host]), length), result.dtype) for host in others
        }

        def arriving(host: int, first: int, last: int) -> list[np.ndarray]:
            return [row[first - origin : last - origin] for row in arrived[host]]

        self._rounds: list[_Round] = []
        for number in range(max(map(len, cuts))):
            round_ = _Round()
            for host in others:
                if number < len(cuts[host]):
                    piece = slice(*cuts[host][number])
                    round_.partial_sends += [
                        transport.send_request(row[piece], host) for row in rows
                    ]
                    round_.sum_receives.append(sum_transport.receive_request(result[piece], host))
            if number < len(cuts[me]):
                first, last = cuts[me][number]
                sources = {host: arriving(host, first, last) for host in others}
                sources[me] = [row[first:last] for row in rows]
                for host in others:
                    round_.partial_receives += [
                        transport.receive_request(part, host) for part in sources[host]
                    ]
                operands = [part for host in range(hosts) for part in sources[host]]
                leaves = [leaf for starts in node_starts for leaf in starts]
                round_.fold = _Fold(leaves, operands, result[first:last], operation)
                round_.sum_sends = [
                    sum_transport.send_request(result[first:last], host) for host in others
                ]
            self._rounds.append(round_)
        # How many rounds ``poll`` has seen: summed, sent to their owners; begun to be sent as sums, sent; complete.
        self._summed = self._left = self._begun = self._sent = self._complete = 0

    def run(self) -> None:
        """Exchange once."""
        self.start_receiving()
        self.start_sending()
        for round_ in self._rounds:
            _wait(round_.partial_receives)
            if round_.fold:
                round_.fold.run()
            _start(round_.sum_sends)
            # The sum arrives where a node was: that must have left first.
            _wait(round_.partial_sends)
            _start(round_.sum_receives)
        for round_ in self._rounds:
            _wait(round_.sum_receives)
            _wait(round_.sum_sends)

    def start_receiving(self) -> None:
        """Take what the other hosts send from now on."""
        for round_ in self._rounds:
            _start(round_.partial_receives)

    def start_sending(self) -> None:
        """This host's nodes are complete: send them. After ``start_receiving``, before ``poll``."""
        self._summed = self._left = self._begun = self._sent = self._complete = 0
        for round_ in self._rounds:
            _start(round_.partial_sends)

    @property
    def has_left(self) -> bool:
        """Whether ``poll`` has seen all of this host's nodes leave."""
        return self._left == len(self._rounds)

    @property
    def is_summed(self) -> bool:
        """Whether ``poll`` has finished this host's part of the sum."""
        return self._summed == len(self._rounds)

    @property
    def has_sent(self) -> bool:
        """Whether ``poll`` has seen all of this host's part of the sum leave."""
        return self._sent == len(self._rounds)

    def poll(self, sends_sums: bool = True) -> bool:
        """Go on as far as possible without waiting; whether the exchange is complete.

        Without ``sends_sums`` sums are not sent yet, which a later call does.
        """
        rounds = self._rounds
        while self._summed < len(rounds) and _are_complete(rounds[self._summed].partial_receives):
            if rounds[self._summed].fold:
                rounds[self._summed].fold.run()
            self._summed += 1
        # The sum arrives where a node was: that must have left first.
        while self._left < len(rounds) and _are_complete(rounds[self._left].partial_sends):
            _start(rounds[self._left].sum_receives)
            self._left += 1
        if not sends_sums:
            return False
        while self._begun < self._summed:
            _start(rounds[self._begun].sum_sends)
            self._begun += 1
        while self._sent < self._begun and _are_complete(rounds[self._sent].sum_sends):
            self._sent += 1
        while self._complete < self._left and _are_complete(rounds[self._complete].sum_receives):
            self._complete += 1
        return min(self._sent, self._complete) == len(rounds)


class _Round:
    """Segment number j of every part, on its way out, in, and out again."""

    def __init__(self) -> None:
        self.partial_sends: list[Request] = []
        self.partial_receives: list[Request] = []
        self.sum_sends: list[Request] = []
        self.sum_receives: list[Request] = []
        self.fold: _Fold | None = None


class _Fold:
    """The additions of one segment, in the memory of its operands; the last one goes to ``out``."""

    def __init__(
        self, leaves: list[int], operands: list[np.ndarray], out: np.ndarray, operation: str
    ) -> None:
        held = dict(zip(leaves, operands, strict=True))
        pairs = additions(leaves)
        self._out = out
        targets = [*(held[left] for left, _ in pairs[:-1]), out]
        self._calls = [
            combination(operation, held[left], held[right], target)
            for (left, right), target in zip(pairs, targets, strict=False)
        ]
        # With a single node in all, there is nothing to add.
        self._only = operands[0] if not pairs and operands[0] is not out else None

    def run(self) -> None:
        for call in self._calls:
            call()
        if self._only is not None:
            self._out[:] = self._only


def _start(requests: list[Request]) -> None:
    for request in requests:
        request.Start()


def _are_complete(requests: list[Request]) -> bool:
    return all(
        [request.Test() for request in requests]
    )  # each of them: a test is what makes MPI go on


def _wait(requests: list[Request]) -> None:
    for request in requests:
        request.Wait()
