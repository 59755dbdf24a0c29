"""Lanes of compressed vectors: what ``LaneExchange`` is for vectors as they are, of the same interface.

    PayloadLane     quantised      1. every host sends the payload of part d of its slice to host d
                                   2. the owner of a part decodes all of them in the order of the hosts, adds, and encodes the sum
                                   3. the owner sends that to everybody; all of them, the owner too, decode it
    AllGatherLane   sparse, or     1. every host sends its payload to all others
                    of 2 hosts     2. every host decodes all of them in the order of the hosts, and adds

Others are in ``vector_lanes.py``. All hosts end with the same bits. Bytes that host h sends in a round, for a slice of n
elements in H parts n_d, with B(n) bytes of a payload:

    PayloadLane     sum over d != h of B(n_d), and (H - 1) B(n_h)
    AllGatherLane   (H - 1) B(n)

Of 2 hosts both are B(n), but for rounding: the all-gather is one message in place of two, and codes nothing twice.
In step 2 of ``PayloadLane`` a second residual, the owner's, takes what its code of the sum does not hold ("server error", Tang et
al., "1-bit Adam", ICML 2021).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lepton_mpi.chunks import chunk_bounds, segments
from lepton_mpi.collectives.between_hosts.lanes import SEGMENT_BYTES, Lane
from lepton_mpi.collectives.compressing.codec import Codec
from lepton_mpi.collectives.messages.plan import Request, Transport
from lepton_mpi.kernels.counter_random import chain

# What a key is for: a host's own payload, or that of a sum.
OWN, SUM = 0, 1
_PAYLOAD_ALIGNMENT = 8


@dataclass
class Slice:
    """What a lane works on: one slice [start, stop) of a host's vector.

    Attributes
    ----------
    nodes : list of arrays, shape (stop - start,)
        What this host has to add to the sum, of which there may be none; used up.
    result : array, shape (stop - start,)
        Receives the sum; may be ``nodes[0]``.
    residual, owner_residual : arrays, shape (stop - start,)
        This host's, and of the sums that it encodes as an owner.
    start : int
    key : callable (int, int) -> uint64
        Of what a key is for and an element's number in the whole vector, in this step; the same on all hosts for SUM.
        Lanes call it in ``start_receiving``: later this rank may be in the next step.
    exact : list of (start, stop)
        Elements of the slice that are summed as they are: ``take`` moves them to ``exact_values``.
    """

    nodes: Sequence[np.ndarray]
    result: np.ndarray
    residual: np.ndarray
    owner_residual: np.ndarray
    start: int
    key: Callable[[int, int], np.uint64]
    exact: Sequence[tuple[int, int]] = ()
    exact_values: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Make room for what is exact."""
        count = sum(stop - start for start, stop in self.exact)
        self.exact_values = np.zeros(count, self.result.dtype)

    def take(self) -> np.ndarray:
        """This host's part of the sum, in memory that may be written over; 0 where it is exact."""
        if not self.nodes:
            self.result[:] = 0
            self.exact_values[:] = 0
            return self.result
        first, place = self.nodes[0], 0
        for other in self.nodes[1:]:
            np.add(first, other, out=first)
        for start, stop in self.exact:
            self.exact_values[place : place + stop - start] = first[start:stop]
            first[start:stop] = 0
            place += stop - start
        return first

    def put_exact(self) -> None:
        """Fill ``result`` where it is exact, from ``exact_values``, which are summed; there nothing is left out."""
        place = 0
        for start, stop in self.exact:
            self.residual[start:stop] = 0
            self.owner_residual[start:stop] = 0
            self.result[start:stop] = self.exact_values[place : place + stop - start]
            place += stop - start


class Counted:
    """A transport that counts the bytes that leave, and the messages. See ``messages.Transport``."""

    def __init__(self, transport: Transport) -> None:
        self._transport, self.sent_bytes, self.sent_messages = transport, 0, 0
        self.rank, self.world_size = transport.rank, transport.world_size

    def send_request(self, memory: np.ndarray, dest: int) -> Request:
        return _CountedSend(self, self._transport.send_request(memory, dest), memory.nbytes)

    def receive_request(self, memory: np.ndarray, source: int) -> Request:
        return self._transport.receive_request(memory, source)


