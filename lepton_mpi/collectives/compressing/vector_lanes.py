"""Lanes in which vectors are summed: payloads that may be added, slices as they are, and what is exact.

    SummedLane    the payloads of all hosts, with one key, are summed and then decoded    an exchange of B(n) bytes
    PlainLane     the slice itself                                                        an exchange of the slice
    WithExact     a lane, and beside it elements of its slice as they are                 both
    WarmUpLane    a PlainLane in the first rounds, then another lane                      one or the other

A host sends 2 (H - 1) / H times the bytes that are exchanged, if H divides the elements. See ``exchange.py``.
They are summed by ``LaneExchange``; short ones between 2 hosts by ``PairExchange``: one message each way in place of two, as
many bytes, and half the latency. A message costs some 170 bytes of headers and acknowledgements, which are 3 % of the 6 KiB of powersgd's.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lepton_mpi.chunks import segments
from lepton_mpi.collectives.between_hosts.lanes import SEGMENT_BYTES, Lane, LaneExchange
from lepton_mpi.collectives.compressing.codec import Codec
from lepton_mpi.collectives.compressing.exchange import SUM, Slice, payload_memory
from lepton_mpi.collectives.messages.plan import Transport


class _OverExchange:
    """How far a lane is that is one exchange of a vector."""

    _exchange: Lane

    @property
    def has_left(self) -> bool:
        """As of ``LaneExchange``; so are the others."""
        return self._exchange.has_left

    @property
    def is_summed(self) -> bool:
        return self._exchange.is_summed

    @property
    def has_sent(self) -> bool:
        return self._exchange.has_sent


class SummedLane(_OverExchange):
    """See the module; the transports are those of ``LaneExchange``. Making one is collective over the lane."""

    def __init__(
        self, codec: Codec, of: Slice, transport: Transport, sum_transport: Transport
    ) -> None:
        self._codec, self._of = codec, of
        self._payload = payload_memory(codec.sent_bytes(of.result.size))
        values = self._payload.view(codec.dtype)
        self._exchange = payload_exchange(values, transport, sum_transport)
        self._key, self._is_decoded = np.uint64(0), True

    def start_receiving(self) -> None:
        """As of ``LaneExchange``."""
        self._is_decoded = False
        self._key = self._of.key(SUM, self._of.start)
        self._exchange.start_receiving()

    def start_sending(self) -> None:
        """As of ``LaneExchange``: choose, and send."""
        x = self._of.take()
        if x.size:
            self._codec.encode(x, self._of.residual, self._payload, self._key)
        self._exchange.start_sending()

    def poll(self, sends_sums: bool = True) -> bool:
        """As of ``LaneExchange``."""
        if self._is_decoded:
            return sends_sums
        if not self._exchange.poll(sends_sums):
            return False
        if self._of.result.size:
            self._codec.decode(self._payload, self._of.result, self._key, False)
        self._is_decoded = True
        return True


class PlainLane(_OverExchange):
    """A slice that is summed as it is, with whatever residuals a time with a codec has left. Making one is collective over the lane."""

    def __init__(self, of: Slice, transport: Transport, sum_transport: Transport) -> None:
        self._of, self._residuals = of, [of.residual, of.owner_residual]
        self._exchange = _lane_exchange(of.result, transport, sum_transport)

    def start_receiving(self) -> None:
        """As of ``LaneExchange``."""
        self._exchange.start_receiving()

    def start_sending(self) -> None:
        """As of ``LaneExchange``."""
        x = self._of.take()
        # Those of a checkpoint, in the first round.
        for residual in filter(np.size, self._residuals):
            x += residual
            residual[:] = 0
        self._residuals = []
        if not np.may_share_memory(x, self._of.result):
            self._of.result[:] = x
        self._exchange.start_sending()

    def poll(self, sends_sums: bool = True) -> bool:
        """As of ``LaneExchange``."""
        return self._exchange.poll(sends_sums)


class WarmUpLane:
    """A slice as it is while ``is_warming_up()``, asked when a round begins, and then by ``lane``.

    The transports are those of the slice as it is. Making one is collective over the lane.
    """

    def __init__(
        self,
        lane: Lane,
        of: Slice,
        is_warming_up: Callable[[], bool],
        transport: Transport,
        sum_transport: Transport,
    ) -> None:
        self._plain: Lane = PlainLane(replace(of, exact=()), transport, sum_transport)
        self._then, self._now, self._is_warming_up = lane, self._plain, is_warming_up

    @property
    def has_left(self) -> bool:
        """As of ``LaneExchange``; so are the others."""
        return self._now.has_left

    @property
    def is_summed(self) -> bool:
        return self._now.is_summed

    @property
    def has_sent(self) -> bool:
        return self._now.has_sent

    def start_receiving(self) -> None:
        """As of ``LaneExchange``."""
        self._now = self._plain if self._is_warming_up() else self._then
        self._now.start_receiving()

    def start_sending(self) -> None:
        """As of ``LaneExchange``."""
        self._now.start_sending()

    def poll(self, sends_sums: bool = True) -> bool:
        """As of ``LaneExchange``."""
        return self._now.poll(sends_sums)


class WithExact:
    """A lane, and beside it the sum of what is exact in its slice. Making one is collective over the lane."""

    def __init__(
        self, lane: Lane, of: Slice, transport: Transport, sum_transport: Transport
    ) -> None:
        self._lane, self._of = lane, of
        self._exchange = payload_exchange(of.exact_values, transport, sum_transport)
        self._lane_is_complete = self._is_complete = self._is_put = True

    @property
    def has_left(self) -> bool:
        """As of ``LaneExchange``; so are the others."""
        return self._lane.has_left and self._exchange.has_left

    @property
    def is_summed(self) -> bool:
        return self._lane.is_summed and self._exchange.is_summed

    @property
    def has_sent(self) -> bool:
        return self._lane.has_sent and self._exchange.has_sent

    def start_receiving(self) -> None:
        """As of ``LaneExchange``."""
        self._lane_is_complete = self._is_complete = self._is_put = False
        self._lane.start_receiving()
        self._exchange.start_receiving()

    def start_sending(self) -> None:
        """As of ``LaneExchange``."""
        self._lane.start_sending()
        self._exchange.start_sending()

    def poll(self, sends_sums: bool = True) -> bool:
        """As of ``LaneExchange``."""
        self._lane_is_complete = self._lane.poll(sends_sums) or self._lane_is_complete
        self._is_complete = self._exchange.poll(sends_sums) or self._is_complete
        if not (self._lane_is_complete and self._is_complete):
            return False
        if not self._is_put:
            self._of.put_exact()
            self._is_put = True
        return sends_sums


class PairExchange:
    """The sum of one vector of each of 2 hosts, in place: each sends all of it, and both add, in the order of the hosts.

    The bits are those of ``LaneExchange``. Making one is collective over the lane.
    """

    def __init__(self, values: np.ndarray, transport: Transport) -> None:
        other = 1 - transport.rank
        arrived = np.empty_like(values)
        self._operands = (values, arrived) if transport.rank == 0 else (arrived, values)
        self._values = values
        cuts = segments(0, values.size, max(1, SEGMENT_BYTES // values.itemsize))
        self._sends = [transport.send_request(values[a:b], other) for a, b in cuts]
        self._receives = [transport.receive_request(arrived[a:b], other) for a, b in cuts]
        self.has_left = self.is_summed = True

    @property
    def has_sent(self) -> bool:
        """There are no sums to send."""
        return self.is_summed

    def start_receiving(self) -> None:
        """As of ``LaneExchange``."""
        self.has_left = self.is_summed = False
        for request in self._receives:
            request.Start()

    def start_sending(self) -> None:
        """As of ``LaneExchange``."""
        for request in self._sends:
            request.Start()

    def poll(self, sends_sums: bool = True) -> bool:
        """As of ``LaneExchange``."""
        # Each of them: a test is what makes MPI go on.
        self.has_left = self.has_left or all([request.Test() for request in self._sends])
        has_come = self.is_summed or all([request.Test() for request in self._receives])
        if (
            has_come and self.has_left and not self.is_summed
        ):  # the sum takes the place of what is sent
            np.add(*self._operands, out=self._values)
            self.is_summed = True
        return sends_sums and self.is_summed


def payload_exchange(
    values: np.ndarray, transport: Transport, sum_transport: Transport
) -> LaneExchange | PairExchange:
    """A sum of one short vector a host, in place."""
    if transport.world_size == 2:
        return PairExchange(values, transport)
    return _lane_exchange(values, transport, sum_transport)


def _lane_exchange(
    values: np.ndarray, transport: Transport, sum_transport: Transport
) -> LaneExchange:
    starts = [[host] for host in range(transport.world_size)]
    return LaneExchange(
        *(transport, [values], values, starts, 0, values.size), sum_transport=sum_transport
    )
