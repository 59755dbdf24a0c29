"""Groups smaller than the job run every collective, at the same time as others, and leave nothing behind."""

import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from lepton_mpi.collectives.allreduce import NAMES, SHARING, make_plan
from lepton_mpi.collectives.between_hosts.overlapped_sum import OverlappedSum
from lepton_mpi.collectives.between_hosts.two_level_plan import TwoLevelPlan
from lepton_mpi.collectives.sliced_sum import make_sliced_sum
from lepton_mpi.collectives.within_host.plans import HostBarrier, HostPlan
from lepton_mpi.collectives.within_host.vectors import HostVectors, Leaves
from lepton_mpi.errors import ConfigurationError, DataError, RankError
from lepton_mpi.world import memory
from tests.parallel.together import check, equal_everywhere, together

COUNT = 5003
MODES = [(mode, in_place) for mode in ("shared", "private", "array") for in_place in (False, True)]


def _parts(size: int) -> list[list[int]]:
    """The job cut in two, as unevenly as 2, 3 and 4 ranks allow; one part with one rank."""
    return [part for part in ([0], [*range(1, size)]) if part]


def _wrong_sums(group, algorithm: str, mode: str, in_place: bool) -> list[str]:
    """Runs in which this rank got another sum than that of the group's ranks. Collective over the group."""
    wrong = []
    array = np.zeros(COUNT, np.float32) if mode == "array" else None
    count = None if mode == "array" else COUNT
    plan = make_plan(
        *(group, count, np.float32), mode=mode, in_place=in_place, array=array, algorithm=algorithm
    )
    for run in range(3):
        plan.release()
        plan.input[:] = np.arange(COUNT) * group.size + group.rank + run
        plan.run()
        expected = sum(np.arange(COUNT) * group.size + rank + run for rank in range(group.size))
        if not np.array_equal(plan.result, expected):
            wrong.append(f"{algorithm}, {mode}, run {run}")
        if not in_place and mode == "shared":
            group.host_barrier()
    return wrong


def _all_wrong_sums(group) -> list[str]:
    """The same of every algorithm in every mode."""
    wrong = []
    for mode, in_place in MODES:
        for algorithm in NAMES:
            fits = mode != "shared" or algorithm in SHARING
            if fits and not (algorithm == "host" and group.host_count > 1):
                wrong += _wrong_sums(group, algorithm, mode, in_place)
    return wrong


def _group_with(world, groups: list[list[int]]):
    """The group of this rank, of several without a common rank."""
    (own,) = (ranks for ranks in groups if world.rank in ranks)
    return world.group(own)


def test_who_is_who(world):
    """A group of ranks in another order numbers them anew, and finds their hosts."""
    with world.group(range(world.size)[::-1]) as group:
        everybody = group.comm.allgather((group.rank, world.rank, group.local_rank))
        hosts = [[world.size - 1 - rank for rank in ranks] for ranks in group.ranks_of_hosts]
        with together(world):
            assert group.size == world.size
            assert [mine for mine, _, _ in everybody] == [*range(world.size)]
            assert [before for _, before, _ in everybody] == [*range(world.size)][::-1]
            assert sorted(map(sorted, hosts)) == sorted(world.ranks_of_hosts)
            assert group.host_ranks[group.local_rank] == group.rank
            assert group.ranks_of_hosts[group.host_index] == group.host_ranks
            assert group.clock is world.clock


def test_two_groups_of_different_sizes_at_once(world):
    """Every algorithm in every mode, while the other group does the same at its own pace."""
    with _group_with(world, _parts(world.size)) as group:
        wrong = _all_wrong_sums(group)
    with together(world):
        assert not wrong, wrong


@pytest.mark.parametrize("order", ["backwards", "shifted"])
def test_ranks_in_another_order(world, order):
    """Every algorithm in every mode on all ranks, numbered otherwise."""
    ranks = [*range(world.size)]
    ranks = ranks[::-1] if order == "backwards" else ranks[1:] + ranks[:1]
    with world.group(ranks) as group:
        wrong = _all_wrong_sums(group)
    with together(world):
        assert not wrong, wrong


def test_each_rank_a_group_of_its_own(world):
    """Every algorithm in every mode; nobody waits for anybody."""
    with world.group([world.rank]) as group:
        wrong = _all_wrong_sums(group)
        with together(world):
            assert (group.rank, group.size, group.host_count) == (0, 1, 1)
            assert not wrong, wrong