class _CountedSend:
    def __init__(self, owner: Counted, request: Request, byte_count: int) -> None:
        self._owner, self._request, self._byte_count = owner, request, byte_count
        self.Wait, self.Test = request.Wait, request.Test

    def Start(self) -> None:
        self._owner.sent_bytes += self._byte_count
        self._owner.sent_messages += 1
        self._request.Start()


class PayloadLane:
    """See the module; ``transport`` for parts, ``sum_transport`` for sums, both between the hosts. Making one is collective over the lane."""

    def __init__(
        self, codec: Codec, of: Slice, transport: Transport, sum_transport: Transport
    ) -> None:
        self._codec, self._of = codec, of
        self._me, hosts = transport.rank, transport.world_size
        bounds = chunk_bounds(of.result.size, hosts)
        self._parts = [slice(bounds[host], bounds[host + 1]) for host in range(hosts)]
        lengths = [part.stop - part.start for part in self._parts]
        self._own = self._parts[self._me]
        sizes = [codec.sent_bytes(length) for length in lengths]
        others = [(self._me + shift) % hosts for shift in range(1, hosts)]
        mine = sizes[self._me]
        # By host: what goes to it, what has come from it, and the sums.
        self._out = [payload_memory(size) for size in sizes]
        self._in = [payload_memory(mine) for _ in range(hosts)]
        self._in[self._me] = self._out[self._me]
        self._sums = [payload_memory(size) for size in sizes]
        self._part_sends = _requests(transport.send_request, self._out, others)
        self._part_receives = _requests(transport.receive_request, self._in, others)
        sums_out = [self._sums[self._me]] * hosts
        self._sum_sends = _requests(sum_transport.send_request, sums_out, others)
        self._sum_receives = {
            host: _requests(sum_transport.receive_request, self._sums, [host]) for host in others
        }
        self.is_summed = self.has_left = self.has_sent = True
        self._has_begun, self._awaited = True, list[int]()
        self._keys = self._own_keys = [np.uint64(0)] * hosts

    def start_receiving(self) -> None:
        """As of ``LaneExchange``."""
        of = self._of
        self._keys = [of.key(SUM, of.start + part.start) for part in self._parts]
        self._own_keys = [of.key(OWN, of.start + part.start) for part in self._parts]
        self.is_summed = self.has_left = self.has_sent = self._has_begun = False
        self._awaited = list(self._sum_receives)
        _start(self._part_receives)
        for requests in self._sum_receives.values():
            _start(requests)

    def start_sending(self) -> None:
        """As of ``LaneExchange``: encode this host's nodes, and send."""
        x, residual = self._of.take(), self._of.residual
        for part, payload, key in zip(self._parts, self._out, self._own_keys, strict=True):
            if part.stop > part.start:
                self._codec.encode(x[part], residual[part], payload, key)
        _start(self._part_sends)

    def poll(self, sends_sums: bool = True) -> bool:
        """As of ``LaneExchange``."""
        if not self.is_summed and _are_complete(self._part_receives):
            self._sum()
            self.is_summed = True
        self.has_left = self.has_left or _are_complete(self._part_sends)
        if not sends_sums:
            return False
        if self.is_summed and not self._has_begun:
            _start(self._sum_sends)
            self._has_begun = True
        self.has_sent = self.has_sent or (self._has_begun and _are_complete(self._sum_sends))
        if self.is_summed:
            for host in [h for h in self._awaited if _are_complete(self._sum_receives[h])]:
                self._decode_sum(host)
                self._awaited.remove(host)
        return self.has_left and self.has_sent and not self._awaited

    def _sum(self) -> None:
        """Decode all payloads of the own part, add, encode the sum, and take what everybody will decode."""
        target, part = self._of.result[self._own], self._own
        if not target.size:
            return
        for host, payload in enumerate(self._in):
            self._codec.decode(payload, target, self._keys[self._me], host > 0)
        payload, residual = self._sums[self._me], self._of.owner_residual[part]
        self._codec.encode(target, residual, payload, self._keys[self._me])
        self._decode_sum(self._me)

    def _decode_sum(self, host: int) -> None:
        target = self._of.result[self._parts[host]]
        if target.size:
            self._codec.decode(self._sums[host], target, self._keys[host], False)


