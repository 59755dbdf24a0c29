"""Copies in memory of the host, with threads as ranks: a rank that is lost while they make room leaves no room that only some have."""

import gc
import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from lepton_mpi.options.config import Config
from lepton_mpi.run.checkpoint import Checkpoint
from lepton_mpi.run.elastic import Points, train
from lepton_mpi.run.resume import Start
from lepton_mpi.run.snapshot import Snapshot
from lepton_mpi.vectors import Layout
from lepton_mpi.world import shared_memory
from lepton_mpi.world.losses import RankLostError
from tests.serial.thread_ranks import on_ranks


class _Strategy:
    """Rank 0's vectors are copied; state may come later."""

    def __init__(self) -> None:
        self.vectors = {"/parameters": np.arange(10, dtype=np.float32)}

    def consensus(self):
        return self.vectors["/parameters"]

    def state(self):
        return {name: vector for name, vector in self.vectors.items() if name != "/parameters"}

    def copies_at_end(self):
        return []


class _Run:
    """What a snapshot asks of a run; on the ranks of ``fails`` the room of that number is not made, as where another is lost."""

    def __init__(self, world, fails=None) -> None:
        self.world, self.strategy = world, _Strategy()
        world.host_comm, world.Barrier = world, lambda: world.allgather(None)
        world.host_barrier = world.Barrier
        count = [0]

        def host_array(shape, dtype, name):
            found = shared_memory.host_array(world, shape, dtype, name)
            count[0] += 1
            if fails and world.rank in fails and count[0] == fails[world.rank]:
                raise RankLostError
            return found

        world.host_array = host_array


def _made(run, rooms):
    """Whether it was made; every rank comes back, as from a meeting that a loss has ended."""
    world, barrier = run.world, run.world.host_barrier
    try:
        world.host_barrier = lambda: None  # nobody is waited for any more
        Snapshot(run, rooms)
        return True
    except RankLostError:
        return False
    finally:
        world.host_barrier = barrier
        world.allgather(None)


def _shared(run, rooms) -> list[float]:
    """What rank 0 has put into a room that all see."""
    copy = Snapshot(run, rooms)
    if run.world.rank == 0:
        run.strategy.vectors["moment"] = np.full(3, 7, np.float64)
    copy.take()
    run.world.host_barrier()
    found = [*rooms["/parameters"].tolist(), *rooms["moment"].tolist()]
    run.world.host_barrier()
    return found


@pytest.mark.parametrize("lost_on", [0, 1])
def test_a_room_that_some_have_made_is_made_anew(lost_on):
    """Whoever came back without it; the others would not come to where it is made."""

    def rank(world):
        run, rooms = _Run(world, fails={lost_on: 1}), {}
        assert _made(run, rooms) == (world.rank != lost_on)
        assert bool(rooms) == (world.rank != lost_on)
        return _shared(_Run(world), rooms)

    expected = [*map(float, range(10)), 7.0, 7.0, 7.0]
    assert on_ranks(2, rank) == [expected, expected]


def test_what_all_have_stays():
    """It may be what the run goes on from."""

    def rank(world):
        rooms = {}
        _shared(_Run(world), rooms)
        before = dict(rooms)
        rooms.update({"of one": np.zeros(1)} if world.rank else {})
        Snapshot(_Run(world), rooms)
        return rooms.keys() == before.keys() and all(rooms[n] is before[n] for n in rooms)

    assert on_ranks(3, rank) == [True] * 3


def test_where_no_copy_counts_no_room_is_left():
    """Ranks of which one alone has made room ask all for memory again, or none."""
    world = SimpleNamespace(least=lambda value: value, has_joined=False)
    points = Points(Config())
    points._rooms[0]["/parameters"] = np.zeros(4)
    assert points.newest(world) == Start(begins_again=True)
    assert points._rooms == [{}, {}]
    points._rooms[1]["/parameters"] = np.ones(2)
    points._base = points._taken = 1
    points._starts[1], points._sees[1] = Start(step=7), True
    assert points.newest(world) == Start(step=7) and points._rooms[1]


class _Held:
    """What a run holds, in a circle, as a run is."""

    def __init__(self) -> None:
        self.itself = self


def test_what_runs_that_are_gone_hold_is_bounded(monkeypatch):
    """However many are lost: at most 256 MiB by what was predicted of each, and so does the collector not come each time."""
    collections, collect = [], gc.collect
    monkeypatch.setattr(gc, "collect", lambda: collections.append(collect()))
    held, most = [], 0
    losses = SimpleNamespace(explain=lambda error: type(error) is RankLostError, noticed=0.0)
    world = SimpleNamespace(
        losses=losses,
        host_count=1,
        has_joined=False,
        can_agree_to_stop=True,
        rank=0,
        size=9,
        agreeing=nullcontext,
        go_on=lambda: [1],
        least=lambda value: value,
    )

    def train_once(config, start, on_built):
        nonlocal most
        most = max(most, sum(each() is not None for each in held))
        if len(held) == 8:
            return {}
        on_built.__self__.run_bytes = 100 << 20
        run = _Held()
        held.append(weakref.ref(run))
        raise RankLostError

    gc.disable()
    try:
        assert train(train_once, Config(), world) == {}
    finally:
        gc.enable()
    assert most == 2 and len(collections) == 2


class _Talking(SimpleNamespace):
    """Ranks that meet as threads, one value each."""

    def least(self, value):
        return min(self.world.allgather(value))

    def broadcast(self, value):
        return self.world.allgather(value)[0]


def _points(starts: list[Start], number: int, sees: bool) -> Points:
    points = Points(Config(epochs=number + 2))
    points._base = points._taken = number
    points._starts, points._sees = starts, [sees, sees]
    points.joins.started = 4
    return points


def _newest(numbers, world):
    """Of ranks with these copies, None for one that joins: where each goes on, and what it holds."""
    number, vectors = numbers[world.rank], np.arange(4.0)
    nothing = (np.zeros(1), np.ones(1))
    saved = Checkpoint(Layout({"w": (4,)}), vectors, {"moment": vectors}, nothing, {})
    # A copy is there before all are known to have it.
    starts = [Start(step=step, saved=saved) for step in (2, 3)]
    points = Points(Config()) if number is None else _points(starts, number, True)
    talking = _Talking(world=world, rank=world.rank, has_joined=number is None)
    return points.newest(talking), points


@pytest.mark.parametrize("numbers", [(3, 3, None), (3, 3, None, None)])
def test_a_rank_that_joins_learns_where_the_others_go_on(numbers):
    """And their options, without their vectors. What others had beside the copy goes."""
    found = on_ranks(len(numbers), lambda world: _newest(numbers, world))
    for (start, points), number in zip(found, numbers, strict=True):
        assert (points._base, points.joins.started, start.step) == (3, 4, 3)
        assert points.config == found[0][1].config and points._starts[0] == Start()
        assert start.saved.parameters.size == (0 if number is None else 4)
        assert list(start.saved.state) == ([] if number is None else ["moment"])


def test_ranks_that_joined_and_have_no_copy_yet_begin_again():
    """If all others die before there is one of all; what they were told has no vectors."""

    def rank(world):
        points = _points([Start(step=4), Start(step=5)], 5, False)
        return points.newest(_Talking(world=world, rank=world.rank, has_joined=True))

    assert on_ranks(2, rank) == [Start(begins_again=True)] * 2
