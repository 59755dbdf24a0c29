"""Plans that sum the vectors of a host, or an array of any origin, and the barrier of a host."""

from collections.abc import Callable
from functools import partial

import numpy as np

from lepton_mpi.collectives.choosing.trial import Trial
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.within_host import array_kernels
from lepton_mpi.collectives.within_host import meeting_kernels as kernels
from lepton_mpi.collectives.within_host.folds import Fold, plan_folds
from lepton_mpi.collectives.within_host.plan_words import (
    compiled,
    control_block,
    encode_meeting,
    encode_plan,
    row_addresses,
    scratch_for,
    waited_seconds,
)
from lepton_mpi.collectives.within_host.vectors import HostVectors, map_pages, row_width

# The sizes below can be tried out: mpirun -n 2 python -m benchmarks.allreduce --constants PART_BYTES=64K …

# With this much memory in use a shared result is written past the caches, which saves reading it first. 2 ranks, 64 MiB: 1.7 ms in
# place of 2.2. From TRIAL_BYTES on both ways are tried, after some calls: 16 MiB took 0.43 ms in place of 0.34, and
# 0.79 in place of 1.12 when the machine's memory was slower.
STREAM_BYTES, TRIAL_BYTES = 128 << 20, 8 << 20
_CALLS_BEFORE_TRIAL, _CALLS_OF_TRIAL = 12, 4

# Part of an array that goes through the table at once: every part costs two meetings, and few of them fit the
# second-level cache. 2 ranks, 1 MiB: 41 us with parts of 64 KiB, 38 of 128, 35 of 256, 32 of 512 KiB and 1 MiB;
# 4 ranks, 64 MiB: 7.9 ms with 512 KiB, 8.6 with 1 MiB.
PART_BYTES = 512 << 10

# Up to this size of all ranks' arrays together every rank sums all of them, which is one meeting in place of two; with
# more ranks than cores a meeting costs more. 2 ranks, 4 KiB: 0.51 us in place of 0.56, 16 KiB 1.18 in place of 0.89; 4 ranks
# on 2 cores, 16 KiB 5.4 us in place of 6.6; 8 ranks, 32 KiB 16.6 in place of 14.9.
SMALL_BYTES, SMALL_CROWDED_BYTES = 8 << 10, 128 << 10


class _HostKernel:
    """A kernel of a host's ranks with its plan and what must live as long. Running it is collective over the host.

    Attributes
    ----------
    run : callable
        Does it once; takes nothing and returns nothing.
    """

    def __init__(self, kernel, plan: np.ndarray, dtype: np.dtype, *kept: object) -> None:
        self._plan = plan
        # Without a Python function in between: that would take 40 ns of the 300 of a short allreduce.
        self.run = partial(compiled(kernel, dtype), plan.view(dtype))
        # A plan has addresses only. Whoever keeps ``run`` alone keeps what they are addresses of, and the plan watched.
        self.run.kept = kept  # type: ignore[attr-defined]

    @property
    def wait_seconds(self) -> float:
        """Time that this rank waited for others, over all calls, but for the first polls of each wait."""
        return waited_seconds(self._plan)


def _by_trial(plan: np.ndarray, run: Callable[[], None]) -> Callable[[], None]:
    """``run`` with results in the caches or past them, whichever has been faster."""
    ways = Trial((0, 1), before=_CALLS_BEFORE_TRIAL, trial=_CALLS_OF_TRIAL)

    def run_one_way() -> None:
        plan[kernels.STREAM] = ways.next()
        run()

    return run_one_way


