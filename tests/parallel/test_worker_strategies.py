"""Strategies of workers that make steps by themselves, and adasum and delayed: their updates against NumPy twins, on any rank."""

import random
import time
from dataclasses import replace

import numpy as np
import pytest

from lepton_mpi.collectives.messages.mpi import MpiTransport
from lepton_mpi.collectives.messages.unawaited import UnawaitedExchange
from lepton_mpi.collectives.within_host.published import Published
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.options import names
from lepton_mpi.options.own import completed
from lepton_mpi.registry import Registry
from lepton_mpi.strategies.adasum import combine
from lepton_mpi.strategies.strategy import Setting
from lepton_mpi.strategies.topology import PUSHING, TOPOLOGIES
from lepton_mpi.vectors import Layout
from tests.parallel.pretended import on_hosts, placements
from tests.parallel.together import refused, together

# ``mean`` is averaged, as a running statistic is; the sizes are odd, and one parameter is empty.
_LAYOUT = Layout({"w": (5, 3), "none": (0,), "b": (7,), "mean": (2,)})
_AVERAGED = {"mean": 0.25}
_TRAINED, _SIZE = 22, 24
_STEPS, _ROWS, _RATE, _MOMENTUM = 20, 3, 0.1, 0.5
_MICRO_BATCHES = 8


def _setting(world, strategy: str, own: dict | None = None, **changed) -> Setting:
    checked = completed({"strategy": strategy}, {"strategy": own} if own else {})
    optimizer = Settings("momentum", lambda step: _RATE, _MOMENTUM)
    setting = Setting(
        *(world, _LAYOUT, np.dtype(np.float64), _MICRO_BATCHES, optimizer),
        buckets=_LAYOUT.buckets(9),
        averaged=_AVERAGED,
        own=checked.get("strategy"),
        seed=5,
        strategy=strategy,
    )
    return replace(setting, **changed)


def _make(world, strategy: str, own: dict | None = None, **changed):
    make = Registry("--strategy", names.STRATEGIES).find(strategy)
    return make(_setting(world, strategy, own, **changed))


def _gradient(step: int, number: int, parameters: np.ndarray) -> np.ndarray:
    """Of a micro-batch of ``_ROWS`` rows, summed: towards a target of its own; for ``mean`` the statistic itself."""
    target = np.random.default_rng([step, number]).standard_normal(_SIZE)
    gradient = _ROWS * (parameters - target)
    gradient[_TRAINED:] = _ROWS * target[_TRAINED:]
    return gradient


def _start() -> np.ndarray:
    return np.linspace(-1, 1, _SIZE)


def _drive(strategy, steps: range = range(1, _STEPS + 1), delays: random.Random | None = None):
    """``steps`` of training on made-up gradients, and the parameters after them."""
    for step in steps:
        for number, share in zip(strategy.numbers, strategy.shares(step), strict=True):
            if delays:
                time.sleep(delays.choice((0, 0, 0.003)))
            share.vector[:] = _gradient(step, number, strategy.parameters)
        weighed = range(_MICRO_BATCHES) if strategy.weighed is None else strategy.weighed
        strategy.step(step, _ROWS * len(weighed))
    strategy.finish()
    return strategy.consensus().copy()


def _begin(world, strategy):
    if world.local_rank == 0 or not strategy.is_shared:
        strategy.parameters[:] = _start()
    world.comm.Barrier()
    return strategy


