"""What the ranks of a host share for the collectives of ``staging.py``, and the words of a rank's plan that never change."""

from __future__ import annotations

import numpy as np

from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.within_host import call_kernels, meeting_kernels
from lepton_mpi.collectives.within_host import staged_kernels as kernels
from lepton_mpi.collectives.within_host.cross_memory import can_read
from lepton_mpi.collectives.within_host.plan_words import YIELDS, control_block
from lepton_mpi.collectives.within_host.vectors import map_pages
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.kernels.intrinsics import LINE_BYTES

# Of a slot, and so of a part of a call; as in plans.py.
SLOT_BYTES = 512 << 10
# A block that has more parts than fill so many bytes is read from its sender's memory, where that is allowed.
DIRECT_BYTES = 128 << 10
_PAGE_BYTES = 4096

# Polls before a rank gives its core away, 1 or 2 us: where other programs have the cores, two ranks may share one, and the one that
# polls keeps the other from coming. With the 2000 of plans, a meeting of 2 ranks on a busy machine took 50 us in place of 10.
_POLLS = 64

# Longest blocks of a rank in a short call together; it shares RING_CALLS times as much for them.
SHORT_BYTES = 32 << 10

# Up to this size of all ranks' arrays together every rank folds all of them, which is one meeting in place of two; as in plans.py.
SMALL_BYTES, SMALL_CROWDED_BYTES = 8 << 10, 128 << 10


class StagingMemory:
    """Making one is collective over the host. Parameters are those of ``StagedCollectives``.

    Attributes
    ----------
    slot, short, small : int
        Bytes of a slot; of a block that is moved, and of an array that is combined, in a short call.
    plan : int64, one dimension
        Of ``staged_kernels.py``.
    ring : uint8, shape (RING_CALLS, ranks, bytes of an entry)
        Of ``call_kernels.py``.
    lengths : int64, shape (2, ranks, 2, ranks)
        Of two calls in turn, by rank: bytes to, and from, each rank.
    addresses : int64, shape (2, ranks, ranks)
        Of two calls in turn, by rank: where it has what each rank may read.
    can_read_all : bool
        Whether ranks can read each other's memory; the same on all.
    """

    def __init__(self, group: Group, staging_bytes: int) -> None:
        ranks, own = group.local_size, group.local_rank
        self.slot = _slot_bytes(ranks, staging_bytes)
        self.short = min(SHORT_BYTES, self.slot)
        is_crowded = ranks > group.cores
        small = SMALL_CROWDED_BYTES if is_crowded else SMALL_BYTES
        self.small = min(small // ranks, self.short)
        self._area = group.host_array((kernels.ROUNDS, ranks + 1, self.slot), np.uint8, "staging")
        map_pages(group, self._area, [])
        self._control = control_block(group, call_kernels.called.py_func(ranks))
        # An odd number of lines, so that entries do not compete for the same ones of a cache.
        entry = LINE_BYTES + self.short
        self.ring = group.host_array((call_kernels.RING_CALLS, ranks, entry), np.uint8, "staging")
        self.lengths = group.host_array((2, ranks, 2, ranks), np.int64)
        self.addresses = group.host_array((2, ranks, ranks), np.int64)
        self._processes = group.host_array((ranks,), np.int64)
        self.can_read_all = can_read(group, self._processes, self.addresses[0])
        words = {
            **{meeting_kernels.RANKS: ranks, meeting_kernels.OWN: own},
            **{meeting_kernels.POLLS: 0 if is_crowded else _POLLS, meeting_kernels.YIELDS: YIELDS},
            meeting_kernels.CONTROL: self._control.ctypes.data,
            **{meeting_kernels.TABLE: self._area.ctypes.data, kernels.SLOT: self.slot},
            **{call_kernels.RING: self.ring.ctypes.data, call_kernels.ENTRY: entry},
            **{call_kernels.SHORT: self.short, call_kernels.SMALL: self.small},
            kernels.LENGTHS: self.lengths.ctypes.data,
            kernels.ADDRESSES: self.addresses.ctypes.data,
            kernels.PROCESSES: self._processes.ctypes.data,
            kernels.DIRECT: DIRECT_BYTES if self.can_read_all else 0,
            kernels.DIVISOR: group.size,
        }
        self.plan = np.zeros(kernels.plan_words(ranks), np.int64)
        self.plan[list(words)] = list(words.values())


def _slot_bytes(ranks: int, staging_bytes: int) -> int:
    """ConfigurationError if there is no room for slots of a line for each rank."""
    slots = kernels.ROUNDS * (ranks + 1)
    least = -(-LINE_BYTES * ranks // _PAGE_BYTES) * _PAGE_BYTES
    slot = min(max(SLOT_BYTES, least), staging_bytes // slots) // _PAGE_BYTES * _PAGE_BYTES
    if slot < least:
        raise ConfigurationError(
            f"staging_bytes: expected at least {slots * least} for {ranks} ranks on a host, got {staging_bytes}"
        )
    return slot
