"""The ways from every rank's gradient to new parameters that ``benchmarks/update.py`` compares.

    way              library      gradient          parameters, state   memory of the host, s vectors of state
    shared           lepton_mpi   shared memory     once a host         (n + 1 + s) N
    allreduce        lepton_mpi   shared memory     on every rank       n (2 + s) N
    allreduce        an MPI       a NumPy array     on every rank       n (2 + s) N, and n N of the library's own
    reduce_scatter   an MPI       a NumPy array     parameters on every rank, state in slices (ZeRO stage 1)
                                                                        2 n N + (1 + s) N, and n N of the library's own

``shared`` is ``strategies/shared_parameters.py`` as ``run/build.py`` makes it, with one micro-batch a rank. All ways
update by the same kernel, ``Optimizer.update``. An MPI is called in several forms, of which the fastest counts:
over the whole vector, and bucket by bucket, so that an update finds its bucket in the cache.
Source of ZeRO: Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter models", SC 2020.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from benchmarks.engines.update_reference import fill_parameters, settings_of
from lepton_mpi.collectives.allreduce import make_plan
from lepton_mpi.collectives.sliced_sum import choose_for_gradients
from lepton_mpi.optimizers.optimizer import Optimizer
from lepton_mpi.optimizers.registry import rule_of
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.strategies.shared_parameters import SharedParameters
from lepton_mpi.strategies.strategy import Setting
from lepton_mpi.vectors import Layout
from lepton_mpi.world.mpi import MPI
from lepton_mpi.world.world import World

DTYPE = np.dtype(np.float32)
_PAGE_BYTES = 4096


@dataclass(frozen=True)
class Problem:
    """What is updated: ``count`` parameters by ``optimizer``, in buckets of at most ``bucket`` elements."""

    count: int
    optimizer: str
    bucket: int

    @property
    def layout(self) -> Layout:
        """Tensors as long as a bucket, so that buckets are full; the last may be shorter."""
        starts = range(0, self.count, self.bucket)
        return Layout({f"part{a}": (min(self.bucket, self.count - a),) for a in starts})


class Way(Protocol):
    """One way. Making one and stepping are collective over the world."""

    gradient: np.ndarray
    parameters: np.ndarray
    steps_to_settle: int

    def step(self, step: int, row_count: int) -> None:
        """From the ``gradient`` of every rank, a sum over rows, to new ``parameters``; ``step`` counts from 1."""


class Shared:
    """The engine's own: one copy of parameters and state a host, sum and update in one pass."""

    def __init__(self, world: World, problem: Problem) -> None:
        layout = problem.layout
        choice = choose_for_gradients(world, "auto", [(0, layout.size)], DTYPE)
        settings = settings_of(problem.optimizer)
        strategy = SharedParameters(Setting(world, layout, DTYPE, world.size, settings), choice)
        (share,) = strategy.shares(1)
        self.gradient = share.vector
        self.parameters, self.step = strategy.parameters, strategy.step
        self.steps_to_settle = strategy.steps_to_settle
        if world.local_rank == 0:
            fill_parameters(self.parameters)
        world.host_barrier()


class Allreduce:
    """Every rank gets the sum and updates a copy of its own. ``sums`` are (start, stop, run) of every bucket."""

    steps_to_settle = 0

    def __init__(self, problem: Problem, gradient: np.ndarray, sums: list[tuple]) -> None:
        self.gradient, self._sums = gradient, sums
        self.parameters = _vector(problem.count)
        fill_parameters(self.parameters)
        self._optimizer = _optimizer(problem.optimizer, problem.count)

    def step(self, step: int, row_count: int) -> None:
        self._optimizer.begin_step(step, 1.0 / row_count)
        for start, stop, run in self._sums:
            run()
            self._optimizer.update(self.parameters, self.gradient, start, stop)


def mpi_allreduce(world: World, problem: Problem, bucket: int) -> Allreduce:
    """By MPI's Allreduce in place, ``bucket`` elements a call."""
    gradient = _vector(problem.count)

    def run_of(part: np.ndarray) -> Callable[[], None]:
        return lambda: world.collective_comm.Allreduce(MPI.IN_PLACE, part)

    spans = [(a, min(a + bucket, problem.count)) for a in range(0, problem.count, bucket)]
    return Allreduce(problem, gradient, [(a, b, run_of(gradient[a:b])) for a, b in spans])