def test_overlapping_groups_in_turn(world):
    """Neighbours in pairs: a rank is in two of them, which are used one after the other."""
    pairs = [[rank, rank + 1] for rank in range(world.size - 1)]
    groups = [world.group(pair) for pair in pairs if world.rank in pair]
    wrong = []
    for _ in range(3):
        for group in groups:
            wrong += _wrong_sums(group, "auto", "private", False)
            wrong += _wrong_sums(group, "ring", "private", False)
    for group in groups:
        group.close()
    with together(world):
        assert not wrong, wrong


def test_a_group_of_a_group(world):
    """Ranks are counted in the group that it is made of."""
    half = _group_with(world, _parts(world.size))
    last = half.group([half.size - 1]) if half.rank == half.size - 1 else None
    wrong = _wrong_sums(last, "auto", "shared", False) if last else []
    together_again = _wrong_sums(half, "auto", "shared", False)
    half.close()  # and what was made of it
    with together(world):
        assert not wrong and not together_again


def _leaves(leaf_count: int) -> np.ndarray:
    """Six orders of magnitude: another order of additions gives other bits."""
    generator = np.random.default_rng(leaf_count)
    values = generator.standard_normal((leaf_count, COUNT))
    return (values * 10.0 ** generator.integers(-3, 4, (leaf_count, COUNT))).astype(np.float32)


def _tree(vectors: list[np.ndarray]) -> np.ndarray:
    """Neighbours are added in pairs, level by level."""
    while len(vectors) > 1:
        pairs = [vectors[i : i + 2] for i in range(0, len(vectors), 2)]
        vectors = [pair[0] + pair[1] if len(pair) == 2 else pair[0] for pair in pairs]
    return vectors[0]


@pytest.mark.parametrize("plan", [HostPlan, TwoLevelPlan, OverlappedSum])
@pytest.mark.parametrize("leaf_count", [1, 3, 8])
def test_bits_of_the_canonical_order(world, plan, leaf_count):
    """Those of a job of that size, which are those of one rank."""
    with _group_with(world, _parts(world.size)) as group:
        if plan is HostPlan and group.host_count > 1:
            plan = TwoLevelPlan
        leaves, values = Leaves.spread(leaf_count, group.size), _leaves(leaf_count)
        vectors = HostVectors(group, COUNT, np.float32, "shared", leaves)
        buckets = [(2000, COUNT), (0, 2000)]
        sum_ = plan(vectors, buckets) if plan is OverlappedSum else plan(vectors)
        for (start, stop), row in zip(leaves.nodes(group.place), vectors.inputs, strict=True):
            row[:] = _tree(list(values[start:stop]))
        if plan is OverlappedSum:
            sum_.begin()
            for number in range(len(buckets)):
                sum_.ready(number)
            sum_.until(lambda: all(sum_.is_complete(number) for number in range(len(buckets))))
            group.host_barrier()
        else:
            sum_.run()
        found = vectors.result.tobytes()
        group.host_barrier()
    check(world, found == _tree(list(values)).tobytes())


@pytest.mark.parametrize("algorithm", ["ring", "mpi", "mpi_persistent"])
def test_sliced_sums(world, algorithm):
    """Whole numbers, so that any order is exact."""
    slices, leaf_count = [(2000, COUNT), (0, 2000)], 5
    with _group_with(world, _parts(world.size)) as group:
        sum_ = make_sliced_sum(
            *(group, COUNT, np.dtype(np.float32), leaf_count, slices, algorithm, 4096)
        )
        wrong = []
        for run in range(2):
            values = np.arange(COUNT) % 100 + 100.0 * np.arange(leaf_count)[:, None] + run
            for (start, stop), vector in zip(sum_.nodes, sum_.inputs, strict=True):
                vector[:] = values[start:stop].sum(axis=0)
            for plan in sum_.plans:
                plan.run()
            if not np.array_equal(sum_.result, values.sum(axis=0)):
                wrong.append(run)
    check(world, not wrong, f"runs {wrong}")


def test_barriers_of_two_groups(world):
    """Nobody is through a barrier of its group before all of its host are there; other groups do not count."""
    with _group_with(world, _parts(world.size)) as group:
        barrier = HostBarrier(group)
        arrived = group.host_array((group.local_size,), np.int64)
        early = 0
        for turn in range(1, 200):
            arrived[group.local_rank] = turn
            barrier.run()
            early += int((arrived < turn).any())
            barrier.run()
    check(world, early == 0)


