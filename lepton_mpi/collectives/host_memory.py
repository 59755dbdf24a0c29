"""Vectors in memory that a host's ranks share, and the plans that sum them in place: no message, no copy.

``HostVectors`` is one table per host. Each rank owns some of its rows and fills them with its
contributions; peers read them where they are. Three ways to hand over a vector, N bytes, n ranks:

    shared    the sum goes to one more row, which all ranks of the host read     (n + 1) N bytes moved
              or, in place, to the row of the first contribution: one vector less in the caches
    private   the sum goes to every rank's own row, as MPI's allreduce does      2 n N
    array     any NumPy array, copied in and out through a narrow table          2 n N, and 3 n N in cache

The order of additions is canonical (``summation_tree``): leaves are numbered over all places of the
world, and a rank that holds a run of leaves contributes one row for each whole node of the tree in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np

from lepton_mpi.collectives import host_array_kernels as array_kernels
from lepton_mpi.collectives import host_kernels as kernels
from lepton_mpi.collectives.atomics import LONGEST_SLEEP_NANOSECONDS, TIMEOUT
from lepton_mpi.collectives.chunks import chunk_bounds
from lepton_mpi.collectives.fold_kernels import OPERATIONS
from lepton_mpi.collectives.folds import Fold, plan_folds
from lepton_mpi.collectives.summation_tree import whole_nodes
from lepton_mpi.trial import Trial

# The sizes below can be tried out: mpirun -n 2 python -m benchmarks.allreduce --constants PART_BYTES=64K …

# Whoever has a core takes the next piece: small enough to share the work evenly, large enough that taking
# one, an atomic addition, does not count beside adding it. 2 ranks, 1 MiB, private: 18 us, with pieces of
# 64 KiB 21 us, of 32 KiB 23 us; no difference from 16 MiB on.
PIECE_BYTES = 128 << 10

# Polls before giving the core away, none with more ranks than cores; then yields before sleeping in the
# kernel. Both are first choices that no sweep has confirmed.
POLLS = 2_000
YIELDS = 1_000

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

_ALIGNMENT_BYTES = 4096


@dataclass(frozen=True)
class Leaves:
    """Who contributes what: of ``count`` leaves, place p (see World) holds [bounds[p], bounds[p + 1])."""

    count: int
    bounds: tuple[int, ...]

    @classmethod
    def spread(cls, count: int, world_size: int) -> "Leaves":
        """``count`` leaves over the ranks, as evenly as contiguous runs can be."""
        return cls(count, tuple(chunk_bounds(count, world_size)))

    def nodes(self, place: int) -> list[tuple[int, int]]:
        """Whole nodes (start, stop) of the tree in the run of one place: one row each."""
        return self.nodes_of_host(range(place, place + 1))

    def nodes_of_host(self, places: range) -> list[tuple[int, int]]:
        """Whole nodes of the run of all ``places`` of a host."""
        return whole_nodes(self.bounds[places.start], self.bounds[places.stop], self.count)


class HostVectors:
    """A table of vectors shared by the ranks of a host. Making one is collective over the host.

    Parameters
    ----------
    world : World
    count : int
        Elements of a vector.
    dtype : float32, float64, int32 or int64
    mode : {"shared", "private"}
        Where sums go: to rows of the host, or to each rank's own row.
    in_place : bool
        In mode "shared": over contributions, and no rows for the sums. Then whoever fills a row for the next sum first
        makes sure that all ranks of the host have read the last one, for example by a ``HostBarrier``.
    leaves : Leaves, optional
        Default: one leaf a rank.
    name : str
        What the table is counted under, see ``World.host_array``.

    Attributes
    ----------
    inputs : list of arrays, shape (count,)
        This rank's rows, one for each of ``leaves.nodes(world.place)``; may be empty.
    result : array, shape (count,)
        Where the sum is after a plan's ``run``. Shared: the same memory on all ranks of the host.
    node_starts : list of int
        First leaf of each input row of the host, ascending.
    host_nodes : list of (start, stop)
        Whole nodes of the host's own run of leaves. With one host that is the root.
    targets : list of lists of int
        For each of ``host_nodes``, one at least, the rows that receive its sum.
    keeps_inputs : bool
        Whether sums leave the contributions as they are.
    overwrites_own : bool
        Whether one takes the place of one of this rank's.
    """

    def __init__(
        self,
        world,
        count: int,
        dtype,
        mode: str,
        leaves: Leaves | None = None,
        name: str = "other",
        in_place: bool = False,
    ) -> None:
        self.world, self.count, self.dtype, self.mode = world, count, np.dtype(dtype), mode
        self.leaves = leaves or Leaves.spread(world.size, world.size)
        rows_of_rank = [
            self.leaves.nodes(place) for place in world.places_of_hosts[world.host_index]
        ]
        self.node_starts = [start for nodes in rows_of_rank for start, _ in nodes]
        self.nodes_of_hosts = [
            self.leaves.nodes_of_host(places) for places in world.places_of_hosts
        ]
        self.host_nodes = self.nodes_of_hosts[world.host_index]
        offsets = np.cumsum([0, *map(len, rows_of_rank)])
        own = range(offsets[world.local_rank], offsets[world.local_rank + 1])

        row_count = int(offsets[-1])
        self.keeps_inputs = mode == "shared" and not (in_place and self.host_nodes)
        if self.keeps_inputs:
            self.targets = [[row_count + node] for node in range(max(1, len(self.host_nodes)))]
        elif mode == "shared":
            self.targets = [[self.node_starts.index(start)] for start, _ in self.host_nodes]
        else:
            # A rank without a leaf has no row of its own, and reads the sum in the first row.
            filled = zip(offsets, rows_of_rank, strict=False)
            self.targets = [[int(offset) for offset, nodes in filled if nodes]]
        rows = row_count + len(self.targets) * self.keeps_inputs
        width = _row_width(count, self.dtype.itemsize)
        self.table = world.host_array((rows, width), self.dtype, name)
        self.inputs = [self.table[row, :count] for row in own]
        self.overwrites_own = any(row in own for rows in self.targets for row in rows)
        map_pages(world, self.table, self.inputs)
        self.result = self.table[
            own.start if mode == "private" and own else self.targets[0][0], :count
        ]

    @property
    def node_sums(self) -> list[np.ndarray]:
        """In mode "shared" the sums of ``host_nodes``, each of shape (count,); the first is ``result``."""
        return [self.table[row, : self.count] for (row,) in self.targets[: len(self.host_nodes)]]


class _HostKernel:
    """A kernel of a host's ranks with its plan. Making one is collective over the world, running it over the host.

    Attributes
    ----------
    run : callable
        Does it once; takes nothing and returns nothing.
    """

    def __init__(
        self, world, kernel, plan: np.ndarray, dtype: np.dtype, *memory: np.ndarray
    ) -> None:
        self._plan = plan
        # Without a Python function in between: that would take 40 ns of the 300 of a short allreduce.
        self.run = partial(compiled(world, kernel, dtype), plan.view(dtype))
        # A plan has addresses only. Whoever keeps ``run`` alone keeps what they are addresses of.
        self.run.memory = memory  # type: ignore[attr-defined]

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
    """

    def __init__(
        self, vectors: HostVectors, start: int = 0, stop: int | None = None, operation: str = "sum"
    ) -> None:
        world = vectors.world
        stop = vectors.count if stop is None else stop
        self.result = vectors.result[start:stop]
        groups = groups_of(vectors)
        in_use = (stop - start) * vectors.dtype.itemsize * len(vectors.table)
        scratch = scratch_for(groups, vectors.dtype)
        control, table = control_block(world), vectors.table
        plan = encode_plan(
            world,
            control,
            row_addresses(table),
            scratch,
            start,
            stop,
            operation,
            groups,
        )
        memory = control, table, scratch
        super().__init__(world, kernels.host_allreduce, plan, vectors.dtype, *memory)
        may_stream = operation == "sum" and vectors.keeps_inputs
        plan[kernels.STREAM] = may_stream and in_use >= STREAM_BYTES
        if may_stream and TRIAL_BYTES <= in_use < STREAM_BYTES:
            self.run = _by_trial(plan, self.run)