class HostPlan(_HostKernel):
    """Sum [start, stop) of all input rows of a host, as often as ``run`` is called.

    With several hosts the sums are the host's own nodes, in ``vectors.node_sums``.

    Parameters
    ----------
    vectors : HostVectors
    start, stop : int
        The elements that this plan is about; default all.
    operation : {"sum", "max", "min"}
    purpose : str
        What is summed in a step of a training, such as "gradients"; else empty. See ``encode_meeting``.
    """

    def __init__(
        self,
        vectors: HostVectors,
        start: int = 0,
        stop: int | None = None,
        operation: str = "sum",
        purpose: str = "",
    ) -> None:
        group = vectors.group
        stop = vectors.count if stop is None else stop
        self.result = vectors.result[start:stop]
        groups = groups_of(vectors)
        in_use = (stop - start) * vectors.dtype.itemsize * len(vectors.table)
        scratch = scratch_for(groups, vectors.dtype)
        control, table = control_block(group), vectors.table
        plan, meeting = encode_meeting(
            group,
            control,
            row_addresses(table),
            scratch,
            start,
            stop,
            operation,
            groups,
            purpose=purpose,
        )
        kept = control, table, scratch, meeting
        super().__init__(kernels.host_allreduce, plan, vectors.dtype, *kept)
        may_stream = operation == "sum" and vectors.keeps_inputs
        plan[kernels.STREAM] = may_stream and in_use >= STREAM_BYTES
        if may_stream and TRIAL_BYTES <= in_use < STREAM_BYTES:
            self.run = _by_trial(plan, self.run)


class HostArrayPlan(_HostKernel):
    """Sum an array of any origin over the ranks of a host, in place.

    Parameters
    ----------
    group : Group
        All its ranks on one host.
    array : shape (n,), contiguous and writable
        Bound for the life of the plan.
    operation : {"sum", "max", "min"}
    """

    def __init__(self, group: Group, array: np.ndarray, operation: str = "sum") -> None:
        ranks, itemsize = group.local_size, array.itemsize
        is_crowded = ranks > group.cores
        small = SMALL_CROWDED_BYTES if is_crowded else SMALL_BYTES
        is_small = ranks * array.nbytes <= small
        part = max(1, array.size if is_small else PART_BYTES // itemsize)
        shape = (ranks + 1) * array_kernels.ROUNDS, row_width(part, itemsize)
        table = group.host_array(shape, array.dtype)
        map_pages(group, table, [])
        # Vectors: every rank's contribution, the array.
        groups = [plan_folds(range(ranks), range(ranks), [ranks], first_slot=ranks + 1)]
        scratch = scratch_for(groups, array.dtype)
        control = control_block(group, array_kernels.copied.py_func(ranks))
        plan = encode_plan(
            *(group, control, [0] * (ranks + 1), scratch, 0, array.size),
            *(operation, groups),
        )
        plan[kernels.PIECE], plan[kernels.OWN] = part, group.local_rank
        plan[kernels.TABLE], plan[kernels.ARRAY] = table.ctypes.data, array.ctypes.data
        plan[kernels.ROW_BYTES] = table.strides[0]
        kernel = (
            array_kernels.host_small_array_allreduce
            if is_small
            else array_kernels.host_array_allreduce
        )
        super().__init__(kernel, plan, array.dtype, control, table, array, scratch)
        self.result = array


class HostBarrier(_HostKernel):
    """All ranks of a host meet: ``run`` returns once all of them have called it.

    With ``waits`` false it returns at once, on this rank. Then something else for which all ranks wait must come before the
    next ``run``.
    """

    def __init__(self, group: Group, waits: bool = True) -> None:
        control, no_scratch = control_block(group), np.empty((0, 1), np.int64)
        plan = encode_plan(group, control, [], no_scratch, 0, 0, "sum", [])
        plan[kernels.WAITS] = waits
        super().__init__(kernels.host_barrier, plan, np.dtype(np.int64), control)


def groups_of(vectors: HostVectors) -> list[list[Fold]]:
    """Folds that add up each node of the host."""
    groups = []
    for (first, last), targets in zip(vectors.host_nodes, vectors.targets, strict=False):
        rows = [row for row, leaf in enumerate(vectors.node_starts) if first <= leaf < last]
        leaves = [vectors.node_starts[row] for row in rows]
        groups.append(plan_folds(rows, leaves, targets, first_slot=len(vectors.table)))
    return groups
