"""Synchronous data parallelism on one host, with one copy of parameters and state, updated slice by slice.

    parameters, state    once per host
    gradients            a row per rank and tree node
    a step               sum and update in one pass; with clipping by norm first the sum, over the first gradient

Memory per host: (n + 1 + s) N bytes.
"""

import numpy as np

from lepton_mpi.collectives.choosing.trial import Trial
from lepton_mpi.collectives.choosing.tuning import Choice
from lepton_mpi.collectives.within_host.folds import plan_folds
from lepton_mpi.collectives.within_host.meeting_kernels import WORKERS
from lepton_mpi.collectives.within_host.plan_words import (
    control_block,
    encode_plan,
    row_addresses,
    slots_of,
    waited_seconds,
    workers_of,
)
from lepton_mpi.collectives.within_host.plans import HostPlan
from lepton_mpi.collectives.within_host.vectors import HostVectors, Leaves
from lepton_mpi.optimizers.optimizer import Settings
from lepton_mpi.strategies.clipping import SharedNorm, clipped_scale
from lepton_mpi.strategies.host_state import host_state, vector_counts
from lepton_mpi.strategies.micro_batches import NodeSums
from lepton_mpi.strategies.step_kernels import sum_and_update
from lepton_mpi.strategies.strategy import Strategy
from lepton_mpi.vectors import Layout

# Bytes of every vector that are summed and updated together, all of them tried out during training. Long blocks, of
# which the sum, the parameters and two vectors of state are half of a second-level cache, keep many loads from memory
# under way: 2 ranks, 1e7 parameters: 3.1 ms in place of 5.0 (8 KiB) or 5.5 (2 KiB). Another
# processor did better with short ones, and shorter ones still once all vectors together have LARGE_BYTES.
# To try others: mpirun -n 2 python -m benchmarks.engines.update --bucket-bytes 4194304
# --cases 10000000:adam:shared:whole --json FILE --constants LONG_BLOCK_BYTES=64K
LONG_BLOCK_BYTES, SHORT_BLOCK_BYTES = 128 << 10, 8 << 10
LARGE_BYTES, LARGE_SHORT_BLOCK_BYTES = 8 << 20, 2 << 10

# Pieces that a core takes, one after the other, and what a piece has at least and at most.
PIECES_PER_CORE, PIECE_BYTES_MIN, PIECE_BYTES_MAX = 4, 16 << 10, 256 << 10


class SharedParameters(Strategy):
    """See the module. Making one and stepping are collective over the world.

    Parameters
    ----------
    world : World
        All its ranks on one host.
    layout : Layout
    dtype : float32 or float64
    leaf_count : int
        Micro-batches of a step.
    settings : optimizers.Settings
    choice : tuning.Choice
        "host" or "two_level".
    clip_norm : float
        Largest norm of the mean gradient; infinity for none.

    Attributes
    ----------
    parameters : shape (layout.size,)
        The same memory on all ranks of the host. Whoever fills it at the beginning is ``local_rank`` 0.
    optimizer : Optimizer
    micro_batches : NodeSums
        Iterate over it and fill each vector with the summed gradient of that micro-batch, then ``step``.
    choice : Choice
    bucket_count : 1
        Nothing overlaps inside a host, and every bucket would be one more meeting of its ranks.
    is_shared : bool
        Whether ``parameters`` are memory of the host.
    vector_counts : dict of str to int
        How many vectors of the length of the parameters a host holds, by purpose.
    exchange_seconds : None
        Nothing is sent.
    steps_to_settle : int
        Steps in which ways of doing the update are tried out for the first time.
    """

    is_shared, bucket_count, exchange_seconds = True, 1, None

    def __init__(
        self,
        world,
        layout: Layout,
        dtype: np.dtype,
        leaf_count: int,
        settings: Settings,
        choice: Choice,
        clip_norm: float,
    ) -> None:
        self.choice, self._clock, self._clip_norm = choice, world.clock, clip_norm
        self.parameters, self.optimizer = host_state(world, layout, dtype, settings)
        leaves, clips = Leaves.spread(leaf_count, world.size), clip_norm < float("inf")
        mode = "shared" if clips else "private"
        # In place: nobody computes the next gradient before the update, where all ranks meet, has read the sum.
        vectors = HostVectors(world, layout.size, dtype, mode, leaves, "gradients", in_place=clips)
        self.vector_counts = vector_counts(self.optimizer, vectors)
        self.micro_batches = NodeSums(layout, leaves.nodes(world.place), vectors.inputs)
        self._sum = HostPlan(vectors) if clips else None
        self._norm = SharedNorm(world, vectors.result) if clips else None
        self._update = _Update(self, vectors, is_fused=not clips)
        self.steps_to_settle, self._waited = self._update.ways.steps_to_settle, 0.0

    def step(self, step: int, row_count: int) -> None:
        """Sum, divide by ``row_count`` (the rows of all ranks), update. ``step`` counts from 1."""
        scale = 1.0 / row_count
        self._clock.enter("communication")
        if self._norm:
            self._sum.run()
            scale = clipped_scale(scale, self._norm.compute(), self._clip_norm)
        self.optimizer.begin_step(step, scale)
        self._update.run()
        waited = self._wait_seconds()
        self._clock.move("communication", "waiting", waited - self._waited)
        self._waited = waited
        self._clock.enter("compute")

    def _wait_seconds(self) -> float:
        of_norm = self._sum.wait_seconds + self._norm.wait_seconds if self._sum else 0.0
        return self._update.wait_seconds + of_norm