class AllGatherLane:
    """See the module; ``transport`` is between the hosts. Making one is collective over the lane."""

    def __init__(self, codec: Codec, of: Slice, transport: Transport) -> None:
        self._codec, self._of = codec, of
        self._me = me = transport.rank
        hosts = transport.world_size
        size = codec.sent_bytes(of.result.size)
        others = [(me + shift) % hosts for shift in range(1, hosts)]
        self._payloads = [payload_memory(size) for _ in range(hosts)]
        self._own = self._payloads[me]
        self._sends = _requests(transport.send_request, [self._own] * hosts, others)
        self._receives = _requests(transport.receive_request, self._payloads, others)
        self.is_summed = self.has_left = True
        self._keys = [np.uint64(0)] * hosts

    @property
    def has_sent(self) -> bool:
        """There are no sums to send."""
        return self.is_summed

    def start_receiving(self) -> None:
        """As of ``LaneExchange``."""
        self.is_summed = self.has_left = False
        key = self._of.key(SUM, self._of.start)
        # Errors of rounding by random numbers are independent between hosts.
        self._keys = [chain(np.array([key]), host)[0] for host in range(len(self._keys))]
        _start(self._receives)

    def start_sending(self) -> None:
        """As of ``LaneExchange``: encode this host's nodes, and send."""
        x = self._of.take()
        if x.size:
            self._codec.encode(x, self._of.residual, self._own, self._keys[self._me])
        _start(self._sends)

    def poll(self, sends_sums: bool = True) -> bool:
        """As of ``LaneExchange``."""
        if not self.is_summed and _are_complete(self._receives):
            if self._of.result.size:
                for host, payload in enumerate(self._payloads):
                    self._codec.decode(payload, self._of.result, self._keys[host], host > 0)
            self.is_summed = True
        self.has_left = self.has_left or _are_complete(self._sends)
        return sends_sums and self.is_summed and self.has_left


def is_all_gathered(codec: Codec, hosts: int) -> bool:
    """Whether ``AllGatherLane`` is for ``codec``, whose payloads are not summed, on so many hosts."""
    return codec.is_sparse or hosts == 2


def payload_memory(byte_count: int) -> np.ndarray:
    """uint8, shape (byte_count,), at an address that is a multiple of 8."""
    words = np.zeros(-(-byte_count // _PAYLOAD_ALIGNMENT), np.uint64)
    return words.view(np.uint8)[:byte_count]


def run(lanes: Sequence[Lane]) -> None:
    """Exchange once; a peer that has died ends this process (``watchdog.py``)."""
    for lane in lanes:
        lane.start_receiving()
    for lane in lanes:
        lane.start_sending()
    missing = list(lanes)
    while missing:
        missing = [lane for lane in missing if not lane.poll()]
        os.sched_yield()


def _requests(
    make: Callable[[np.ndarray, int], Request], payloads: Sequence[np.ndarray], hosts: Sequence[int]
) -> list[Request]:
    """Of the payload of each of ``hosts``, in messages that are sent without asking the receiver first."""
    return [
        make(payloads[host][start:stop], host)
        for host in hosts
        for start, stop in segments(0, payloads[host].size, SEGMENT_BYTES)
    ]


def _start(requests: Sequence[Request]) -> None:
    for request in requests:
        request.Start()


def _are_complete(requests: Sequence[Request]) -> bool:
    return all([request.Test() for request in requests])  # each: a test is what makes MPI go on
