"""Compressed gradients between hosts, which are pretended: sums, training steps, residuals in and out of checkpoints."""

import math
from time import sleep

import numpy as np
import pytest

from lepton_mpi.collectives.choosing.tuning import Choice
from lepton_mpi.collectives.compressing import compression
from lepton_mpi.collectives.compressing.compressed_sum import CompressedSum
from lepton_mpi.collectives.compressing.compression import Compression, residuals_of
from lepton_mpi.collectives.within_host.vectors import HostVectors, Leaves
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.strategies import synchronous
from lepton_mpi.strategies.compression import compression_of
from lepton_mpi.strategies.overlapped_parameters import OverlappedParameters
from lepton_mpi.strategies.registry import CODECS
from lepton_mpi.strategies.strategy import Setting
from lepton_mpi.vectors import Layout
from tests.parallel.pretended import on_hosts, placements
from tests.parallel.together import equal_everywhere, refused, together

LAYOUT = Layout({"w": (60, 41), "b": (41,), "mean": (7,), "v": (9, 5, 11), "u": (41, 60)})
TEXTS = (
    *("fp16", "bf16", "int8", "int4", "sign", "topk:0.05", "topk:0.05,sampled", "randomk:0.05"),
    "powersgd:2",
)
codecs = pytest.mark.parametrize("text", TEXTS)
several = pytest.mark.parametrize("placement", range(4))


def _groups(world, placement: int):
    """A group on several hosts; skipped where there are no more ways to place these ranks."""
    ways = placements(world.size)
    if placement >= len(ways):
        pytest.skip("no more ways to place so few ranks")
    return on_hosts(world, ways[placement])


def _codec(text: str, dtype=np.float32):
    name, _, option = text.partition(":")
    return CODECS.find(name)(option, np.dtype(dtype))


def _values(number: int, step: int) -> np.ndarray:
    generator = np.random.default_rng([number, step])
    return generator.standard_normal(LAYOUT.size).astype(np.float32)


@codecs
@several
def test_a_sum_is_the_same_everywhere_and_loses_nothing(world, text, placement):
    """Of 5 leaves, so that some ranks have two nodes, with residuals of all hosts it is the sum of all."""
    with _groups(world, placement) as group:
        leaves = Leaves.spread(5, group.size)
        vectors = HostVectors(group, LAYOUT.size, np.float32, "shared", leaves)
        plan = CompressedSum(vectors, Compression(group, _codec(text), LAYOUT, 1, ["mean"]))
        total, given = np.zeros(LAYOUT.size), np.zeros(LAYOUT.size)
        results = []
        for step in range(4):
            for (start, stop), row in zip(leaves.nodes(group.place), vectors.inputs, strict=True):
                row[:] = sum(_values(leaf, step) for leaf in range(start, stop))
            plan.run()
            results.append(plan.result.tobytes())
            total += plan.result
            given += sum(_values(leaf, step).astype(float) for leaf in range(5))
            group.host_barrier()
        plan.compression.collect()
        state = plan.compression.state
        total += sum(state[name] for name in state if name.startswith("residual."))
        equal_everywhere(world, results)
        equal_everywhere(world, {name: vector.tobytes() for name, vector in state.items()})
        with together(world):
            np.testing.assert_allclose(total, given, rtol=0, atol=2e-3)
            assert len(residuals_of(state)) == group.host_count


# -- training steps ------------------------------------------------------------------------------------------


def _setting(group, text: str, **more) -> Setting:
    common = {
        "group": group,
        "layout": LAYOUT,
        "dtype": np.dtype(np.float32),
        "micro_batch_count": 5,
        "optimizer": Settings("sgd", lambda step: 0.1, momentum=0.9),
        "clip_norm": math.inf,
        "buckets": LAYOUT.buckets(1500),
        "is_asked": True,
        "averaged": {"mean": 0.1},
        "compress": text,
    }
    return Setting(**(common | more))


def _strategy(group, text: str, **more) -> OverlappedParameters:
    setting = _setting(group, text, **more)
    return OverlappedParameters(setting, Choice("two_level", ""), compression_of(setting))


def _train(strategy, first: int, stop: int, slow_rank: int = -1, rank: int = 0) -> None:
    for step in range(first, stop):
        for share in strategy.shares(step):
            if share.sync.awaits:
                for name in LAYOUT.shapes:
                    share.sync.need(name)
            if rank == slow_rank:
                sleep(0.003)
            # Of the parameters, too, so that what goes wrong once stays wrong.
            share.vector[:] = _values(share.number, step) + strategy.parameters
        strategy.step(step, 5)
    strategy.finish()