class _Update:
    """Sum and update, or only update."""

    def __init__(self, owner: SharedParameters, vectors: HostVectors, is_fused: bool) -> None:
        world, dtype = vectors.world, vectors.dtype
        row, folds = vectors.targets[0][0], []
        first_slot = len(vectors.table)
        if is_fused:
            rows = list(range(len(vectors.node_starts)))
            # The first slot receives the sum, those behind it what folds leave to each other.
            folds = plan_folds(rows, vectors.node_starts, [first_slot], first_slot + 1)
            if len(rows) == 1:
                folds = []
        slots = 1 + slots_of([folds])
        vector_count = sum(owner.vector_counts.values())
        is_large = vector_count * owner.parameters.nbytes >= LARGE_BYTES
        short = LARGE_SHORT_BLOCK_BYTES if is_large else SHORT_BLOCK_BYTES
        blocks = [byte_count // dtype.itemsize for byte_count in (LONG_BLOCK_BYTES, short)]
        scratch = np.zeros((slots + 1, max(blocks)), dtype)
        share = owner.parameters.nbytes // (workers_of(world) * PIECES_PER_CORE)
        piece_bytes = min(max(share, PIECE_BYTES_MIN), PIECE_BYTES_MAX)
        # A plan has addresses only: the memory must live as long.
        self._memory = control, table = control_block(world), vectors.table
        plan = encode_plan(
            *(world, control, row_addresses(table), scratch, 0, vectors.count),
            *("sum", [folds], piece_bytes),
        )
        optimizer, self._plan = owner.optimizer, plan
        # A core that stores to lines which other cores have read waits until they have dropped them, line after line; past
        # the caches it need not wait, but everybody reads the lines from memory next. Which costs less depends on whether
        # the cores share a cache (./run_local.sh bench core_to_core), and on a virtual machine it changes.
        # What one core alone has read is nobody else's to drop.
        stores = (False, True) if plan[WORKERS] > 1 else (False,)
        self.ways = Trial([(block, store) for block in blocks for store in stores])
        self._arguments = (
            *(plan, scratch, row, optimizer.kind),
            *(owner.parameters, optimizer.state, optimizer.bounds),
            *(optimizer.decays, optimizer.numbers),
        )

    @property
    def wait_seconds(self) -> float:
        """Time that this rank waited for others, over all calls."""
        return waited_seconds(self._plan)

    def run(self) -> None:
        """Once. All ranks of the host."""
        sum_and_update(*self._arguments, *self.ways.next())