class HostArrayPlan(_HostKernel):
    """Sum an array of any origin over the ranks of a host, in place.

    Parameters
    ----------
    world : World
        All its ranks on one host.
    array : shape (n,), contiguous and writable
        Bound for the life of the plan.
    operation : {"sum", "max", "min"}
    """

    def __init__(self, world, array: np.ndarray, operation: str = "sum") -> None:
        ranks, itemsize = world.local_size, array.itemsize
        is_crowded = ranks > world.cores
        small = SMALL_CROWDED_BYTES if is_crowded else SMALL_BYTES
        is_small = ranks * array.nbytes <= small
        part = max(1, array.size if is_small else PART_BYTES // itemsize)
        shape = (ranks + 1) * array_kernels.ROUNDS, _row_width(part, itemsize)
        table = world.host_array(shape, array.dtype)
        map_pages(world, table, [])
        # Vectors: every rank's contribution, the array.
        groups = [plan_folds(range(ranks), range(ranks), [ranks], first_slot=ranks + 1)]
        scratch = scratch_for(groups, array.dtype)
        control = control_block(world, array_kernels.copied.py_func(ranks))
        plan = encode_plan(
            *(world, control, [0] * (ranks + 1), scratch, 0, array.size),
            *(operation, groups),
        )
        plan[kernels.PIECE], plan[kernels.OWN] = part, world.local_rank
        plan[kernels.TABLE], plan[kernels.ARRAY] = table.ctypes.data, array.ctypes.data
        plan[kernels.ROW_BYTES] = table.strides[0]
        kernel = (
            array_kernels.host_small_array_allreduce
            if is_small
            else array_kernels.host_array_allreduce
        )
        super().__init__(world, kernel, plan, array.dtype, control, table, array, scratch)
        self.result = array


class HostBarrier(_HostKernel):
    """All ranks of a host meet: ``run`` returns once all of them have called it.

    With ``waits`` false it returns at once, on this rank. Then something else for which all ranks wait must come before the
    next ``run``.
    """

    def __init__(self, world, waits: bool = True) -> None:
        control, no_scratch = control_block(world), np.empty((0, 1), np.int64)
        plan = encode_plan(world, control, [], no_scratch, 0, 0, "sum", [])
        plan[kernels.WAITS] = waits
        super().__init__(world, kernels.host_barrier, plan, np.dtype(np.int64), control)


def groups_of(vectors: HostVectors) -> list[list[Fold]]:
    """Folds that add up each node of the host."""
    groups = []
    for (first, last), targets in zip(vectors.host_nodes, vectors.targets, strict=False):
        rows = [row for row, leaf in enumerate(vectors.node_starts) if first <= leaf < last]
        leaves = [vectors.node_starts[row] for row in rows]
        groups.append(plan_folds(rows, leaves, targets, first_slot=len(vectors.table)))
    return groups


def _row_width(count: int, itemsize: int) -> int:
    """Elements from one row of a table to the next, for rows of ``count``: each begins with a page."""
    return -(-max(1, count) * itemsize // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES // itemsize


def row_addresses(table: np.ndarray) -> list[int]:
    """Of the rows of a matrix."""
    return [table.ctypes.data + row * table.strides[0] for row in range(len(table))]


def encode_plan(
    world,
    control: np.ndarray | None,
    addresses: list[int],
    scratch: np.ndarray,
    start: int,
    stop: int,
    operation: str,
    groups,
    piece_bytes: int = 0,
) -> np.ndarray:
    """What ``host_kernels.host_allreduce`` is to do, as one vector of int64.

    It has the addresses of the control block, where ranks meet in a call, of the vectors, and of the rows of
    ``scratch``; all of them must outlive it.
    Several pieces are as many for each core, and of equal length, so that all cores end together.
    """
    itemsize = scratch.itemsize
    pieces = max(1, -(-(stop - start) * itemsize // (piece_bytes or PIECE_BYTES)))
    if pieces > 1:
        pieces = -(-pieces // workers_of(world)) * workers_of(world)
    line = kernels.LINE_BYTES // itemsize
    piece = max(line, -(-(stop - start) // (pieces * line)) * line)
    crowded = world.local_size > world.cores
    body = [word for folds in groups for word in (len(folds), *chain(*map(Fold.words, folds)))]
    addresses = [*addresses, *row_addresses(scratch)]
    longest = max((len(fold.words()) for folds in groups for fold in folds), default=0)
    header = np.zeros(kernels.PLAN_HEADER, np.int64)
    header[kernels.RANKS], header[kernels.OPERATION] = world.local_size, OPERATIONS[operation]
    header[kernels.START], header[kernels.STOP] = start, stop
    header[kernels.PIECE], header[kernels.PIECES] = piece, max(1, -(-(stop - start) // piece))
    header[kernels.POLLS], header[kernels.YIELDS] = 0 if crowded else POLLS, YIELDS
    header[kernels.WORKERS] = workers_of(world)
    header[kernels.GROUPS] = len(groups)
    header[kernels.FIRST_SLOT] = len(addresses) - len(scratch)
    header[kernels.VECTORS], header[kernels.WORK] = len(addresses), len(header) + len(body)
    header[kernels.BLOCK] = scratch.shape[1]
    header[kernels.CONTROL] = 0 if control is None else control.ctypes.data
    return np.concatenate([header, np.array([*body, *addresses, *[0] * longest], np.int64)])


def workers_of(world) -> int:
    """Cores of the host that can be at work for its ranks at once."""
    return min(world.local_size, world.cores)


def waited_seconds(plan: np.ndarray) -> float:
    """Time that this rank waited for others, over all calls of a plan, but for the first polls of each wait."""
    return float(plan[kernels.WAITED]) * 1e-9


def slots_of(groups) -> int:
    """Scratch slots that the folds of ``groups`` need: all but the last fold of a group fill one."""
    return max((len(folds) - 1 for folds in groups if folds), default=0)


def scratch_for(groups, dtype: np.dtype) -> np.ndarray:
    """One rank's own memory for what the folds of ``groups`` leave to each other."""
    return np.empty((max(1, slots_of(groups)), kernels.BLOCK_BYTES // dtype.itemsize), dtype)


def map_pages(world, memory: np.ndarray, own: list[np.ndarray]) -> None:
    """Have all pages of shared ``memory`` in this rank's page table before the first call. Collective over the host.

    Faults would come with the first calls otherwise, 150 000 a rank for 9 vectors of 64 MiB. A page is placed
    near the core that touches it first, so every rank first writes zeros to what is its ``own``.
    """
    for array in own:
        array[:] = 0
    world.host_barrier()
    memory.reshape(-1)[:: _ALIGNMENT_BYTES // memory.itemsize].max(initial=0)


def control_block(world, count: int = 0) -> np.ndarray:
    """Words through which the ranks of a host meet; zero but for the longest sleep. Collective over the host."""
    needed = kernels.TICKETS + kernels.LINE_WORDS * workers_of(world)
    words = world.host_array((count or needed,), np.int64)
    words[TIMEOUT + 1] = LONGEST_SLEEP_NANOSECONDS
    world.host_barrier()
    return words


def compiled(world, kernel, dtype: np.dtype):
    """``kernel``, of a typed plan, for ``dtype``; compiled or loaded by one rank first. Collective over the world."""
    kind = {"float32": "f4", "float64": "f8", "int32": "i4", "int64": "i8"}[dtype.name]
    world.first_of_host_first(lambda: kernel.compile(f"void({kind}[::1])"))
    return kernel
