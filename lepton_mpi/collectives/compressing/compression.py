"""A codec over a group of ranks on several hosts: its lanes, the residuals, and how they go into a checkpoint and out of it.

Within a host vectors are summed as they are: memory is faster than any codec. Residuals are those of a host, in memory that
its ranks share; the rank of a lane has its slice of them. Every sum that a lane owner encodes (see ``exchange.py``) has a residual,
too, of which an element is with one host.

    saved                         restored on as many hosts      restored on others
    residual.0 … residual.H-1     as they were, bit for bit      their sum, divided evenly
    residual.owner                as it was                      with whoever owns the element now; of 2 hosts, which have
                                                                 no such residual, divided evenly
    powersgd.q                    as it was                      as it was

So what was left out is added to later vectors, whoever has it.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from lepton_mpi.chunks import chunk_bounds
from lepton_mpi.collectives.between_hosts.lanes import Lane
from lepton_mpi.collectives.compressing.choosing import faster_buckets
from lepton_mpi.collectives.compressing.codec import Codec
from lepton_mpi.collectives.compressing.exchange import (
    OWN,
    AllGatherLane,
    Counted,
    PayloadLane,
    Slice,
    is_all_gathered,
)
from lepton_mpi.collectives.compressing.low_rank_lane import LowRankLane
from lepton_mpi.collectives.compressing.powersgd import PowerSgd
from lepton_mpi.collectives.compressing.vector_lanes import (
    PlainLane,
    SummedLane,
    WarmUpLane,
    WithExact,
)
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.messages.mpi import MpiTransport, reserve_tags
from lepton_mpi.collectives.messages.plan import Transport
from lepton_mpi.collectives.within_host.vectors import HostVectors
from lepton_mpi.kernels.counter_random import chain, key_of
from lepton_mpi.vectors import Layout

# The stream of a seed's random numbers that codecs draw from.
_STREAM = 0x636F6465
_OWNER, _WARM, _RESIDUAL = "residual.owner", "powersgd.q", "residual."
# Messages of a lane have so many tags: two exchanges, and what is exact; and those of a warm-up.
_TAGS, _WARM_UP_TAGS = 4, 2


class Compression:
    """One vector's, of a group on more than one host. Making one is collective over the group.

    Parameters
    ----------
    group : Group
    codec : Codec or PowerSgd
    layout : Layout
        Of the vector.
    seed : int
    exact : collection of str
        Parameters that are summed as they are.
    decides : bool
        Whether the codec, of vectors, is for those buckets alone for which it pays (``choosing.py``).
    after : int
        In rounds of ``step`` up to this one vectors are summed as they are, and there is no residual: the warm-up.

    Attributes
    ----------
    name : str
        Of the codec or, once ``slices`` has decided, for which buckets it is, and why.
    step : int
        What the random numbers of the next round follow from, beside the seed: to be set before it begins.
    """

    def __init__(
        self,
        group: Group,
        codec: Codec | PowerSgd,
        layout: Layout,
        seed: int = 0,
        exact: Sequence[str] = (),
        decides: bool = False,
        after: int = 0,
    ) -> None:
        self._after = after
        self.codec, self.step, self.name, self._decides = codec, 0, codec.name, decides
        # Slices that are summed as they are, by their start.
        self._plain: set[int] = set()
        self._group, self._layout, self._seed = group, layout, seed
        self._places = list(zip(layout.shapes.items(), layout.bounds, strict=True))
        self._exact_spans = [
            span
            for (name, shape), span in self._places
            if name in exact or (isinstance(codec, PowerSgd) and not codec.matrix(shape))
        ]
        self._exact_names = set(exact)
        count, dtype = layout.size, codec.dtype

        def vector(needed: bool) -> np.ndarray:
            return group.host_array((count,), dtype, "residuals") if needed else np.zeros(0, dtype)

        # Of a sum's code what is left out; a checkpoint of another number of hosts may have it where this one does not.
        self._may_have_owners = not isinstance(codec, PowerSgd) and not codec.is_sparse
        self._has_owners = self._may_have_owners and not is_all_gathered(codec, group.host_count)
        self._residual = vector(True)
        self._owner_residual = vector(self._has_owners)
        self._warm = vector(isinstance(codec, PowerSgd))
        self._collected: dict[str, np.ndarray] = {}
        self._transports: list[Counted] = []
        # Of the owner's residual, what this host has: all lanes.
        self._owned: list[tuple[int, int]] = []
        self._loads = [0] * group.lane_count

    @property
    def vector_count(self) -> int:
        """How many vectors of the whole length a host holds, without what is collected for a checkpoint."""
        return 1 + self._has_owners + isinstance(self.codec, PowerSgd)

    @property
    def sent_bytes(self) -> int:
        """What this rank has sent to other hosts so far."""
        return sum(transport.sent_bytes for transport in self._transports)

    # -- lanes -----------------------------------------------------------------------------------

    def buckets(self, buckets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """In place of ``buckets`` of the vector: the same, but for matrices of low rank of whole parameters."""
        if not isinstance(self.codec, PowerSgd):
            return list(buckets)
        longest = max((stop - start for start, stop in buckets), default=0)
        found: list[tuple[int, int]] = []
        for start, stop in reversed(self._layout.bounds):
            if found and found[-1][1] - start <= longest:
                found[-1] = start, found[-1][1]
            elif stop > start:
                found.append((start, stop))
        return found

    def slices(self, buckets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """This rank's slice of each: those of the lanes, but for matrices of low rank a whole bucket for one lane.

        Then a bucket goes to the lane that has the least so far. To be called once, before ``lane``. Collective over the group.
        """
        lanes, me = self._group.lane_count, self._group.local_rank
        pays = [True] * len(buckets)
        if self._decides and not isinstance(self.codec, PowerSgd):
            pays, reason = faster_buckets(self._group, self.codec, buckets)
            self.name = f"auto, {reason}"
        found = []
        for (start, stop), pay in zip(buckets, pays, strict=True):
            if isinstance(self.codec, PowerSgd):
                lane = self._loads.index(min(self._loads))
                self._loads[lane] += stop - start
                found.append((start, stop if lane == me else start))
                continue
            bounds = [start + bound for bound in chunk_bounds(stop - start, lanes)]
            found.append((bounds[me], bounds[me + 1]) if me < lanes else (start, start))
            if not pay:
                self._plain.add(found[-1][0])
            hosts, host = self._group.host_count, self._group.host_index
            for first, last in pairwise(bounds):
                parts = chunk_bounds(last - first, hosts)
                self._owned.append((first + parts[host], first + parts[host + 1]))
        return found

    def lane(self, vectors: HostVectors, start: int, stop: int) -> Lane | None:
        """The exchange of one of ``slices``; None on a rank of no lane. Collective over the group."""
        tags = _TAGS + _WARM_UP_TAGS * (self._after > 0)
        tag = reserve_tags(self._group, tags)
        if self._group.lane_comm is None:
            return None
        span = slice(start, stop)
        transports = [
            Counted(MpiTransport(self._group.lane_comm, tag + number)) for number in range(tags)
        ]
        self._transports += transports
        of = Slice(
            [row[span] for row in vectors.node_sums],
            vectors.result[span],
            self._residual[span],
            self._owner_residual[span],
            start,
            self.key,
            [] if start in self._plain else self._exact_in(start, stop),
        )
        return self.lane_of(of, transports)

    def lane_of(self, of: Slice, transports: Sequence[Transport]) -> Lane:
        """The exchange of ``of`` over 4 transports between the hosts, 6 with a warm-up. Collective over the lane."""
        if not self._after or of.start in self._plain:
            return self._coded_lane(of, transports)
        lane = self._coded_lane(of, transports[:_TAGS])
        return WarmUpLane(lane, of, lambda: self.step <= self._after, *transports[_TAGS:])

    def _coded_lane(self, of: Slice, transports: Sequence[Transport]) -> Lane:
        codec, start, stop = self.codec, of.start, of.start + of.result.size
        if isinstance(codec, PowerSgd):
            matrices = self._matrices_in(start, stop)
            warm = self._warm[start:stop]
            return LowRankLane(codec.rank, of, matrices, warm, transports)
        lane: Lane
        if start in self._plain:
            return PlainLane(of, *transports[:2])
        if codec.sums_payloads:
            lane = SummedLane(codec, of, *transports[:2])
        elif is_all_gathered(codec, self._group.host_count):
            lane = AllGatherLane(codec, of, transports[0])
        else:
            lane = PayloadLane(codec, of, *transports[:2])
        return WithExact(lane, of, *transports[2:]) if of.exact else lane

    def key(self, purpose: int, element: int) -> np.uint64:
        """What the random numbers of a payload follow from, see ``Slice``."""
        host = self._group.host_index + 1 if purpose == OWN else 0
        key = key_of(self._seed, _STREAM)
        for word in (self.step, host, purpose, element):
            key = chain(key, word)
        return key[0]

    def _exact_in(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Elements of a slice that are summed as they are, counted from its start."""
        spans = [(max(first, start), min(last, stop)) for first, last in self._exact_spans]
        return [(first - start, last - start) for first, last in spans if first < last]

    def _matrices_in(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Place in a slice, rows and columns of its matrices."""
        assert isinstance(self.codec, PowerSgd)
        found = []
        for (name, shape), (first, last) in self._places:
            matrix = self.codec.matrix(shape)
            if matrix and name not in self._exact_names and start <= first and last <= stop:
                found.append((first - start, *matrix))
        return found

    # -- state -----------------------------------------------------------------------------------

    def collect(self) -> None:
        """Have the residuals of all hosts in ``state``. Collective over the group, with no exchange on its way."""
        group, hosts = self._group, self._group.host_count
        if not self._collected:
            count = self._layout.size
            table = group.host_array((hosts + 1, count), self.codec.dtype, "residuals")
            self._collected = {f"{_RESIDUAL}{host}": table[host] for host in range(hosts)}
            self._collected |= {_OWNER: table[hosts]} if self._has_owners else {}
            self._collected |= {_WARM: self._warm} if self._warm.size else {}
        group.host_barrier()
        if group.local_rank == 0 and group.lane_comm is not None:
            everybody = np.empty((hosts, self._layout.size), self.codec.dtype)
            group.lane_comm.Allgather(self._residual, everybody)
            for host, residual in enumerate(everybody):
                self._collected[f"{_RESIDUAL}{host}"][:] = residual
            if self._has_owners:
                group.lane_comm.Allgather(self._own_part(self._owner_residual), everybody)
                # Of every element all but one are 0; NaN is of one, too.
                self._collected[_OWNER][:] = everybody.sum(axis=0)
        group.host_barrier()

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Flat vectors by name, as ``collect`` has left them; none before."""
        return self._collected

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up what ``state`` of any number of hosts was; none is zeros. One rank of each host calls it. Raises ValueError."""
        hosts, host = self._group.host_count, self._group.host_index
        residuals = residuals_of(state)
        if len(residuals) == hosts:
            self._residual[:] = residuals[host]
        else:
            self._residual[:] = sum_of(residuals, self._layout.size, self.codec.dtype) / hosts
        owner = state.get(_OWNER)
        if self._has_owners:
            self._owner_residual[:] = 0 if owner is None else self._own_part(owner)
        elif owner is not None and self._may_have_owners:
            self._residual += owner / self._residual.dtype.type(hosts)
        elif owner is not None:
            raise ValueError(f"expected no {_OWNER} with {self.codec.name}, got one")
        if self._warm.size:
            self._warm[:] = state.get(_WARM, 0)

    def _own_part(self, vector: np.ndarray) -> np.ndarray:
        """A copy, with 0 where another host is the owner of the sum."""
        found = np.zeros_like(vector)
        for start, stop in self._owned:
            found[start:stop] = vector[start:stop]
        return found


def is_of_codec(name: str) -> bool:
    """Whether a vector of a checkpoint is one of ``Compression.state``."""
    return name.startswith(_RESIDUAL) or name == _WARM


def residuals_of(state: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Those of the hosts, in their order. Raises ValueError if one is missing."""
    names = [name for name in state if name.startswith(_RESIDUAL) and name != _OWNER]
    expected = [f"{_RESIDUAL}{host}" for host in range(len(names))]
    if sorted(names) != sorted(expected):
        raise ValueError(
            f"expected residuals {', '.join(expected)}, got {', '.join(sorted(names))}"
        )
    return [state[name] for name in expected]


def sum_of(residuals: Sequence[np.ndarray], count: int, dtype: np.dtype) -> np.ndarray:
    """Sum of vectors of ``count`` elements, in their order; zeros for none."""
    total = np.zeros(count, dtype)
    for residual in residuals:
        total += residual
    return total


def undelivered(state: Mapping[str, np.ndarray], count: int, dtype: np.dtype) -> np.ndarray:
    """All that hosts had left out of what they sent, shape (count,): to be added where nothing is compressed any more."""
    owner = [state[_OWNER]] if _OWNER in state else []
    return sum_of([*residuals_of(state), *owner], count, dtype)
