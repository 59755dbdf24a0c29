"""Measures a link: rank 0 sends, the first rank of another host answers with its clock."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

from lepton_mpi.doctor.network import Link

if TYPE_CHECKING:
    from mpi4py import MPI

_ASK, _ANSWER, _STOP = 211, 212, 213
_CLOCK = struct.Struct("<d")
_EXCHANGES_MAX, _LATENCY_SECONDS = 200, 0.3
_BYTES_MIN, _BYTES_MAX = 64 << 10, 4 << 20
# A message that takes this long is large enough to tell the bandwidth.
_LONG_SECONDS = 0.1
_REPEATS = 3


def measure(comm: MPI.Comm, peer: int) -> Link:
    """What there is between this rank and ``peer``, which is in ``answer``."""
    trips: list[tuple[float, float]] = []
    end = time.monotonic() + _LATENCY_SECONDS
    while len(trips) < _EXCHANGES_MAX and (time.monotonic() < end or not trips):
        trips.append(_trip(comm, peer, bytearray(8)))
    trip, skew = min(trips)
    size, took = _BYTES_MIN, 0.0
    while True:
        message = bytearray(size)
        took = min(_trip(comm, peer, message)[0] for _ in range(_REPEATS if took < 0.02 else 1))
        if size >= _BYTES_MAX or took > _LONG_SECONDS:
            break
        size *= 4
    comm.Send(bytearray(8), peer, _STOP)
    return Link(trip / 2, size / max(took - trip / 2, 1e-9), skew)


def _trip(comm: MPI.Comm, peer: int, message: bytearray) -> tuple[float, float]:
    """Seconds there and back, and how far the peer's clock is ahead."""
    answer = bytearray(_CLOCK.size)
    began, clock = time.perf_counter(), time.time()
    comm.Send(message, peer, _ASK)
    comm.Recv(answer, peer, _ANSWER)
    took = time.perf_counter() - began
    return took, _CLOCK.unpack(answer)[0] - (clock + took / 2)


def answer(comm: MPI.Comm, peer: int) -> None:
    """The other side of ``measure``."""
    from lepton_mpi.world.mpi import MPI

    message, status = bytearray(_BYTES_MAX), MPI.Status()
    while True:
        comm.Recv(message, peer, MPI.ANY_TAG, status)
        if status.Get_tag() == _STOP:
            return
        comm.Send(_CLOCK.pack(time.time()), peer, _ANSWER)