@pytest.mark.slow(but_every=3)
@codecs
@several
def test_steps_do_not_depend_on_who_is_slow(world, text, placement):
    """The same bits on all hosts, whichever rank comes last, and in every run of so many hosts."""
    with _groups(world, placement) as group:
        found = []
        for slow_rank in (-1, 0, group.size - 1):
            strategy = _strategy(group, text)
            _train(strategy, 1, 6, slow_rank, group.rank)
            found.append(strategy.parameters.tobytes())
            group.host_barrier()
        figures = strategy.figures()
        equal_everywhere(world, found[0])
        with together(world):
            assert found[0] == found[1] == found[2]
            assert not strategy.reproducible
            assert figures["compression_ratio"] > (1.0 if "k:" in text or ":" in text else 1.5)
            assert strategy.facts()["compress"] == text
            assert str(strategy).endswith(f"between hosts {text}")


@pytest.mark.slow(but_every=3)
@codecs
@several
def test_a_warm_up_is_a_run_without_a_codec(world, text, placement):
    """But for the order of additions; then the codec leaves something out. A run that goes on within it has the same bits."""
    with _groups(world, placement) as group:
        plain, warm = _strategy(group, "none"), _strategy(group, text, compress_after=4)
        begun, second = (_strategy(group, text, compress_after=4) for _ in range(2))
        for strategy in (plain, warm):
            _train(strategy, 1, 5)
        equal_everywhere(world, warm.parameters.tobytes())
        with together(world):
            np.testing.assert_allclose(warm.parameters, plain.parameters, rtol=0, atol=1e-5)
            assert str(warm).endswith(f"between hosts {text} after 4 steps")
        _train(begun, 1, 3)
        begun.collect()
        saved = {name: vector.copy() for name, vector in begun.state().items()}
        parameters = begun.consensus().copy()
        group.host_barrier()
        if group.local_rank == 0:
            second.restore(parameters, saved)
        group.host_barrier()
        _train(second, 3, 8)
        _train(warm, 5, 8)
        _train(plain, 5, 8)
        for strategy in (warm, second):
            strategy.collect()
        with together(world):
            assert not any(saved[name].any() for name in saved if name.startswith("residual."))
            assert second.parameters.tobytes() == warm.parameters.tobytes()
            assert np.abs(warm.parameters - plain.parameters).max() > 1e-5
            assert any(each.any() for each in residuals_of(warm._compression.state))


@pytest.mark.slow(but_every=3)
@codecs
@pytest.mark.parametrize("clip_norm", [math.inf, 1.0])
def test_a_run_that_goes_on_has_the_bits_of_one_that_did_not_stop(world, text, clip_norm):
    """On as many hosts; residuals, Q and random numbers are those of the step."""
    with _groups(world, 0) as group:
        whole = _strategy(group, text, clip_norm=clip_norm)
        _train(whole, 1, 9)
        first = _strategy(group, text, clip_norm=clip_norm)
        _train(first, 1, 5)
        first.collect()
        saved = {name: vector.copy() for name, vector in first.state().items()}
        parameters = first.consensus().copy()
        second = _strategy(group, text, clip_norm=clip_norm)
        group.host_barrier()
        if group.local_rank == 0:
            second.restore(parameters, saved)
        group.host_barrier()
        _train(second, 5, 9)
        whole.collect()
        second.collect()
        with together(world):
            assert second.parameters.tobytes() == whole.parameters.tobytes()
            for name, vector in whole.state().items():
                np.testing.assert_array_equal(second.state()[name], vector, err_msg=name)


