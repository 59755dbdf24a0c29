"""``--compress`` with strategies of workers and with ``delayed``, over hosts that are pretended."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from lepton_mpi.chunks import chunk_bounds
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.options import names
from lepton_mpi.options.own import completed
from lepton_mpi.registry import Registry
from lepton_mpi.strategies.meetings import MeetingWorkers
from lepton_mpi.strategies.strategy import Setting
from lepton_mpi.vectors import Layout
from tests.parallel.pretended import on_hosts, placements
from tests.parallel.together import equal_everywhere, together

_LAYOUT = Layout({"w": (60, 41), "b": (41,), "mean": (7,), "v": (9, 5, 11), "u": (41, 60)})
_EXACT = slice(*_LAYOUT.bounds[2])
_MICRO_BATCHES, _ROWS, _RATE = 8, 3, 0.1
_CODECS = (
    *("fp16", "bf16", "int8", "int4", "sign", "topk:0.05", "topk:0.05,sampled", "randomk:0.05"),
    "powersgd:2",
)
_OUTER = {"outer_rate": 0.6, "outer_momentum": 0.5}
_CASES = {
    "local": ("local", {"sync_every": 3}),
    "local, hosts": ("local", {"sync_every": 3, "workers": "hosts"}),
    "diloco": ("diloco", {"sync_every": 4, **_OUTER}),
    "diloco, hosts": ("diloco", {"sync_every": 4, "workers": "hosts", **_OUTER}),
    "diloco, fragments": ("diloco", {"sync_every": 4, "fragments": 3, **_OUTER}),
    "diloco, hosts, fragments": (
        *("diloco", {"sync_every": 4, "fragments": 3, "workers": "hosts", **_OUTER}),
    ),
    "diloco, overlap": ("diloco", {"sync_every": 4, "overlap_steps": 2, **_OUTER}),
    "diloco, hosts, fragments, overlap": (
        "diloco",
        {
            **{"sync_every": 4, "fragments": 3, "workers": "hosts"},
            **{"overlap_steps": 3, "overlap_mixing": 0.25},
            **_OUTER,
        },
    ),
    "hierarchical": ("hierarchical", {"sync_every": 3}),
    "hierarchical, diloco": ("hierarchical", {"sync_every": 3, "between": "diloco"}),
}
cases = pytest.mark.parametrize("case", _CASES)
codecs = pytest.mark.parametrize("codec", _CODECS)
several = pytest.mark.parametrize("placement", range(4))


def _hosts(world, placement: int):
    """A group on several hosts; skipped where there are no more ways to place these ranks."""
    ways = placements(world.size)
    if placement >= len(ways):
        pytest.skip("no more ways to place so few ranks")
    return on_hosts(world, ways[placement])


def _make(group, name: str, own: dict | None, codec: str, **changed):
    checked = completed({"strategy": name}, {"strategy": own} if own else {})
    setting = Setting(
        *(group, _LAYOUT, np.dtype(np.float64), _MICRO_BATCHES),
        Settings("momentum", lambda step: _RATE, 0.5),
        buckets=_LAYOUT.buckets(1500),
        averaged={"mean": 0.25},
        own=checked.get("strategy"),
        compress=codec,
        seed=5,
    )
    return Registry("--strategy", names.STRATEGIES).find(name)(replace(setting, **changed))


def _begin(group, strategy):
    if group.local_rank == 0 or not strategy.is_shared:
        strategy.parameters[:] = np.linspace(-1, 1, _LAYOUT.size)
    group.host_barrier()
    return strategy


def _drive(strategy, first: int, stop: int) -> np.ndarray:
    for step in range(first, stop):
        for number, share in zip(strategy.numbers, strategy.shares(step), strict=True):
            target = np.random.default_rng([step, number]).standard_normal(_LAYOUT.size)
            share.vector[:] = _ROWS * (strategy.parameters - target)
            share.vector[_EXACT] = _ROWS * target[_EXACT]
        weighed = range(_MICRO_BATCHES) if strategy.weighed is None else strategy.weighed
        strategy.step(step, _ROWS * len(weighed))
    strategy.finish()
    return strategy.consensus().copy()


def _saved(strategy) -> dict[str, np.ndarray]:
    strategy.collect()
    return {name: vector.copy() for name, vector in strategy.state().items()}


def _restored(group, strategy, parameters: np.ndarray, state: dict[str, np.ndarray]):
    group.host_barrier()
    if group.local_rank == 0 or not strategy.is_shared:
        strategy.restore(parameters, state)
    group.host_barrier()
    return strategy


def _left(state: dict[str, np.ndarray]) -> np.ndarray:
    """Sum of all residuals."""
    found = [vector for name, vector in state.items() if name.startswith("residual.")]
    return np.sum(found, axis=0)


def test_no_codec_is_left_out():
    """One that is added is tested here, with every strategy that compresses."""
    assert {codec.partition(":")[0] for codec in _CODECS} | {"none"} == names.CODECS.keys()


class _Meetings:
    """What workers had before each mean, and the mean that they took; per rank."""

    def __init__(self, group, strategy: MeetingWorkers, monkeypatch) -> None:
        self.given, self.moved = np.zeros((2, _LAYOUT.size))
        self._group, self._strategy = group, strategy
        leaders = range(group.size) if not strategy.is_shared else []
        self._leaders = leaders or [ranks[0] for ranks in group.ranks_of_hosts]
        bounds = np.cumsum([0, *(size // 8 for size in strategy._fragment_bytes)])
        self._spans = [slice(*each) for each in pairwise(bounds)]
        self._means: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        take_mean, give, take = strategy._take_mean, strategy._give, strategy._take

        def taken_mean(number: int) -> None:
            self._before(number)
            take_mean(number)
            group.host_barrier()
            self._after(number, strategy.parameters)

        def given(number: int) -> None:
            self._before(number)
            give(number)

        def taken(number: int) -> list[np.ndarray]:
            parts, whole = take(number), np.zeros(_LAYOUT.size)
            for span, part in zip(strategy.spans[number], parts, strict=True):
                whole[span] = part
            # The ranks of a host worker have a part each.
            of_ranks = group.comm.allgather(whole) if strategy.is_shared else [whole]
            host = group.ranks_of_hosts[group.host_index]
            self._after(
                number, sum(of_ranks[rank] for rank in host) if strategy.is_shared else whole
            )
            return parts

        monkeypatch.setattr(strategy, "_take_mean", taken_mean)
        monkeypatch.setattr(strategy, "_give", given)
        monkeypatch.setattr(strategy, "_take", taken)

    def _before(self, number: int) -> None:
        """What workers have, and what they began from."""
        self._group.host_barrier()
        everybody = np.array(self._group.comm.allgather(self._strategy.parameters.copy()))
        mean = np.mean([everybody[rank] for rank in self._leaders], axis=0)
        self._means[number] = mean, self._strategy.anchor.copy()
        self._group.host_barrier()

    def _after(self, number: int, found: np.ndarray) -> None:
        """The mean that was taken."""
        span, (mean, anchor) = self._spans[number], self._means[number]
        self.given[span] += (mean - anchor)[span]
        self.moved[span] += (found - anchor)[span]
        if span.start <= _EXACT.start < span.stop:
            np.testing.assert_allclose(found[_EXACT], mean[_EXACT], rtol=1e-13)
        self._group.host_barrier()


@pytest.mark.slow(but_every=6)
@cases
@codecs
@several
def test_workers_end_with_the_same_bits_and_nothing_is_lost(
    world, case, codec, placement, monkeypatch
):
    """All means that were taken, and the residuals, are all means there were; what is averaged only is exact."""
    with _hosts(world, placement) as group:
        strategy = _begin(group, _make(group, *_CASES[case], codec))
        meetings = _Meetings(group, strategy, monkeypatch)
        found = _drive(strategy, 1, 11)
        state = _saved(strategy)
        equal_everywhere(world, found.tobytes())
        equal_everywhere(world, {name: vector.tobytes() for name, vector in state.items()})
        with together(world):
            left = _left(state)
            np.testing.assert_allclose(meetings.moved + left, meetings.given, atol=1e-12)
            assert np.abs(left).max() > 1e-7 and not left[_EXACT].any()
            assert not strategy.reproducible
            assert str(strategy).endswith(f"between hosts {codec}")
            assert strategy.facts()["compress"] == codec


@pytest.mark.slow(but_every=5)
@cases
@pytest.mark.parametrize(("codec", "tolerance"), [("fp16", 2e-4), ("int8", 0.03), ("none", 0)])
@several
def test_means_are_close_to_those_of_no_codec(world, case, codec, tolerance, placement):
    """In parts of the distance that parameters have gone."""
    with _hosts(world, placement) as group:
        plain = _drive(_begin(group, _make(group, *_CASES[case], "none")), 1, 11)
        found = _drive(_begin(group, _make(group, *_CASES[case], codec)), 1, 11)
        with together(world):
            gone = np.linalg.norm(plain - np.linspace(-1, 1, _LAYOUT.size))
            assert np.linalg.norm(found - plain) <= tolerance * gone
            # Sums of 20 steps at most differ by their order.
            assert (codec == "none") == bool(np.array_equal(found, plain))


@pytest.mark.parametrize("case", ["local", "diloco, hosts, fragments"])
@pytest.mark.parametrize("codec", ["sign", "topk:0.05", "powersgd:2"])
def test_a_warm_up_is_a_run_without_a_codec(world, case, codec):
    """To rounding, its last meeting included; the next one leaves something out."""
    name, own = _CASES[case]
    with _hosts(world, 0) as group:
        plain = _begin(group, _make(group, name, own, "none"))
        warm = _begin(group, _make(group, name, own, codec, compress_after=8))
        one, other = (_drive(strategy, 1, 9) for strategy in (plain, warm))
        saved = _saved(warm)
        later = _drive(plain, 9, 13), _drive(warm, 9, 13)
        equal_everywhere(world, later[1].tobytes())
        left = _left(_saved(warm))
        with together(world):
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-12)
            assert not _left(saved).any()
            assert np.abs(later[1] - later[0]).max() > 1e-6 and left.any()


@pytest.mark.slow(but_every=5)
@cases
@codecs
def test_a_run_that_goes_on_has_the_bits_of_one_that_did_not_stop(world, case, codec):
    """On as many hosts, from a meeting in the middle of H steps."""
    with _hosts(world, 0) as group:
        through = _begin(group, _make(group, *_CASES[case], codec))
        half = _drive(through, 1, 6)
        state = _saved(through)
        whole = _drive(through, 6, 11)
        other = _restored(group, _make(group, *_CASES[case], codec), half, state)
        resumed = _drive(other, 6, 11)
        ends = _saved(through), _saved(other)
        with together(world):
            np.testing.assert_array_equal(resumed, whole)
            for name, vector in ends[0].items():
                np.testing.assert_array_equal(ends[1][name], vector, err_msg=name)


@pytest.mark.slow(but_every=5)
@cases
@codecs
def test_residuals_of_other_hosts_are_kept(world, case, codec):
    """From as many hosts as ranks to two; on one host the first steps begin with what was left out."""
    if world.size == 1:
        pytest.skip("one rank is on one host")
    with _hosts(world, len(placements(world.size)) - 1) as group:
        first = _begin(group, _make(group, *_CASES[case], codec))
        parameters = _drive(first, 1, 6)
        state = _saved(first)
    with _hosts(world, 0) as group:
        second = _restored(group, _make(group, *_CASES[case], codec), parameters, state)
        now = _saved(second)
        group.host_barrier()
    with world.group([world.rank]) as group:
        third = _restored(group, _make(group, *_CASES[case], codec), parameters, state)
        still = third.state()["residual.0"].copy()
        list(third.shares(6))
        begun, names_then, said = third.parameters.copy(), set(third.state()), str(third)
    with together(world):
        np.testing.assert_allclose(_left(now), _left(state), atol=1e-13)
        np.testing.assert_allclose(still, _left(state), atol=1e-13)
        np.testing.assert_allclose(begun, parameters + _left(state), atol=1e-13)
        assert "residual.0" not in names_then
        assert said.endswith("one host: nothing is compressed")


@cases
@several
def test_bytes_sent_are_those_of_the_formula(world, case, placement):
    """int8, at each meeting: 2 (H - 1) payloads of each part of each lane's slice; of 2 hosts, each sends all of the slice."""
    name, own = _CASES[case]
    if "fragments" in own:
        pytest.skip("fragments have slices of their own")
    with _hosts(world, placement) as group:
        more = {"averaged": {}, "buckets": [(0, _LAYOUT.size)], "dtype": np.dtype(np.float32)}
        strategy = _begin(group, _make(group, name, own, "int8", **more))
        _drive(strategy, 1, 6)
        figures = strategy.figures()
        lanes, hosts, total = group.lane_count, group.host_count, 0
        for slice_ in np.diff(chunk_bounds(_LAYOUT.size, lanes)):
            for part in [slice_] if hosts == 2 else np.diff(chunk_bounds(int(slice_), hosts)):
                total += 2 * (hosts - 1) * int(part + 4 * -(-part // 1024))
        meetings = figures["meetings"]
        with together(world):
            assert meetings == 2
            assert figures["sent_bytes_per_step"] == meetings * total / 5
            plain = meetings * 2 * (hosts - 1) * 4 * _LAYOUT.size
            assert figures["compression_ratio"] == pytest.approx(plain / (meetings * total))


@pytest.mark.parametrize("codec", ["none", "int8"])
def test_a_host_with_fragments_is_synchronous_inside(world, codec):
    """On one host of all ranks, each of which has a part of some fragments: nobody waits for ever."""
    own = {"sync_every": 4, "fragments": 3, "workers": "hosts"}
    own |= {"outer_rate": 1.0, "outer_momentum": 0.0}
    with on_hosts(world, [0] * world.size) as group:
        sync = _drive(_begin(group, _make(group, "sync", None, "none")), 1, 11)
        found = _drive(_begin(group, _make(group, "diloco", own, codec)), 1, 11)
        with together(world):
            np.testing.assert_allclose(found, sync, rtol=1e-12, atol=1e-13)


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize("codec", [*_CODECS, "auto:int4"])
@several
def test_delayed_sums_are_compressed(world, codec, placement):
    """Of gradients that do not depend on parameters: all of them act, but for the residuals."""
    sgd = Settings("sgd", lambda step: 1.0, 0.0)
    with _hosts(world, placement) as group:
        strategy = _begin(group, _make(group, "delayed", None, codec, optimizer=sgd, averaged={}))
        total = np.zeros(_LAYOUT.size)
        for step in range(1, 6):
            for number in range(_MICRO_BATCHES):
                total += np.random.default_rng([step, number]).standard_normal(_LAYOUT.size)
            for number, share in zip(strategy.numbers, strategy.shares(step), strict=True):
                share.vector[:] = np.random.default_rng([step, number]).standard_normal(
                    _LAYOUT.size
                )
            strategy.step(step, _MICRO_BATCHES)
        strategy.finish()
        state, figures = _saved(strategy), strategy.figures()
        equal_everywhere(world, strategy.consensus().tobytes())
        with together(world):
            moved = np.linspace(-1, 1, _LAYOUT.size) - strategy.consensus()
            left = _left(state)
            np.testing.assert_allclose(moved * _MICRO_BATCHES + left, total, atol=1e-11)
            if not codec.startswith("auto"):
                assert np.abs(left).max() > 1e-7 and figures["compression_ratio"] > 1
                assert str(strategy).endswith(f"between hosts {codec}")


@codecs
def test_delayed_goes_on_with_its_residuals(world, codec):
    """With the same bits on as many hosts; on two with their sum; on one host it is in the first sum."""
    with _hosts(world, -1) if world.size > 1 else _hosts(world, 0) as group:
        through = _begin(group, _make(group, "delayed", None, codec))
        half = _drive(through, 1, 6)
        state = _saved(through)
        whole = _drive(through, 6, 11)
        other = _restored(group, _make(group, "delayed", None, codec), half, state)
        resumed = _drive(other, 6, 11)
        ends = _saved(through), _saved(other)
    with _hosts(world, 0) as group:
        two = _saved(_restored(group, _make(group, "delayed", None, codec), half, state))
        group.host_barrier()
    sgd = Settings("sgd", lambda step: 1.0, 0.0)
    of_codec = {name: vector for name, vector in state.items() if name != "velocity"}
    with on_hosts(world, [0] * world.size) as group:
        one = _make(group, "delayed", None, codec, optimizer=sgd, averaged={})
        _restored(group, one, half, of_codec)
        kept = one.state()["residual.0"].copy()
        for share in one.shares(6):
            share.vector[:] = 0
        one.step(6, 5)
        one.finish()
        moved, names_then = half - one.consensus(), set(one.state())
    with together(world):
        np.testing.assert_array_equal(resumed, whole)
        for name, vector in ends[0].items():
            np.testing.assert_array_equal(ends[1][name], vector, err_msg=name)
        np.testing.assert_allclose(_left(two), _left(state), atol=1e-12)
        np.testing.assert_allclose(kept, _left(state), atol=1e-12)
        np.testing.assert_allclose(moved, _left(state) / 5, atol=1e-12)
        assert "residual.0" not in names_then
