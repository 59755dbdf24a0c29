"""``auto``: for which buckets a codec pays, by the wire's alpha and beta and the codec's own speed.

    as it is      2 alpha + beta 2 (H-1)/H N                            N bytes of a bucket, H hosts, L lanes
    compressed    2 alpha + beta B(N) + (1 + 1/H) N / L / encode + 2 N / L / decode
                                          1                        H              of all-gathered payloads

B(N) are the bytes that a host sends by the formulas of ``exchange.py``. alpha and beta are those that ``tune`` has fitted for
this kind of job; without its table they are measured, by messages between all lanes at once. Encode and decode are measured on
rank 0. Rank 0 decides for all ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from lepton_mpi.collectives.choosing.tuning import table_of
from lepton_mpi.collectives.compressing.codec import Codec
from lepton_mpi.collectives.compressing.exchange import is_all_gathered, payload_memory
from lepton_mpi.collectives.group import Group

_SAMPLE_ELEMENTS, _LONG_BYTES, _TRIES = 64 << 10, 128 << 10, 5


@dataclass(frozen=True)
class Speeds:
    """Seconds of a message, of a byte that a host sends, and of a byte encoded and decoded; where the first two come from."""

    alpha: float
    beta: float
    encode: float
    decode: float
    origin: str

    def __str__(self) -> str:
        wire = f"{8e-9 / self.beta:.3g} Gbit/s and {self.alpha * 1e6:.3g} us between hosts {self.origin}"
        both = 1e-9 / (self.encode + self.decode)
        return f"{wire}, encode and decode {both:.3g} GB/s"


def speeds_of(group: Group, codec: Codec) -> Speeds:
    """Of this job, on more than one host. Collective over the group."""
    table = table_of(group)
    if table and table.fit and table.fit.beta > 0:
        alpha, beta, origin = table.fit.alpha_long, table.fit.beta, "by tune"
    else:
        alpha, beta = _measured_wire(group)
        origin = "as measured"
    encode, decode = _measured_codec(codec) if group.rank == 0 else (0.0, 0.0)
    return group.broadcast(Speeds(alpha, beta, encode, decode, origin))


def is_faster(speeds: Speeds, codec: Codec, count: int, hosts: int, lanes: int) -> bool:
    """Whether a bucket of ``count`` elements is summed sooner with the codec."""
    encodes, decodes = 1 + 1 / hosts, 2
    size, slice_ = count * codec.dtype.itemsize, -(-count // lanes)
    plain = speeds.beta * 2 * (hosts - 1) / hosts * size
    if codec.sums_payloads:
        sent = 2 * (hosts - 1) / hosts * codec.sent_bytes(slice_)
    elif is_all_gathered(codec, hosts):
        encodes, decodes = 1.0, hosts
        sent = (hosts - 1) * codec.sent_bytes(slice_)
    else:
        sent = 2 * (hosts - 1) * codec.sent_bytes(-(-slice_ // hosts))
    work = size / lanes * (encodes * speeds.encode + decodes * speeds.decode)
    return speeds.beta * lanes * sent + work < plain


def faster_buckets(
    group: Group, codec: Codec, buckets: Sequence[tuple[int, int]]
) -> tuple[list[bool], str]:
    """For each bucket whether the codec pays, and why, for people. Collective over the group, on more than one host."""
    speeds = speeds_of(group, codec)
    chosen = [
        is_faster(speeds, codec, stop - start, group.host_count, group.lane_count)
        for start, stop in buckets
    ]
    return chosen, f"{codec.name} for {sum(chosen)} of {len(chosen)} buckets: {speeds}"


def _measured_wire(group: Group) -> tuple[float, float]:
    """Seconds of a short message to the next host and from the one before, and of a byte of a host with all lanes at work."""
    found = np.zeros(2)
    if group.lane_comm is not None:
        comm, hosts = group.lane_comm, group.host_count
        ahead, behind = (comm.rank + 1) % hosts, (comm.rank - 1) % hosts
        for number, size in enumerate((8, _LONG_BYTES)):
            out, back = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
            times = []
            for _ in range(_TRIES):
                comm.Barrier()
                began = perf_counter()
                comm.Sendrecv(out, ahead, recvbuf=back, source=behind)
                times.append(perf_counter() - began)
            found[number] = sorted(times)[_TRIES // 2]
    group.host_barrier()
    short, long = group.broadcast(found.tolist())
    return short, max(long - short, 1e-12) / (_LONG_BYTES * group.lane_count)


def _measured_codec(codec: Codec) -> tuple[float, float]:
    """Seconds of a byte, encoded and decoded, of vectors in a near cache."""
    x = np.random.default_rng(0).standard_normal(_SAMPLE_ELEMENTS).astype(codec.dtype)
    residual, payload = np.zeros_like(x), payload_memory(codec.sent_bytes(x.size))
    key = np.uint64(0)
    encode = _seconds(lambda: codec.encode(x, residual, payload, key))
    decode = _seconds(lambda: codec.decode(payload, residual, key, False))
    return encode / x.nbytes, decode / x.nbytes


def _seconds(call: Callable[[], None]) -> float:
    call()  # compiled, or loaded
    times = []
    for _ in range(_TRIES):
        began = perf_counter()
        call()
        times.append(perf_counter() - began)
    return min(times)
