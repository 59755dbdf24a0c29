"""Synchronous data parallelism on one host, with one copy of parameters and state, updated slice by slice.

    parameters, state    once per host
    gradients            a row per rank and tree node
    a step               sum and update in one pass; with clipping by norm first the sum, over the first gradient

Memory per host: (n + 1 + s) N bytes.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from lepton_mpi.collectives.choosing.trial import Trial
from lepton_mpi.collectives.choosing.tuning import Choice
from lepton_mpi.collectives.within_host.folds import plan_folds
from lepton_mpi.collectives.within_host.meeting_kernels import WORKERS
from lepton_mpi.collectives.within_host.plan_words import (
    control_block,
    encode_meeting,
    row_addresses,
    slots_of,
    waited_seconds,
)
from lepton_mpi.collectives.within_host.plans import HostPlan
from lepton_mpi.collectives.within_host.told import workers_of
from lepton_mpi.collectives.within_host.vectors import HostVectors, Leaves
from lepton_mpi.strategies.clipping import SharedNorm, clipped_scale
from lepton_mpi.strategies.executor import Executor
from lepton_mpi.strategies.host_state import host_state, vector_counts
from lepton_mpi.strategies.micro_batches import NodeSums
from lepton_mpi.strategies.norm_kernels import sum_of_squares
from lepton_mpi.strategies.step_kernels import sum_and_update_by
from lepton_mpi.strategies.strategy import Setting, Share

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


class SharedParameters(Executor):
    """See the module. Making one and stepping are collective over the group, all of whose ranks are on one host.

    Parameters
    ----------
    setting : Setting
        Its buckets are left alone: nothing overlaps inside a host, and every bucket would be one more meeting of its ranks.
    choice : Choice
        "host" or "two_level".

    Attributes
    ----------
    inputs : list of arrays, shape (layout.size,)
        This rank's sums of gradients, complete in ``step``.
    steps_to_settle : int
        Steps in which ways of doing the update are tried out for the first time (online autotuner).
    """

    is_shared, bucket_count, can_share_out, outlives_ranks = True, 1, True, True

    def __init__(self, setting: Setting, choice: Choice) -> None:
        super().__init__(choice)
        self._setting, self._group = setting, setting.group
        self._clock, self._clip_norm = setting.group.clock, setting.clip_norm
        self.parameters, self.optimizer = host_state(setting)
        self._hand_out(Leaves.spread(setting.micro_batch_count, setting.group.size))

    def share_out(self, bounds: Sequence[int]) -> None:
        """See ``Strategy``."""
        self._hand_out(Leaves(self._setting.micro_batch_count, tuple(bounds)))

    def _hand_out(self, leaves: Leaves) -> None:
        """Memory for the gradients of these micro-batches, and the plan that sums them."""
        group, layout, clips = self._group, self._setting.layout, self._setting.clips
        mode = "shared" if clips else "private"
        # In place: nobody computes the next gradient before the update, where all ranks meet, has read the sum.
        vectors = HostVectors(
            group, layout.size, self._setting.dtype, mode, leaves, "gradients", in_place=clips
        )
        self._vector_counts = vector_counts(self.optimizer, vectors)
        self.inputs = vectors.inputs
        self._node_sums = NodeSums(layout, leaves.nodes(group.place), self.inputs)
        self.numbers = self._node_sums.numbers
        self._sum = HostPlan(vectors, purpose="gradients") if clips else None
        spans = self._setting.trained_spans
        self._norm = SharedNorm(group, vectors.result, spans) if clips else None
        self._update = _Update(self, vectors, is_fused=not clips)
        self.kernels = [self._update.kernel, *([sum_of_squares] if clips else [])]
        self.steps_to_settle, self._waited = self._update.ways.steps_to_settle, 0.0

    def shares(self, step: int) -> Iterable[Share]:
        """See ``Strategy``."""
        return self._node_sums.shares()

    def memory(self) -> dict[str, int]:
        """Vectors that the host holds."""
        return self._vector_counts

    def own_vectors(self) -> int:
        """Sums of micro-batches on their way."""
        return self._node_sums.extra_count

    def step(self, step: int, weight: int) -> None:
        """See ``Strategy``: sum, divide by ``weight``, update."""
        scale = 1.0 / weight
        self._clock.enter("communication", step)
        if self._sum and self._norm:
            self._sum.run()
            scale = clipped_scale(scale, self._norm.compute(), self._clip_norm)
        self.optimizer.begin_step(step, scale, 1.0 / weight)
        self._update.run()
        waited = self._wait_seconds()
        self._clock.move("communication", "waiting", waited - self._waited)
        self._waited = waited
        self._clock.enter("compute")

    def _wait_seconds(self) -> float:
        parts = (self._update, self._sum, self._norm)
        return sum(part.wait_seconds for part in parts if part is not None)


class _Update:
    """Sum and update, or only update."""

    def __init__(self, owner: SharedParameters, vectors: HostVectors, is_fused: bool) -> None:
        group, dtype = vectors.group, vectors.dtype
        row, folds = vectors.targets[0][0], []
        first_slot = len(vectors.table)
        if is_fused:
            rows = list(range(len(vectors.node_starts)))
            # The first slot receives the sum, those behind it what folds leave to each other.
            folds = plan_folds(rows, vectors.node_starts, [first_slot], first_slot + 1)
            if len(rows) == 1:
                folds = []
        slots = 1 + slots_of([folds])
        vector_count = sum(owner.memory().values())
        is_large = vector_count * owner.parameters.nbytes >= LARGE_BYTES
        short = LARGE_SHORT_BLOCK_BYTES if is_large else SHORT_BLOCK_BYTES
        blocks = [byte_count // dtype.itemsize for byte_count in (LONG_BLOCK_BYTES, short)]
        scratch = np.zeros((slots + 1, max(blocks)), dtype)
        share = owner.parameters.nbytes // (workers_of(group) * PIECES_PER_CORE)
        piece_bytes = min(max(share, PIECE_BYTES_MIN), PIECE_BYTES_MAX)
        # A plan has addresses only: the memory must live as long.
        self._memory = control, table = control_block(group), vectors.table
        plan, self._meeting = encode_meeting(
            *(group, control, row_addresses(table), scratch, 0, vectors.count),
            *("sum", [folds], piece_bytes, "gradients"),
        )
        optimizer, self._plan = owner.optimizer, plan
        self.kernel = sum_and_update_by(optimizer.rule.kernel)
        # A core that stores to lines which other cores have read waits until they have dropped them, line after line; past
        # the caches it need not wait, but everybody reads the lines from memory next. Which costs less depends on whether
        # the cores share a cache (./run_local.sh bench core_to_core), and on a virtual machine it changes.
        # What one core alone has read is nobody else's to drop.
        stores = (False, True) if plan[WORKERS] > 1 else (False,)
        self.ways = Trial([(block, store) for block in blocks for store in stores])
        self._arguments = (
            *(plan, scratch, row, owner.parameters, optimizer.state),
            *(optimizer.bounds, optimizer.decays, optimizer.numbers),
        )

    @property
    def wait_seconds(self) -> float:
        """Time that this rank waited for others, over all calls."""
        return waited_seconds(self._plan)

    def run(self) -> None:
        """Once. All ranks of the host."""
        self.kernel(*self._arguments, *self.ways.next())
