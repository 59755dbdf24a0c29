"""lepton_mpi's own reading of a file, as ``run/build.py`` does it: ``mpirun -n 2 python -m benchmarks.engines.loader …``."""

import gc
import time
from dataclasses import replace

from lepton_mpi import __version__, launcher

_TIMEOUT_SECONDS = 600
_COPY_BYTES = 256 << 20
_COPY_ROUNDS = 7
_EPOCHS_MAX = 50
_MICRO_BATCHES = 8  # of a step, as in a training; more ranks have one each
# A row is read as bytes and written as float32.
_MOVED = 1 + 4


def main() -> int:
    """Measure the cases of the command line; rank 0 writes the rows."""
    from benchmarks.engines.loader_case import parser

    made = parser()
    made.add_argument("--way", choices=("memory", "mapped", "streamed"), required=True)
    options = made.parse_args()
    launcher.limit_threads(1)
    # NumPy and Numba read their number of threads when they are loaded.
    from lepton_mpi.world import world

    return world.run(lambda ranks: _measure(ranks, options), _TIMEOUT_SECONDS)


def _measure(world, options) -> None:
    from benchmarks.engines.loader_case import CACHES
    from benchmarks.harness import write_rows

    _compile_kernels(world)
    bandwidth = _copy_bandwidth(world) if options.way == "memory" else None
    rows = []
    for file in options.files:
        for state in CACHES:
            if state not in options.caches:
                continue
            row = _measure_case(world, options, file, state)
            if row is None:
                continue
            if bandwidth:
                moved = _MOVED * file.sample_bytes * file.row_count
                row |= {"copy_gbs": bandwidth / 1e9, "limit_us": moved / bandwidth * 1e6}
            rows.append(row)
            write_rows(options.json, rows)


def _compile_kernels(world) -> None:
    """What reads rows; a file that is dropped from the page cache is read once only."""
    import numpy as np

    from lepton_mpi.batch import Input
    from lepton_mpi.data import called_kernels
    from lepton_mpi.kernels.queue import compile_together, missing

    x = Input("numbers", (1,))
    kernels = [
        *called_kernels.while_loading(),
        *called_kernels.while_training("classes", [x], augments=False),
    ]
    left = missing(kernels, np.dtype(np.float32))
    compile_together(left, world.cores, lambda: world.clock.enter("start"))


def _measure_case(world, options, file, state: str):
    """The row of a case, on rank 0. Collective.

    A dropped file is read once, from the start of the reading thread; a warm one once before, and then as often as fits
    into the time to measure, between two epochs that are checked: looking at rows is not counted.
    """
    from benchmarks.engines import loader_case as case
    from benchmarks.engines.loader_rows import count_wrong
    from benchmarks.engines.page_cache import cached_share

    gc.collect()  # the maps of the case before, whose pages cannot be dropped
    ranks = case.WorldRanks(world)
    world.clock.enter("input", 0)
    case.reset_peak()
    case.set_cache(ranks, file.path, state)
    reading = _Reading(world, file, options.way)
    case.set_cache(ranks, file.path, state)
    problem = case.cache_problem(cached_share(file.path), state)
    is_warm = state == "warm"
    reading.begin(epochs=_EPOCHS_MAX + 2 if is_warm else 1)
    checked, count = [], 1
    if is_warm:
        first = reading.time(ranks, 1)
        checked = [timing.seen for timing in ranks.allgather(first)]
        slowest = max(ranks.allgather(first.seconds))
        count = min(_EPOCHS_MAX, 1 + int(options.seconds / slowest))
    waited = reading.wait_seconds
    timing = reading.time(ranks, count, is_checked=not is_warm)
    share = (reading.wait_seconds - waited) / timing.seconds
    if is_warm:
        timing = replace(timing, seen=reading.time(ranks, 1).seen)
    shares, loads = ranks.allgather(share), ranks.allgather(reading.load_seconds)
    row = case.timed_row(
        "lepton_mpi",
        file,
        state,
        ranks,
        timing,
        way=options.way,
        wait_share=sum(shares) / len(shares),
        load_seconds=max(loads),
        epochs=count,
        cache_problem=problem,
        version=__version__,
    )
    reading.close()
    if row is not None and checked:
        row["wrong"] += count_wrong(checked, file.row_count, True)
    return row


class _Reading:
    """One file made ready one way, and this rank's epochs of it. Collective over the world."""

    def __init__(self, world, file, way: str) -> None:
        import numpy as np

        from benchmarks.engines.loader_rows import BATCH_ROWS, SeenRows
        from lepton_mpi.chunks import share
        from lepton_mpi.data.batches import BatchReader
        from lepton_mpi.data.loader import Wanted, load
        from lepton_mpi.data.order import MicroBatches
        from lepton_mpi.data.training_order import training_order
        from lepton_mpi.options.config import Config

        began = time.perf_counter()
        data = load(str(file.path), Wanted(np.dtype(np.float32), way=way), world)
        self.load_seconds = time.perf_counter() - began
        count = max(_MICRO_BATCHES, world.size)
        batches = MicroBatches(count * BATCH_ROWS, BATCH_ROWS)
        self._order = training_order(data, batches, 0, "auto", Config.shuffle_buffer)
        self._rows, self._reader = data.splits["train"], BatchReader(data, BATCH_ROWS)
        self._numbers = range(*share(0, count, world.size, world.rank))
        self._reads_of_epoch = batches.step_count(file.row_count) * len(self._numbers)
        self._seen = SeenRows(self._reads_of_epoch * BATCH_ROWS)
        self._world, self._reads, self._epochs, self._epoch = world, None, range(0), 0

    @property
    def wait_seconds(self) -> float:
        """Time that this rank has waited for rows."""
        return self._reads.wait_seconds if self._reads else 0.0

    def begin(self, epochs: int) -> None:
        """Say how many epochs there will be at most. The reading begins with the first that is timed."""
        self._epochs = range(1, epochs + 1)

    def time(self, ranks, count: int, is_checked: bool = True):
        """Time ``count`` epochs back to back; what was seen is that of the last, if it is looked at."""
        from benchmarks.engines.loader_case import Timing
        from lepton_mpi.data.reads import TrainingReads

        seen, rows = self._seen, 0
        ranks.barrier()
        began = time.perf_counter()
        if self._reads is None:
            what = self._rows, self._order, self._numbers, self._epochs, 0
            self._reads = TrainingReads(*what, host=self._world)
        for _ in range(count):
            seen.clear()
            self._epoch += 1
            self._reads.begin_epoch(self._epoch)
            for _ in range(self._reads_of_epoch):
                read, _cuts = next(self._reads)
                x, y, *_ = self._reader.read_for_training(read, 0)
                rows += len(x)
                if is_checked and len(x):  # the last step of an epoch may be shorter
                    seen.add(x.reshape(len(x), -1), y)
        return Timing(rows, time.perf_counter() - began, seen.seen(), True)

    def close(self) -> None:
        """End the thread that reads."""
        self._reads.close()


def _copy_bandwidth(world) -> float:
    """Bytes a second that the ranks of this host move together in memory, read and written, by NumPy's copy. Collective."""
    import numpy as np

    size = _COPY_BYTES // world.local_size
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    rounds = []
    for _ in range(_COPY_ROUNDS):
        world.host_barrier()
        began = time.perf_counter()
        np.copyto(target, source)
        rounds.append(time.perf_counter() - began)
    slowest = max(world.host_comm.allgather(float(np.median(rounds))))
    return 2 * world.local_size * size / slowest


if __name__ == "__main__":
    raise SystemExit(main())