def private_allreduce(world: World, problem: Problem) -> Allreduce:
    """By the engine's fastest allreduce into every rank's own vector, in one call."""
    plan = make_plan(world, problem.count, DTYPE, mode="private")
    assert np.shares_memory(plan.input, plan.result)
    return Allreduce(problem, plan.input, [(0, problem.count, plan.run)])


@dataclass(frozen=True)
class _Part:
    """A bucket: this rank's gradient of it, the parameters, its own slice of both, and what updates that."""

    gradient: np.ndarray
    parameters: np.ndarray
    own_sum: np.ndarray
    own_parameters: np.ndarray
    optimizer: Optimizer


class ReduceScatter:
    """Every rank gets the sum of its slice of each bucket, updates it, and sends the parameters to all others.

    Vectors are padded to a multiple of the number of ranks. ``by_counts`` takes the calls that are given the
    length of every slice, Reduce_scatter and Allgatherv, in place of those for slices of equal length.
    """

    steps_to_settle = 0

    def __init__(self, world: World, problem: Problem, bucket: int, by_counts: bool) -> None:
        n, rank = world.size, world.rank
        self._comm, self._by_counts = world.collective_comm, by_counts
        bucket = -(-bucket // n) * n
        padded = -(-problem.count // n) * n
        gradient, parameters = _vector(padded), _vector(padded)
        self.gradient, self.parameters = gradient[: problem.count], parameters[: problem.count]
        fill_parameters(parameters)
        self._parts = []
        own_sum = _vector(min(bucket, padded) // n)
        for start in range(0, padded, bucket):
            stop = min(start + bucket, padded)
            length = (stop - start) // n
            own = slice(start + rank * length, start + (rank + 1) * length)
            part = _Part(
                gradient[start:stop],
                parameters[start:stop],
                own_sum[:length],
                parameters[own],
                _optimizer(problem.optimizer, length),
            )
            # The numbers of a step are the same for all of them.
            part.optimizer.numbers = (self._parts or [part])[0].optimizer.numbers
            self._parts.append(part)

    def step(self, step: int, row_count: int) -> None:
        comm, n = self._comm, self._comm.size
        self._parts[0].optimizer.begin_step(step, 1.0 / row_count)
        for part in self._parts:
            length = part.own_sum.size
            if self._by_counts:
                comm.Reduce_scatter(part.gradient, part.own_sum, [length] * n)
            else:
                comm.Reduce_scatter_block(part.gradient, part.own_sum)
            part.optimizer.update(part.own_parameters, part.own_sum, 0, length)
            if self._by_counts:
                comm.Allgatherv(MPI.IN_PLACE, [part.parameters, [length] * n])
            else:
                comm.Allgather(MPI.IN_PLACE, part.parameters)


# By library, way and form.
_OURS: dict[tuple[str, str], Callable[[World, Problem], Way]] = {
    ("shared", "whole"): Shared,
    ("allreduce", "private"): private_allreduce,
}
_MPI: dict[tuple[str, str], Callable[[World, Problem], Way]] = {
    ("allreduce", "whole"): lambda w, p: mpi_allreduce(w, p, p.count),
    ("allreduce", "buckets"): lambda w, p: mpi_allreduce(w, p, p.bucket),
    ("reduce_scatter", "whole"): lambda w, p: ReduceScatter(w, p, p.count, False),
    ("reduce_scatter", "counts"): lambda w, p: ReduceScatter(w, p, p.count, True),
    ("reduce_scatter", "buckets"): lambda w, p: ReduceScatter(w, p, p.bucket, False),
}
WAYS = {**_OURS, **_MPI}


def _vector(count: int) -> np.ndarray:
    """Zeros that begin at a page; the kernel may give 2 MiB pages to long ones."""
    memory = np.zeros(count * DTYPE.itemsize + _PAGE_BYTES, np.uint8)
    offset = -memory.ctypes.data % _PAGE_BYTES
    return memory[offset : offset + count * DTYPE.itemsize].view(DTYPE)


def _optimizer(name: str, count: int) -> Optimizer:
    states = len(rule_of(Settings(name, float)).state)
    state: Any = _vector(states * count).reshape(states, count)
    return Optimizer(settings_of(name), Layout({"all": (count,)}), DTYPE, state)