@codecs
def test_residuals_of_other_hosts_are_kept(world, text):
    """From as many hosts as ranks to two, and to one: what was left out is delivered, to rounding."""
    if world.size == 1:
        pytest.skip("one rank is on one host")
    with on_hosts(world, placements(world.size)[-1]) as group:
        first = _strategy(group, text)
        _train(first, 1, 4)
        first.collect()
        saved = {name: vector.copy() for name, vector in first.state().items()}
        parameters = first.consensus().copy()
    left = sum(saved[name].astype(float) for name in saved if name.startswith("residual."))
    with on_hosts(world, placements(world.size)[0]) as group:
        second = _strategy(group, text)
        group.host_barrier()
        if group.local_rank == 0:
            second.restore(parameters, saved)
        group.host_barrier()
        second.collect()
        now = second.state()
        found = sum(now[name].astype(float) for name in now if name.startswith("residual."))
    with world.group([world.rank]) as group:
        third = synchronous.make(_setting(group, text))
        third.restore(parameters, saved)
        kept = third.state()["residual.0"].copy()
        before = third.parameters.copy()
        momentum = third.state()["velocity"].copy() if "velocity" in third.state() else None
        for share in third.shares(4):
            share.vector[:] = 0
        third.step(4, 5)
        third.finish()
        moved = third.parameters - before
        names = set(third.state())
    with together(world):
        scale = 1e-5 * max(1, np.abs(left).max())
        np.testing.assert_allclose(found, left, rtol=0, atol=scale)
        np.testing.assert_allclose(kept, left, rtol=0, atol=scale)
        # The rate is inside of the velocity: v = 0.9 v - 0.1 g / 5, and parameters move by it.
        assert momentum is not None
        start = LAYOUT.bounds[2][1]
        expected = 0.9 * momentum - 0.1 * left / 5
        np.testing.assert_allclose(moved[start:], expected[start:], rtol=0, atol=1e-4)
        assert "residual.0" not in names


@several
def test_auto_leaves_buckets_as_they_are(world, placement, monkeypatch):
    """Every other one: there the sum is exact, and takes the residuals of a time with a codec with it."""

    def every_other(group, codec, buckets):
        return [number % 2 == 0 for number in range(len(buckets))], "every other bucket"

    monkeypatch.setattr(compression, "faster_buckets", every_other)
    with _groups(world, placement) as group:
        first = _strategy(group, "int8")
        _train(first, 1, 4)
        first.collect()
        saved = {name: vector.copy() for name, vector in first.state().items()}
        parameters = first.consensus().copy()
        second = _strategy(group, "auto")
        group.host_barrier()
        if group.local_rank == 0:
            second.restore(parameters, saved)
        group.host_barrier()
        for share in second.shares(4):
            share.vector[:] = 0
        second.step(4, 5)
        second.finish()
        second.collect()
        left = sum(saved[name].astype(float) for name in saved if name.startswith("residual."))
        still = second.state()
        kept = sum(still[name].astype(float) for name in still if name.startswith("residual."))
        moved = second.parameters - parameters
        equal_everywhere(world, second.parameters.tobytes())
        with together(world):
            assert "every other bucket" in str(second)
            start, stop = LAYOUT.buckets(1500)[1]
            expected = 0.9 * saved["velocity"] - 0.1 * left / 5
            np.testing.assert_allclose(moved[start:stop], expected[start:stop], rtol=0, atol=1e-4)
            assert not kept[start:stop].any() and kept.any()


@several
def test_auto_measures_and_says_what_it_found(world, placement):
    """All ranks decide alike; a wire of memory is faster than any codec or not, but it is said."""
    with _groups(world, placement) as group:
        strategy = _strategy(group, "auto:int4")
        _train(strategy, 1, 3)
        equal_everywhere(world, (str(strategy), strategy.parameters.tobytes()))
        with together(world):
            assert "auto, int4 for " in str(strategy) and "Gbit/s" in str(strategy)


def test_messages_have_no_codec(world):
    """A schedule over messages with one is refused on all ranks."""
    with refused(world, ConfigurationError, "--compress int8", "two_level", "ring"):
        synchronous.make(_setting(world, "int8", allreduce="ring"))


def test_a_wrong_codec_is_refused_on_all_ranks(world):
    with refused(world, ConfigurationError, "--compress", "topk:SHARE"):
        synchronous.make(_setting(world, "topk:2"))


def test_one_host_compresses_nothing_and_says_so(world):
    """The parameters are those of a run without a codec."""
    if world.host_count > 1:
        pytest.skip("for one host")
    found = []
    for text in ("int8", "none"):
        strategy = synchronous.make(_setting(world, text))
        _train(strategy, 1, 4)
        found.append(strategy.parameters.tobytes())
        with together(world):
            assert ("one host: nothing is compressed" in str(strategy)) == (text == "int8")
        world.host_barrier()
    with together(world):
        assert found[0] == found[1]