class _Twin:
    """A worker in NumPy: parameters, velocity, and the micro-batches that are its own."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers, self.w, self.v = numbers, _start(), np.zeros(_SIZE)

    def gradient(self, step: int) -> np.ndarray:
        """The sum over its rows, divided by their count."""
        found = sum(_gradient(step, number, self.w) for number in self.numbers)
        return found / (_ROWS * len(self.numbers))

    def apply(self, gradient: np.ndarray) -> None:
        """Momentum with the rate inside; ``mean`` moves towards the statistic."""
        t = slice(0, _TRAINED)
        self.v[t] = _MOMENTUM * self.v[t] - _RATE * gradient[t]
        self.w[t] += self.v[t]
        self.w[_TRAINED:] += 0.25 * (gradient[_TRAINED:] - self.w[_TRAINED:])


def _workers(count: int) -> list[_Twin]:
    bounds = np.cumsum([0] + [(_MICRO_BATCHES + count - 1 - k) // count for k in range(count)])
    return [_Twin(list(range(bounds[k], bounds[k + 1]))) for k in range(count)]


def _mean(vectors) -> np.ndarray:
    return np.mean(list(vectors), axis=0)


def _local_twin(count: int, periods) -> np.ndarray:
    workers, apart = _workers(count), 0
    for step in range(1, _STEPS + 1):
        for worker in workers:
            worker.apply(worker.gradient(step))
        apart += 1
        if apart >= periods(step):
            mean, apart = _mean(worker.w for worker in workers), 0
            for worker in workers:
                worker.w = mean.copy()
    return _mean(worker.w for worker in workers)


def _diloco_twin(count: int, every: int, rate: float, momentum: float) -> np.ndarray:
    workers, anchor, velocity = _workers(count), _start(), np.zeros(_SIZE)

    def meet():
        nonlocal anchor, velocity
        mean = _mean(worker.w for worker in workers)
        distance = anchor - mean
        velocity = momentum * velocity + distance
        anchor = anchor - rate * (distance + momentum * velocity)
        anchor[_TRAINED:], velocity[_TRAINED:] = mean[_TRAINED:], 0
        for worker in workers:
            worker.w = anchor.copy()

    for step in range(1, _STEPS + 1):
        for worker in workers:
            worker.apply(worker.gradient(step))
        if step % every == 0:
            meet()
    if _STEPS % every:
        meet()
    return anchor


def _streaming_twin(
    workers: list[_Twin], every: int, late: int, alpha: float, bounds=((0, _SIZE),)
) -> np.ndarray:
    """DiLoCo with an outer step of rate 0.6 and momentum 0.8, merged ``late`` steps after it was sent."""
    anchor, velocity, sent = _start(), np.zeros(_SIZE), {}

    def merge(part: slice, kept: float) -> None:
        mean = sent.pop(part.start)
        distance = anchor[part] - mean
        velocity[part] = 0.8 * velocity[part] + distance
        trained = np.arange(_SIZE)[part] < _TRAINED
        moved = anchor[part] - 0.6 * (distance + 0.8 * velocity[part])
        velocity[part] *= trained
        anchor[part] = np.where(trained, moved, mean)
        for worker in workers:
            worker.w[part] = kept * worker.w[part] + (1 - kept) * anchor[part]

    def send(part: slice) -> None:
        sent[part.start] = _mean(worker.w[part] for worker in workers)

    parts = [slice(*each) for each in bounds]
    offsets = [(number + 1) * every // len(parts) for number in range(len(parts))]
    for step in range(1, _STEPS + 1):
        for worker in workers:
            worker.apply(worker.gradient(step))
        for part, offset in zip(parts, offsets, strict=True):
            if part.start in sent and (step - offset) % every == late:
                merge(part, alpha)
        for part, offset in zip(parts, offsets, strict=True):
            if (step - offset) % every == 0:
                send(part)
    for part in parts:
        if part.start in sent:
            merge(part, alpha)
    for part in parts:
        send(part)
        merge(part, 0.0)
    return anchor


def _elastic_twin(count: int, every: int, elasticity: float) -> np.ndarray:
    workers, centre, strength = _workers(count), _start(), elasticity / count

    def meet():
        nonlocal centre
        before = centre.copy()
        centre = centre + strength * sum(worker.w - before for worker in workers)
        for worker in workers:
            worker.w = worker.w - strength * (worker.w - before)

    for step in range(1, _STEPS + 1):
        for worker in workers:
            worker.apply(worker.gradient(step))
        if step % every == 0:
            meet()
    meet()
    return centre


def _gossip_twin(count: int, topology: str, every: int) -> np.ndarray:
    workers, weights = _workers(count), np.ones(count)
    for step in range(1, _STEPS + 1):
        for worker in workers:
            worker.apply(worker.gradient(step))
        if step % every:
            continue
        rounds = [TOPOLOGIES[topology](count, k, step, 5) for k in range(count)]
        matrix = np.array([[r.weights.get(j, 0.0) for j in range(count)] for r in rounds])
        assert np.allclose(matrix.sum(axis=0), 1), "what is sent is lost or doubled"
        if topology not in PUSHING:
            assert np.allclose(matrix.sum(axis=1), 1)
        sent = np.array(
            [worker.w * weight for worker, weight in zip(workers, weights, strict=True)]
        )
        weights = matrix @ weights
        for k, worker in enumerate(workers):
            worker.w = (matrix @ sent)[k] / weights[k]
    total = sum(worker.w * weight for worker, weight in zip(workers, weights, strict=True))
    return total / count


def _delayed_twin() -> np.ndarray:
    worker, before = _Twin(list(range(_MICRO_BATCHES))), None
    for step in range(1, _STEPS + 1):
        gradient = worker.gradient(step)
        if before is not None:
            worker.apply(before)
        before = gradient
    worker.apply(before)
    return worker.w


def _adasum_twin(count: int) -> np.ndarray:
    worker = _Twin([])
    of_ranks = [twin.numbers for twin in _workers(count)]

    def adasum(a, b):
        out = a + b
        for start, stop in ((0, 15), (15, 22)):
            x, y = a[start:stop], b[start:stop]
            out[start:stop] = (1 - x @ y / (2 * x @ x)) * x + (1 - x @ y / (2 * y @ y)) * y
        return out

    for step in range(1, _STEPS + 1):
        gradients = []
        for numbers in of_ranks:
            total = sum(_gradient(step, number, worker.w) for number in numbers)
            total[:_TRAINED] /= _ROWS * len(numbers)
            gradients.append(total)
        whole = 1 << count.bit_length() - 1
        for extra in range(whole, count):
            gradients[extra - whole] = adasum(gradients[extra - whole], gradients[extra])
        del gradients[whole:]
        while len(gradients) > 1:
            gradients = [adasum(a, b) for a, b in zip(gradients[::2], gradients[1::2], strict=True)]
        (combined,) = gradients
        combined[_TRAINED:] /= _ROWS * _MICRO_BATCHES
        worker.apply(combined)
    return worker.w


_STREAMED = {"outer_rate": 0.6, "outer_momentum": 0.8}
_CASES = {
    "local": ("local", {"sync_every": 3}, lambda n: _local_twin(n, lambda step: 3)),
    "local, post-local": (
        *("local", {"sync_every": 5, "sync_first": 4}),
        lambda n: _local_twin(n, lambda step: 1 if step <= 4 else 5),
    ),
    "local, growing": (
        *("local", {"sync_every": 2, "sync_growth": 0.2}),
        lambda n: _local_twin(n, lambda step: 4),
    ),
    "diloco": (
        *("diloco", {"sync_every": 6, "outer_rate": 0.6, "outer_momentum": 0.8}),
        lambda n: _diloco_twin(n, 6, 0.6, 0.8),
    ),
    "diloco, overlap": (
        *("diloco", _STREAMED | {"sync_every": 6, "overlap_steps": 5}),
        lambda n: _streaming_twin(_workers(n), 6, 5, 0.5),
    ),
    "diloco, overlap of fragments": (
        "diloco",
        _STREAMED | {"sync_every": 6, "fragments": 2, "overlap_steps": 4, "overlap_mixing": 0.25},
        lambda n: _streaming_twin(_workers(n), 6, 4, 0.25, ((0, 15), (15, _SIZE))),
    ),
    "elastic": (
        "elastic",
        {"sync_every": 3, "elasticity": 0.8},
        lambda n: _elastic_twin(n, 3, 0.8),
    ),
    "delayed": ("delayed", None, lambda n: _delayed_twin()),
    "adasum": ("adasum", None, _adasum_twin),
    **{
        f"gossip, {name}": (
            *("gossip", {"topology": name, "sync_every": every}),
            lambda n, name=name, every=every: _gossip_twin(n, name, every),
        )
        for every, name in enumerate(TOPOLOGIES, 1)
    },
}


@pytest.mark.parametrize("case", _CASES)
def test_the_update_is_that_of_its_twin_whatever_the_delays(world, case):
    """20 steps; the same bits when ranks are held up by chance, and on every rank."""
    strategy, own, twin = _CASES[case]
    if strategy == "gossip" and world.size == 1:
        pytest.skip("gossip needs two ranks")
    first = _drive(_begin(world, _make(world, strategy, own)))
    delays = random.Random(f"{case} {world.rank}")
    second = _drive(_begin(world, _make(world, strategy, own)), delays=delays)
    everybody = world.comm.allgather(second)
    with together(world):
        np.testing.assert_allclose(first, twin(world.size), rtol=1e-12, atol=1e-13)
        for other in everybody:
            np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("workers", ["ranks", "hosts"])
def test_fragments_of_diloco_end_where_all_meet_at_once_if_that_is_at_every_step(world, workers):
    """With as many fragments as there are places for, each meets as often; H = 1 makes them meet together."""
    own = {"sync_every": 1, "outer_rate": 1.0, "outer_momentum": 0.0, "workers": workers}
    whole = _drive(_begin(world, _make(world, "diloco", own)))
    parts = _drive(_begin(world, _make(world, "diloco", own | {"fragments": 3})))
    with together(world):
        np.testing.assert_allclose(parts, whole, rtol=1e-13, atol=1e-14)


def test_fragments_meet_in_turn(world):
    """Each fragment is averaged when it is due, and not when another is: as in NumPy."""
    own = {"sync_every": 4, "outer_rate": 1.0, "outer_momentum": 0.0, "fragments": 2}
    strategy = _begin(world, _make(world, "diloco", own))
    found = _drive(strategy)
    workers, bounds = _workers(world.size), [(0, 15), (15, _SIZE)]
    for step in range(1, _STEPS + 1):
        for worker in workers:
            worker.apply(worker.gradient(step))
        for number, part in enumerate(slice(*each) for each in bounds):
            if step % 4 == (2 * number + 2) % 4:
                mean = _mean(worker.w[part] for worker in workers)
                for worker in workers:
                    worker.w[part] = mean
    with together(world):
        np.testing.assert_allclose(found, _mean(w.w for w in workers), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("workers", ["ranks", "hosts"])
@pytest.mark.parametrize("placement", range(4))
def test_overlap_between_hosts_is_that_of_its_twin_whatever_the_delays(world, workers, placement):
    """Two fragments under way at once; a rank worker's part goes through the memory of its host, a host worker's by lanes."""
    ways = placements(world.size)
    if placement >= len(ways):
        pytest.skip("no more ways to place so few ranks")
    with on_hosts(world, ways[placement]) as group:
        twins = _workers(group.size)
        if workers == "hosts":
            numbers = [twin.numbers for twin in twins]
            runs = [numbers[places.start : places.stop] for places in group.places_of_hosts]
            twins = [_Twin([number for run in of_host for number in run]) for of_host in runs]
        own = _STREAMED | {"sync_every": 6, "fragments": 2, "overlap_steps": 4, "workers": workers}
        first = _drive(_begin(group, _make(group, "diloco", own)))
        delays = random.Random(f"{placement} {group.rank}")
        strategy = _begin(group, _make(group, "diloco", own))
        second = _drive(strategy, delays=delays)
        hidden = strategy.figures()["hidden_share"]
        everybody = group.comm.allgather(second)
        expected = _streaming_twin(twins, 6, 4, 0.5, ((0, 15), (15, _SIZE)))
        with together(world):
            np.testing.assert_allclose(first, expected, rtol=1e-12, atol=1e-13)
            assert 0 < hidden <= 1
            for other in everybody:
                np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("workers", ["ranks", "hosts"])
@pytest.mark.parametrize(("fragments", "late"), [(1, 0), (3, 0), (1, 3), (3, 5)])
def test_rounds_go_on_across_epochs(world, workers, fragments, late):
    """A pause changes no bit of what comes, and shows the parameters of the last meeting, the same on all ranks."""
    own = {"sync_every": 6, "outer_rate": 0.6, "outer_momentum": 0.8, "workers": workers}
    own |= {"fragments": fragments, "across_epochs": True, "overlap_steps": late}
    whole = _drive(_begin(world, _make(world, "diloco", own)))
    paused, shown = _begin(world, _make(world, "diloco", own)), [_start()]
    drive, finish = _drive, paused.finish
    paused.finish = paused.pause
    for first in range(1, _STEPS - 4, 4):
        shown.append(drive(paused, range(first, first + 4)))
    meetings = paused.meetings
    paused.finish = finish
    found = drive(paused, range(_STEPS - 3, _STEPS + 1))
    everybody = world.comm.allgather([each.tobytes() for each in shown])
    with together(world):
        np.testing.assert_array_equal(found, whole)
        assert all(other == everybody[0] for other in everybody)
        assert (paused.consensus() == found).all()
        if fragments == 1 and not late:
            # After 4 steps none has met, after 8 and 12 once and twice, after 16 still twice.
            np.testing.assert_array_equal(shown[1], shown[0])
            assert meetings == 2 and (shown[2] != shown[1]).any() and (shown[3] != shown[2]).any()
            np.testing.assert_array_equal(shown[4], shown[3])


@pytest.mark.parametrize("strategy", ["local", "diloco", "hierarchical"])
def test_hosts_as_workers_are_synchronous_inside(world, strategy):
    """On one host that is ``sync``, bit for bit for ``local``."""
    if world.host_count > 1:
        pytest.skip("for one host")
    sync = _drive(_begin(world, _make(world, "sync")))
    own = {"sync_every": 4} | ({} if strategy == "hierarchical" else {"workers": "hosts"})
    if strategy == "diloco":
        own |= {"outer_rate": 1.0, "outer_momentum": 0.0}
    found = _drive(_begin(world, _make(world, strategy, own)))
    with together(world):
        if strategy == "diloco":
            np.testing.assert_allclose(found, sync, rtol=1e-13)
        else:
            np.testing.assert_array_equal(found, sync)


def test_local_with_a_period_of_1_is_sync(world):
    """For an optimizer that is linear in the gradient, to 1e-12; the rows of the workers are as many here."""
    if _MICRO_BATCHES % world.size:
        pytest.skip("workers with other numbers of rows weigh the same in the mean")
    sync = _drive(_begin(world, _make(world, "sync")))
    local = _drive(_begin(world, _make(world, "local", {"sync_every": 1})))
    with together(world):
        np.testing.assert_allclose(local, sync, rtol=1e-12, atol=1e-13)


def test_gossip_with_all_is_averaging(world):
    """``complete`` after each step is ``local`` with a period of 1, to 1e-12."""
    if world.size == 1:
        pytest.skip("gossip needs two ranks")
    local = _drive(_begin(world, _make(world, "local", {"sync_every": 1})))
    gossip = _drive(_begin(world, _make(world, "gossip", {"topology": "complete"})))
    with together(world):
        np.testing.assert_allclose(gossip, local, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("clip_norm", [0.5, 1e9])
def test_delayed_clips_the_sum(world, clip_norm):
    """With a norm that clips, the parameters are others; with one that does not, the same bits."""
    plain = _drive(_begin(world, _make(world, "delayed")))
    clipped = _drive(_begin(world, _make(world, "delayed", clip_norm=clip_norm)))
    with together(world):
        assert np.array_equal(plain, clipped) == (clip_norm > 1)


@pytest.mark.parametrize("case", _CASES)
def test_state_and_parameters_of_the_end_are_all_there_is_to_go_on_from(world, case):
    """20 steps, and 12 and 8 with everything written down and read between: the same bits if workers have met there."""
    strategy, own, _ = _CASES[case]
    if strategy == "gossip" and world.size == 1:
        pytest.skip("gossip needs two ranks")
    through = _begin(world, _make(world, strategy, own))
    half = _drive(through, range(1, 13))
    state = {name: vector.copy() for name, vector in through.state().items()}
    whole = _drive(through, range(13, _STEPS + 1))
    other = _make(world, strategy, own)
    if world.local_rank == 0 or not other.is_shared:
        other.restore(half, state)
    world.comm.Barrier()
    resumed = _drive(other, range(13, _STEPS + 1))
    with together(world):
        np.testing.assert_array_equal(whole, resumed)


@pytest.mark.parametrize("locks", [True, False])
def test_updates_of_bounded_in_turn(world, locks):
    """Ranks that take turns, in an order that is known, give what NumPy gives: each update at a part of the rate."""
    if world.host_count > 1:
        pytest.skip("between hosts updates act when their messages arrive")
    strategy = _begin(world, _make(world, "bounded", {"staleness": 1, "locks": locks}))
    twin, workers = _Twin([]), _workers(world.size)
    for step in range(1, _STEPS + 1):
        for rank in (range(world.size), range(world.size - 1, -1, -1))[step % 2]:
            worker = workers[world.places_of_hosts[0][rank]]
            worker.w = twin.w
            gradient = worker.gradient(step)
            rate = _RATE * len(worker.numbers) / _MICRO_BATCHES
            t = slice(0, _TRAINED)
            twin.v[t] = _MOMENTUM * twin.v[t] - rate * gradient[t]
            twin.w[t] += twin.v[t]
            twin.w[_TRAINED:] += 0.25 / world.size * (gradient[_TRAINED:] - twin.w[_TRAINED:])
            if world.rank == rank:
                for number, given in zip(strategy.numbers, strategy.shares(step), strict=True):
                    given.vector[:] = _gradient(step, number, strategy.parameters)
                # Waits for nobody: the others are at most a step behind.
                strategy.step(step, _ROWS * len(strategy.numbers))
            elif step == 1:
                strategy.shares(step)  # all ranks meet before the first update
            world.comm.Barrier()
    strategy.finish()
    with together(world):
        np.testing.assert_allclose(strategy.consensus(), twin.w, rtol=1e-12, atol=1e-13)


def test_nobody_is_further_ahead_than_allowed(world):
    """By chance delays; all updates act, each once: with gradients that do not depend on parameters their sum is known."""
    staleness = 2
    strategy = _begin(
        world,
        _make(
            world,
            "bounded",
            {"staleness": staleness},
            optimizer=Settings("sgd", lambda step: 0.1, 0.0),
            averaged={},
        ),
    )
    delays, made = random.Random(world.rank), world.host_array((world.local_size,), np.int64)
    apart = 0
    for step in range(1, 2 * _STEPS + 1):
        for number, given in zip(strategy.numbers, strategy.shares(step), strict=True):
            time.sleep(delays.choice((0, 0, 0.004)))
            given.vector[:] = _gradient(step, number, _start())
        apart = max(apart, int(step - 1 - made.min()))
        made[world.local_rank] = step
        strategy.step(step, _ROWS * len(strategy.numbers))
    strategy.finish()
    expected = _start()
    for worker in _workers(world.size):
        for step in range(1, 2 * _STEPS + 1):
            total = sum(_gradient(step, number, _start()) for number in worker.numbers)
            expected -= 0.1 / _MICRO_BATCHES * total / _ROWS
    everybody = world.comm.allgather(strategy.consensus().copy())
    with together(world):
        assert apart <= staleness
        np.testing.assert_allclose(everybody[0], expected, rtol=1e-11, atol=1e-12)
        for other in everybody:
            np.testing.assert_array_equal(other, everybody[0])


@pytest.mark.parametrize("topology", ["ring", "one_peer", "complete"])
def test_asynchronous_gossip_in_turn(world, topology):
    """Ranks that take turns, one of them every other step only, give what NumPy gives: the newest of each, once."""
    if world.size == 1 or world.host_count > 1:
        pytest.skip("for two ranks or more of one host")
    strategy = _begin(world, _make(world, "gossip", {"topology": topology, "asynchronous": True}))
    workers, turns = _workers(world.size), np.zeros(world.size, int)
    published: dict[int, tuple[int, np.ndarray]] = {}
    taken = np.zeros((world.size, world.size), int)
    for step in range(1, 2 * _STEPS + 1):
        for rank in (range(world.size), range(world.size - 1, -1, -1))[step % 2]:
            if turns[rank] == _STEPS or (rank == 0 and step % 2 and step < 2 * _STEPS):
                continue
            turns[rank] += 1
            turn = int(turns[rank])
            worker = workers[rank]
            worker.apply(worker.gradient(turn))
            published[rank] = turn, worker.w.copy()
            heard = [worker.w]
            for source in TOPOLOGIES[topology](world.size, rank, turn, 5).weights:
                version, vector = published.get(source, (0, worker.w))
                if source != rank and version > taken[rank, source]:
                    taken[rank, source] = version
                    heard.append(vector)
            worker.w = _mean(heard)
            if world.rank == rank:
                for number, given in zip(strategy.numbers, strategy.shares(turn), strict=True):
                    given.vector[:] = _gradient(turn, number, strategy.parameters)
                strategy.step(turn, _ROWS * len(strategy.numbers))  # waits for nobody
            world.comm.Barrier()
    before = strategy.parameters.copy()
    strategy.finish()
    heard = strategy.figures()["heard_per_exchange"]
    everybody = world.comm.allgather(strategy.consensus().copy())
    with together(world):
        np.testing.assert_allclose(before, workers[world.rank].w, rtol=1e-12, atol=1e-13)
        expected = _mean(worker.w for worker in workers)
        np.testing.assert_allclose(everybody[0], expected, rtol=1e-12, atol=1e-13)
        for other in everybody:
            np.testing.assert_array_equal(other, everybody[0])
        assert heard > 0 and not strategy.reproducible


def test_asynchronous_gossip_hears_nothing_from_before_a_meeting(world):
    """Rank 0, the first to step, has not taken what the others published then; after all have met it is part of the mean."""
    if world.size == 1 or world.host_count > 1:
        pytest.skip("for two ranks or more of one host")
    own = {"topology": "complete", "asynchronous": True}
    strategy, worker = _begin(world, _make(world, "gossip", own)), _workers(world.size)[0]

    def step(number: int) -> None:
        for micro_batch, given in zip(strategy.numbers, strategy.shares(number), strict=True):
            given.vector[:] = _gradient(number, micro_batch, strategy.parameters)
        strategy.step(number, _ROWS * len(strategy.numbers))

    for rank in range(world.size):
        if world.rank == rank:
            step(1)
        world.comm.Barrier()
    strategy.finish()
    # The velocity is a mean as well.
    worker.w, worker.v = strategy.parameters.copy(), strategy.state()["velocity"].copy()
    if world.rank == 0:
        step(2)
        worker.apply(worker.gradient(2))
    with together(world):
        if world.rank == 0:
            np.testing.assert_allclose(strategy.parameters, worker.w, rtol=1e-12, atol=1e-13)


def test_asynchronous_gossip_of_two_runs(world):
    """The second begins while the first, which has ended, is still there; of one tag, messages of the second reach the second."""
    if world.size == 1:
        pytest.skip("for two ranks or more")
    others = [rank for rank in range(world.size) if rank != world.rank]
    comm, kept = world.comm.Dup(), []
    for run in range(3):
        exchange = UnawaitedExchange(
            3, np.dtype(np.float64), MpiTransport(comm, 20), MpiTransport(comm, 21), others, others
        )
        kept.append(exchange)
        for other in others:
            assert exchange.offer(other, np.full(3, 10.0 * run + world.rank))
        heard, end = {}, time.monotonic() + 20
        while len(heard) < len(others) and time.monotonic() < end:
            heard |= {source: vector.tolist() for source, vector in exchange.arrived()}
        list(exchange.arrived())  # leaves receives open, as the last step of an epoch does
        with together(world):
            assert heard == {other: [10.0 * run + other] * 3 for other in others}
        exchange.finish(dict.fromkeys(others, 1), lambda: None)
        comm.Barrier()
    kept.clear()
    comm.Free()
    with on_hosts(world, [rank % 2 for rank in range(world.size)]) as group:
        ends = []
        for _ in range(2):
            own = {"topology": "complete", "asynchronous": True}
            strategy = _begin(group, _make(group, "gossip", own))
            kept.append(strategy)
            ends.append(_drive(strategy))
        with together(world):
            assert all(np.isfinite(end).all() for end in ends)
        kept.clear()


@pytest.mark.parametrize("topology", sorted(set(TOPOLOGIES) - {"random_push"}))
@pytest.mark.parametrize("placement", range(-1, 4))
def test_asynchronous_gossip_ends_near_the_optimum_whatever_the_delays(world, topology, placement):
    """Over one host and over several: all meet at each end, with the same bits, and go on."""
    ways = [[0] * world.size, *placements(world.size)]
    if world.size == 1 or placement + 1 >= len(ways):
        pytest.skip("no more ways to place so few ranks")
    target = np.linspace(3, 4, _SIZE)
    with on_hosts(world, ways[placement + 1]) as group:
        optimizer = Settings("sgd", lambda step: 0.1, 0.0)
        own = {"topology": topology, "asynchronous": True}
        strategy = _begin(group, _make(group, "gossip", own, optimizer=optimizer, averaged={}))
        delays, ends = random.Random(f"{topology} {group.rank}"), []
        # A rank that begins late hears old parameters for a whole epoch; the next ones are even.
        for epoch in range(6):
            for step in range(1 + _STEPS * epoch, 1 + _STEPS * (epoch + 1)):
                for share in strategy.shares(step):
                    time.sleep(delays.choice((0, 0, 0.001)) * (group.rank == 0))
                    noise = np.random.default_rng([step, share.number]).standard_normal(_SIZE)
                    share.vector[:] = strategy.parameters - target + 0.01 * noise
                strategy.step(step, len(strategy.numbers))
            strategy.finish()
            ends.append(strategy.consensus().copy())
        everybody = group.comm.allgather([end.tobytes() for end in ends])
        heard = strategy.figures()["heard_per_exchange"]
        with together(world):
            assert all(other == everybody[0] for other in everybody)
            np.testing.assert_allclose(ends[-1], target, atol=0.05)
            assert 0 < heard < group.size


def test_what_is_published_is_whole_and_newer(world):
    """One rank writes as fast as it can what others read: no vector is of two versions, none is taken twice."""
    published = Published(world, 40_000, np.dtype(np.float64))
    world.comm.Barrier()
    found, out, whole = [], np.zeros(40_000), True
    if world.local_rank == 0:
        for version in range(1, 301):
            published.publish(np.full(40_000, float(version)))
    else:
        end = time.monotonic() + 30
        while (not found or found[-1] < 300) and time.monotonic() < end:
            if published.take(0, out):
                whole &= bool((out == out[0]).all())
                found.append(float(out[0]))
    world.comm.Barrier()
    with together(world):
        assert whole and found == sorted(set(found))
        assert world.local_rank == 0 or found[-1] == 300
        assert not published.take(0, out) or world.local_rank == 0


def test_bounded_by_nothing_is_sync(world):
    """Bit for bit."""
    sync = _drive(_begin(world, _make(world, "sync")))
    bounded = _drive(_begin(world, _make(world, "bounded", {"staleness": 0})))
    with together(world):
        np.testing.assert_array_equal(bounded, sync)


def test_adasum_of_equal_and_of_orthogonal_gradients():
    """Equal ones are averaged, orthogonal ones added, and nothing is as good as 0."""
    a, b = np.array([3.0, 0.0, 4.0]), np.array([0.0, 2.0, 0.0])
    for left, right, expected in ((a, a, a), (a, b, a + b), (a, 0 * a, a), (0 * a, 0 * a, 0 * a)):
        found = left.copy()
        combine(found, right.copy(), [(0, 3)])
        np.testing.assert_allclose(found, expected, rtol=1e-15)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("count", [2, 3, 4, 5, 7, 8])
def test_targets_and_sources_of_a_topology_agree(topology, count):
    """Who is sent to expects it, nobody sends to itself, and over the rounds everybody hears of everybody."""
    reach = np.eye(count)
    for number in range(40):
        rounds = [TOPOLOGIES[topology](count, k, number, 3) for k in range(count)]
        for k, of_k in enumerate(rounds):
            assert k not in of_k.targets and len(set(of_k.targets)) == len(of_k.targets)
            for target in of_k.targets:
                assert k in rounds[target].weights
            assert set(of_k.weights) - {k} == {j for j, r in enumerate(rounds) if k in r.targets}
        reach = np.array([[r.weights.get(j, 0.0) for j in range(count)] for r in rounds]) @ reach
    assert (reach > 0).all()


def test_what_does_not_fit_is_refused_on_every_rank(world):
    """Before the first step, with what to take."""
    with refused(world, ConfigurationError, "--fragments", "at most", "3"):
        _make(world, "diloco", {"fragments": 9})
    with refused(world, ConfigurationError, "--overlap-steps", "fewer steps", "--sync-every"):
        _make(world, "diloco", {"sync_every": 4, "overlap_steps": 4})
    if world.size > 1:
        for name in ("local", "diloco", "elastic", "gossip", "bounded", "adasum"):
            with refused(world, ConfigurationError, f"--strategy {name}: ", "--micro-batch"):
                _make(world, name, micro_batch_count=world.size - 1)
        with refused(
            world, ConfigurationError, "--asynchronous", "random_push", "--topology random"
        ):
            _make(world, "gossip", {"topology": "random_push", "asynchronous": True})
        with refused(world, ConfigurationError, "--topology random_push", "--clip-norm"):
            _make(world, "gossip", {"topology": "random_push"}, clip_norm=1.0)
    else:
        with refused(world, ConfigurationError, "expected two ranks", "--strategy sync"):
            _make(world, "gossip")
    with refused(world, ConfigurationError, "--strategy delayed", "--allreduce auto"):
        _make(world, "delayed", allreduce="ring")
