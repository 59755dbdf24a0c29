"""Means of fragments that come in while workers go on with their steps (overlapped, non-blocking): what ``--overlap-steps`` stands on.

    give(f)     this worker's fragment goes to its host's table, and from there slice by slice to the other hosts
    poll        called between the kernels of the inner steps: what has arrived is added, and sent on
    take(f)     the steps are made: wait for what is missing, and the fragment's mean is there

The exchange is that of ``--strategy sync`` over hosts (``overlapped_sum.py``), one for each fragment, all over one table. Several fragments may
be under way; each has tags and flags of its own. A row is given again only after ``take``, at which all ranks of
the host have read it. Without a codec vectors are summed, in canonical order; with one differences from the anchor, see ``meetings.py``.
All ranks give and take the same fragments in the same order, after the same steps, whenever messages arrive: so bits do not depend on time.
A rank that waits goes on with what the others wait for, and one that dies ends the job by the watchdog.
"""

from collections.abc import Callable

import numpy as np

from lepton_mpi.collectives.between_hosts.overlapped_sum import OverlappedSum
from lepton_mpi.collectives.compressing.compressed_sum import buckets_of_parts
from lepton_mpi.collectives.compressing.compression import Compression
from lepton_mpi.collectives.within_host.flags import HostFlags
from lepton_mpi.strategies.strategy import Setting
from lepton_mpi.strategies.worker_rows import WorkerRows
from lepton_mpi.strategies.workers import Worker
from lepton_mpi.sync import Sync


class StreamedMeans:
    """Making one is collective over the group; so are ``give`` and ``take``. ``poll`` is not.

    Parameters
    ----------
    setting, worker
        As of ``MeetingWorkers``.
    compression : Compression or None
        Of these means alone.
    fragments : list of (start, stop)
        Of whole parameters.

    Attributes
    ----------
    spans : list of lists of slice
        Of each fragment what this rank gives and takes.
    under_way : set of int
        Fragments that were given and are not taken yet.
    """

    def __init__(
        self,
        setting: Setting,
        worker: Worker,
        compression: Compression | None,
        fragments: list[tuple[int, int]],
    ) -> None:
        self._rows = WorkerRows(setting, worker)
        vectors, self._codes = self._rows.vectors, compression is not None
        buckets = list(setting.buckets) or [(0, setting.layout.size)]
        if compression:
            buckets = compression.buckets(buckets)
        cut = buckets_of_parts(buckets, fragments)
        slices: list[list[tuple[int, int]] | None] = [None] * len(fragments)
        if compression:
            found = iter(compression.slices([bucket for of_part in cut for bucket in of_part]))
            slices = [[next(found) for _ in of_part] for of_part in cut]
        self._sums = [
            OverlappedSum(vectors, of_part, compression=compression, slices=of_slices)
            for of_part, of_slices in zip(cut, slices, strict=True)
        ]
        self._bucket_counts = [len(of_part) for of_part in cut]
        self._rounds = [0] * len(fragments)
        self._summed = HostFlags(setting.group, len(fragments))
        self.under_way: set[int] = set()
        self.spans = [
            [slice(*each) for each in fragments[number : number + 1]]
            for number in range(len(fragments))
        ]
        if self._rows.is_of_host:
            self.spans = [[slice(*each) for each in of_part.slices] for of_part in self._sums]

    @property
    def vector_count(self) -> int:
        """Vectors of the whole length that a host holds."""
        return self._rows.vector_count

    @property
    def seconds(self) -> np.ndarray:
        """Of the exchange, from first message to last of each, and of that what was waited for; shape (2,), over all calls."""
        return np.array([[s.exchange_seconds, s.exposed_seconds] for s in self._sums]).sum(axis=0)

    def give(self, number: int, parameters: np.ndarray, anchor: np.ndarray) -> None:
        """Send a fragment of this worker's ``parameters``, from now on without it."""
        for span in self.spans[number]:
            self._rows.fill(span, parameters, anchor if self._codes else None)
        self.under_way.add(number)
        self._rounds[number] += 1
        self._sums[number].begin()
        for bucket in range(self._bucket_counts[number]):
            self._sums[number].ready(bucket)

    def poll(self) -> None:
        """Go on with all that is under way, without waiting."""
        for number in self.under_way:
            self._sums[number].poll()

    def take(self, number: int, anchor: np.ndarray) -> list[np.ndarray]:
        """The mean of a fragment that was given, one array for each of its ``spans``, which hold until it is given again.

        ``anchor`` is what it was in ``give``.
        """
        own, buckets = self._sums[number], range(self._bucket_counts[number])
        is_told = False

        def all_have() -> bool:
            nonlocal is_told
            self.poll()
            if not is_told and all(map(own.is_complete, buckets)):
                self._summed.raise_own(number, self._rounds[number])
                is_told = True
            return self._summed.all_raised(number, self._rounds[number])

        own.until(all_have)
        self.under_way.remove(number)
        found = [self._rows.vectors.result[span] for span in self.spans[number]]
        if self._codes:
            pairs = zip(found, self.spans[number], strict=True)
            found = [anchor[span] + difference for difference, span in pairs]
        return found


class Polling:
    """A ``Sync`` that lets what is under way go on whenever the model says how far it is."""

    follows = True

    def __init__(self, inner: Sync, poll: Callable[[], None]) -> None:
        self.awaits, self._inner, self._poll = inner.awaits, inner, poll

    def need(self, name: str) -> None:
        """See ``Sync``."""
        self._inner.need(name)
        self._poll()

    def done(self, name: str, start: int = 0, stop: int | None = None) -> None:
        """See ``Sync``."""
        self._inner.done(name, start, stop)
        self._poll()