def test_agreement_is_among_the_group(world):
    """Its ranks raise the error of one of them; for the job it is not agreed on, since the others know nothing of it."""
    with _group_with(world, _parts(world.size)) as group:
        raised = None
        try:
            with group.agreeing():
                if group.rank == group.size - 1 and world.rank > 0:
                    raise DataError(f"of rank {world.rank}")
        except DataError as error:
            raised = error
        total = group.sum(np.array([world.rank]))
        least = group.least(world.rank)
        first = group.broadcast(world.rank)
    with together(world):
        own = [world.rank] if world.rank == 0 else [*range(1, world.size)]
        assert (total[0], least, first) == (sum(own), own[0], own[0])
        assert (raised is None) == (world.rank == 0)
        if raised:
            assert str(raised) == f"of rank {world.size - 1}" and not raised.agreed


@pytest.mark.parametrize("ranks", [[0, 0], [-1], [10_000], []], ids=str)
def test_no_group_of_ranks_that_are_none(world, ranks):
    """Refused before anything is said to anybody."""
    with pytest.raises(ConfigurationError, match="group: "):
        world.group(ranks)
    check(world, True)


def test_lists_that_differ(world):
    """The first of the ranks sees it, and all of them learn of it."""
    if world.size == 1:
        pytest.skip("one rank cannot differ from itself")
    ranks = [0, 1] if world.rank == 0 else [1, 0]
    message = None
    if world.rank < 2:
        with pytest.raises(RankError) as caught:
            world.group(ranks)
        message = str(caught.value)
    said = [text for text in world.comm.allgather(message) if text]
    with together(world):
        assert said == ["group: rank 0 lists [0, 1], rank 1 lists [1, 0]"] * 2


def test_closed_twice(world):
    """The second time does nothing."""
    group = world.group(range(world.size))
    group.close()
    group.close()
    check(world, True)


def _held(world) -> dict[str, int]:
    """Open files, threads, bytes shared with the host, and the number that a new communicator gets."""
    gc.collect()
    probe = world.comm.Dup()
    number = probe.py2f()
    probe.Free()
    return {
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "shared bytes": sum(memory.shared_bytes().values()),
        "next communicator": number,
    }


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _use_groups(world, times: int) -> list[str]:
    wrong = []
    for turn in range(times):
        parts = _parts(world.size) if turn % 2 else [[*range(world.size)][::-1]]
        with _group_with(world, parts) as group:
            for algorithm, mode in (("auto", "shared"), ("ring", "private"), ("mpi", "array")):
                wrong += _wrong_sums(group, algorithm, mode, False)
    return wrong


@pytest.mark.slow
def test_200_groups_leave_nothing(world):
    """As many open files, threads, communicators and as much memory as before."""
    wrong = _use_groups(world, 20)
    before, resident = _held(world), _resident_bytes()
    wrong += _use_groups(world, 200)
    after = _held(world)
    grown = _resident_bytes() - resident
    with together(world):
        assert not wrong, wrong
        assert after == before
        assert grown < 4 << 20, f"{grown / 2**20:.1f} MiB more"


def test_plans_over_messages_give_back_their_requests(world):
    """MPI keeps 800 bytes for each, and a plan has hundreds: 40 MiB here, if they stayed."""

    def use_plans(times: int) -> None:
        for _ in range(times):
            slices = [(0, COUNT)]
            make_sliced_sum(
                *(world, COUNT, np.dtype(np.float32), world.size, slices, "recursive_doubling", 64)
            )

    use_plans(10)
    before = _resident_bytes()
    use_plans(100)
    grown = _resident_bytes() - before
    check(world, grown < 4 << 20, f"{grown / 2**20:.1f} MiB more")


def test_the_same_everywhere(world):
    """A group of the whole job gives its ranks the same bits as the job."""
    with world.group(range(world.size)) as group:
        results = []
        for ranks in (world, group):
            plan = make_plan(ranks, COUNT)
            plan.input[:] = np.random.default_rng(world.rank).standard_normal(COUNT)
            plan.run()
            results.append(plan.result.tobytes())
    equal_everywhere(world, results[0])
    check(world, results[0] == results[1])
