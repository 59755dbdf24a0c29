"""Workers that meet: all of them take the mean of their parameters, fragment by fragment, perhaps by a codec.

    without    mean = (w_1 + … + w_W) / W                   the parameters themselves, added up in canonical order
    with       mean = a + decoded sum of (w_k - a) / W      a: parameters at the last meeting, the anchor, which all have

What is compressed are differences from the anchor: they become small as training goes on, where parameters do not. What a
codec leaves out of them is the host's residual, and comes with the next meeting. The sum of residuals is one of the mean's,
whatever the number of workers, so another number of them may go on with it. The anchor is no state: after ``finish`` all
workers have what they begin anew from.

    rank workers    differences of a host are summed in its memory as they are, and the lanes' slices between hosts compressed
    host workers    each lane has its slice of the host's difference

The mean of the optimizer's state at ``finish`` is not compressed.
"""

import numpy as np

from lepton_mpi.collectives.compressing.compressed_sum import CompressedSum
from lepton_mpi.collectives.compressing.compression import Compression
from lepton_mpi.strategies.compression import Compressing, compression_of
from lepton_mpi.strategies.strategy import Setting
from lepton_mpi.strategies.streaming import StreamedMeans
from lepton_mpi.strategies.worker_rows import WorkerRows
from lepton_mpi.strategies.workers import HostWorker, Mean, Worker, Workers

# A fragment may meet twice after a step: when it is due, and at ``finish``.
_ROUNDS_OF_STEP = 2


class MeetingWorkers(Compressing, Workers):
    """See the module. Making one and stepping are collective over the group; so are ``finish`` and a mean.

    Parameters
    ----------
    fragments : list of (start, stop)
        Of whole parameters, each of which may meet by itself.
    keeps_anchor : bool
        Whether there is an anchor without a codec, too.
    streams : bool
        Whether means come in during later steps, see ``_give`` and ``_take``; else ``_take_mean`` waits for them.

    Attributes
    ----------
    spans : list of lists of slice
        Of each fragment what this rank fills with the mean, in ``parameters`` and ``anchor``. Over the ranks of a worker they
        are all of it.
    anchor : shape (layout.size,)
        What all workers began from; whoever takes a mean sets it in the fragment's ``spans``. Empty where there is none.
    """

    def __init__(
        self,
        setting: Setting,
        worker: Worker,
        fragments: list[tuple[int, int]],
        keeps_anchor: bool = False,
        streams: bool = False,
    ) -> None:
        super().__init__(setting, worker)
        compression = compression_of(setting, _ROUNDS_OF_STEP)
        self._use(compression, setting)
        size, dtype = setting.layout.size, setting.dtype
        self.anchor = np.zeros(0, dtype)
        if keeps_anchor or compression:
            is_host = isinstance(worker, HostWorker)
            array = setting.group.host_array((size,), dtype, "anchor") if is_host else None
            self.anchor = np.zeros(size, dtype) if array is None else array
        self._means: list[Mean] = []
        self._differences: _Differences | None = None
        self._streamed: StreamedMeans | None = None
        if streams:
            self._streamed = StreamedMeans(setting, worker, compression, fragments)
            self.spans = self._streamed.spans
        elif compression:
            self._differences = _Differences(setting, worker, compression, fragments)
            self.spans = self._differences.spans
        else:
            first, end = worker.part.start, worker.part.stop
            bounds = [(max(start, first), min(stop, end)) for start, stop in fragments]
            self.spans = [[slice(start, max(start, stop))] for start, stop in bounds]
            self._means = [
                Mean(worker.peers, [self.parameters[span] for span in spans])
                for spans in self.spans
            ]
        if compression:
            self.kernels = [*self.kernels, *compression.codec.kernels]
        self._fragment_bytes = [(stop - start) * dtype.itemsize for start, stop in fragments]
        # What a mean of all of it would have sent as it is, and steps, of this run.
        self._uncompressed_bytes, self._step_count = 0, 0
        self._sent_before = 0

    def begin(self) -> None:
        """See ``Workers``: the anchor is what all begin from, and what was left out before is on top of it."""
        self.worker.meet()
        if self.anchor.size:
            self._set_anchor(range(len(self.spans)))
            self.worker.meet()
        if self._undelivered is not None:
            self.parameters += self._undelivered
            self._undelivered = None
        self.worker.meet()

    def step(self, step: int, weight: int) -> None:
        """See ``Strategy``."""
        self._step_count += 1
        if self._compression:
            self._compression.step = _ROUNDS_OF_STEP * step
        super().step(step, weight)

    def finish(self) -> None:
        """See ``Strategy``."""
        if self._compression:
            self._compression.step |= 1
        super().finish()

    def _take_mean(self, number: int) -> None:
        """Fill ``parameters`` in the ``spans`` of one fragment with the mean of all workers."""
        if not self._differences or not self._compression:
            self.run_mean(self._means[number])
            return
        waited, sent = self._differences.wait_seconds, self._compression.sent_bytes
        self._differences.run(number, self.parameters, self.anchor)
        waited = self._differences.wait_seconds - waited
        self._clock.move("communication", "waiting", waited)
        self.exchanged_bytes += self._compression.sent_bytes - sent
        self._uncompressed_bytes += 2 * (self._group.host_count - 1) * self._fragment_bytes[number]

    def _give(self, number: int) -> None:
        """Send a fragment, of which ``_take`` will have the mean."""
        assert self._streamed
        self._streamed.give(number, self.parameters, self.anchor)
        if self._compression:
            self._uncompressed_bytes += (
                2 * (self._group.host_count - 1) * self._fragment_bytes[number]
            )
        else:
            own = sum(span.stop - span.start for span in self.spans[number])
            self.exchanged_bytes += own * self.parameters.itemsize

    def _take(self, number: int) -> list[np.ndarray]:
        """The mean of a fragment that was given, an array for each of its ``spans``."""
        assert self._streamed
        found = self._streamed.take(number, self.anchor)
        if self._compression:
            sent = self._compression.sent_bytes
            self.exchanged_bytes += sent - self._sent_before
            self._sent_before = sent
        return found

    def _set_anchor(self, numbers: range) -> None:
        """What ``parameters`` are in the ``spans`` of these fragments, where there is an anchor."""
        for span in (span for number in numbers for span in self.spans[number]):
            if self.anchor.size:
                self.anchor[span] = self.parameters[span]

    def memory(self) -> dict[str, int]:
        """Of host workers also the anchor; with a codec differences and residuals."""
        found = super().memory() | ({"anchor": 1} if self.is_shared and self.anchor.size else {})
        table = self._streamed or self._differences
        if table:
            found |= {"differences": table.vector_count}
        if self._compression:
            found |= {"residuals": self._compression.vector_count}
        return found

    def own_vectors(self) -> int:
        """Of a rank worker also the anchor."""
        return super().own_vectors() + (not self.is_shared and self.anchor.size > 0)

    def figures(self) -> dict[str, float]:
        """With a codec also what was sent for the means of parameters; where means come in during steps ``hidden_share``."""
        found = super().figures()
        if self._streamed and self._group.host_count > 1:
            total, exposed = self._group.sum(self._streamed.seconds).tolist()
            found |= {"hidden_share": 1 - exposed / total if total else 0.0}
        return found | self._sent_figures(self._step_count, self._uncompressed_bytes)

    def promise(self) -> str:
        """With the codec."""
        return super().promise() + self._codec_text()

    def _bits(self) -> str:
        if self._compression and not self._is_balanced:
            return "same bits on as many ranks and hosts"
        return super()._bits()


class _Differences:
    """The mean by a codec. Making one and running it are collective over the group."""

    def __init__(
        self,
        setting: Setting,
        worker: Worker,
        compression: Compression,
        fragments: list[tuple[int, int]],
    ) -> None:
        self._rows = rows = WorkerRows(setting, worker)
        self._sum = CompressedSum(
            rows.vectors, compression, setting.buckets, fragments, purpose="differences"
        )
        own = [[slice(*each)] for each in fragments]
        self.spans = self._sum.slices if rows.is_of_host else own

    @property
    def vector_count(self) -> int:
        """Vectors of the whole length that a host holds."""
        return self._rows.vector_count

    @property
    def wait_seconds(self) -> float:
        """Time that this rank waited for others of its host, over all calls."""
        return self._sum.wait_seconds

    def run(self, number: int, parameters: np.ndarray, anchor: np.ndarray) -> None:
        """Fill ``parameters`` in the spans of a fragment with the mean."""
        for span in self.spans[number]:
            self._rows.fill(span, parameters, anchor)
        self._sum.run_part(number)
        for span in self.spans[number]:
            np.add(anchor[span], self._sum.result[span], out=parameters[span])
