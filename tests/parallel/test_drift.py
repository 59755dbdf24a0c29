"""``--check-every``: a flipped bit is found, who has it and in which parameter is said, and repaired where somebody knows what was right."""

import json

import numpy as np
import pytest

from lepton_mpi import QuietHook
from lepton_mpi.chunks import chunk_bounds
from lepton_mpi.errors import RankError
from lepton_mpi.models.network import Network
from lepton_mpi.options.config import Config
from lepton_mpi.run import drift
from lepton_mpi.run.build import build
from lepton_mpi.run.fit import train
from tests.parallel.together import refused, together


def _config(**options) -> Config:
    common = {"data": "digits", "epochs": 1, "hidden": (9,), "progress": "none", "check_every": 4}
    return Config(**(common | options))


def _flip(vector, element: int, bit: int) -> None:
    vector.view(np.uint32)[element] ^= np.uint32(1 << bit)


class Flip(QuietHook):
    """Turns a bit of rank ``rank`` after a step; in host memory one of its ranks is enough."""

    def __init__(self, step: int, rank: int, vector: str = "parameters", element: int = 5):
        self.where = step, rank, vector, element

    def after_step(self, run):
        step, rank, vector, element = self.where
        if run.step == step:
            run.strategy.finish()
            if run.world.rank == rank % run.world.size:
                copies = {copy.name: copy.vector for copy in run.strategy.copies_at_end()}
                _flip(copies[vector], element, 3)


@pytest.mark.parametrize(
    ("options", "flips"), [({}, 60), ({"allreduce": "ring"}, 60), ({"strategy": "delayed"}, 40)]
)
def test_every_flip_at_rest_is_found(world, options, flips):
    """Any bit of any element of any vector on any rank, between a check and the next update."""
    run = build(_config(**options), world)
    generator = np.random.default_rng(7)
    try:
        for _ in range(flips):
            run.drift._compare(run.strategy.copies())
            copies = run.strategy.copies()
            copy = copies[generator.integers(len(copies))]
            element, bit = int(generator.integers(copy.vector.size)), int(generator.integers(32))
            rank = int(generator.integers(world.size))
            if world.rank == rank:
                _flip(copy.vector, element, bit)
            world.agree(None)
            name = next(
                n
                for n, (start, stop) in zip(run.layout.shapes, run.layout.bounds, strict=True)
                if start <= element < stop
            )
            who = f"rank {rank}" if not copy.is_of_host else "host 0"
            with refused(world, RankError, f"{copy.name} of {name} changed at rest on {who}"):
                run.drift._check_rest()
            if world.rank == rank:
                _flip(copy.vector, element, bit)
            world.agree(None)
    finally:
        run.close()


def test_nothing_is_found_where_nothing_is_wrong(world):
    """And the bits are those of a run without checks."""
    for options in ({}, {"strategy": "delayed"}, {"strategy": "local"}, {"dropout": 0.5}):
        plain = train(_config(check_every=0, **options), world)
        checked = train(_config(**options), world)
        with together(world):
            assert checked["weights_digest"] == plain["weights_digest"]
            assert checked["checks"] >= 1 and checked["repairs"] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "bounded"},
        {"strategy": "bounded", "own": {"strategy": {"locks": False}}, "micro_batch": 2},
        {"strategy": "gossip", "own": {"strategy": {"asynchronous": True}}},
        {"strategy": "hierarchical"},
    ],
    ids=str,
)
def test_updates_of_others_are_no_flips(world, options):
    """A gradient is computed twice at the same parameters, also where ranks write to them whenever they are ready."""
    if world.size == 1 and options["strategy"] == "gossip":
        pytest.skip("one rank has nobody to average with")
    found = train(_config(check_every=1, epochs=3, **options), world)
    with together(world):
        assert found["checks"] >= 3 and found["repairs"] == 0


@pytest.mark.parametrize("number", [0, 1])
def test_a_copy_that_differs_is_named(world, number):
    """Parameters or state, flipped between two checks; of three ranks and more the majority knows which it is."""
    if world.size == 1:
        pytest.skip("one rank has nobody to compare with")
    run = build(_config(), world)
    copy, name = run.strategy.copies()[number].name, list(run.layout.shapes)[number]
    element = run.layout.bounds[number][0]
    run.close()
    knows = world.size > 2
    words = [f"{copy} of {name} differ on {'rank 1 (' if knows else 'rank 0, rank 1 ('}", "step 8"]
    words.append("--on-drift repair" if knows else "no majority")
    with refused(world, RankError, *words):
        train(_config(allreduce="ring"), world, hooks=[Flip(6, 1, copy, element)])


def test_a_repaired_copy_is_that_of_the_others(world):
    """At rest even of two; the ranks end with one digest, which the run's end compares."""
    if world.size == 1:
        with refused(world, RankError, "changed at rest", "host 0 (rank 0)", "--resume"):
            train(_config(on_drift="repair"), world, hooks=[Flip(8, 0)])
        return
    end = train(_config(allreduce="ring", on_drift="repair"), world, hooks=[Flip(8, 1)])
    with together(world):
        assert end["repairs"] == 1
    if world.size > 2:
        end = train(_config(allreduce="ring", on_drift="repair"), world, hooks=[Flip(6, 2)])
        with together(world):
            assert end["repairs"] >= 1


_TOGETHER = {"model": "cnn", "own": {"model": {"norm": "sync_batch"}}, "global_batch": 200}


@pytest.mark.parametrize("is_saved", [True, False])
def test_an_update_that_was_under_way_is_no_fault(world, folder, is_saved):
    """It is made where a checkpoint is written in the middle of an epoch, and before micro-batches are computed together."""
    digests = set()
    for every in (0, 1, 2):
        options = _TOGETHER
        if is_saved:
            options = {"checkpoint": str(folder / f"{every}"), "checkpoint_steps": 2}
            options |= {"global_batch": 200}
        end = train(_config(strategy="delayed", check_every=every, **options), world)
        digests.add(end["weights_digest"])
        with together(world):
            assert (end.get("checks", 0), end.get("repairs", 0)) == (6 // every if every else 0, 0)
    with together(world):
        assert len(digests) == 1


def test_a_hook_may_finish_right_behind_a_check(world):
    """The update that was under way is made by the strategy itself; a flip behind the next check is found."""

    class Finishing(QuietHook):
        def after_step(self, run):
            if run.step in (2, 3):
                run.strategy.finish()
            if run.step == 4 and world.rank == 0:
                _flip(run.strategy.parameters, 5, 3)

    config = _config(strategy="delayed", check_every=2, global_batch=200)
    words = ["a rank's parameters of ", " changed at rest on rank 0", "step 5", "--check-every 2"]
    with refused(world, RankError, *words):
        train(config, world, hooks=[Finishing()])


def test_a_flip_before_an_update_that_was_under_way_is_found(world):
    """A save makes it, and looks first."""

    class Saving(QuietHook):
        def after_step(self, run):
            if run.step == 4:
                if world.rank == 0:
                    _flip(run.strategy.parameters, 5, 3)
                drift.finish(run)

    words = ["a rank's parameters of ", " changed at rest on rank 0", "step 4", "--check-every 4"]
    with refused(world, RankError, *words):
        train(_config(strategy="delayed", global_batch=200), world, hooks=[Saving()])


def test_a_return_to_a_copy_is_no_fault(world):
    """An update left infinite parameters, the same ones on all; after the check, a save goes back to what they were before."""
    run = build(_config(on_nan="rollback"), world)
    try:
        next(run.epochs())
        run.divergence.before_epoch(run)
        begin = run.strategy.parameters.copy()
        world.agree(None)
        if world.local_rank == 0 or not run.strategy.is_shared:
            run.strategy.parameters[5] = np.inf
        world.agree(None)
        run.drift.after_step(run)
        run.divergence.finite_sums()
        run.drift._check_rest()
        with together(world):
            assert run.divergence.counts.rollbacks == 1 and run.drift.checks == 1
            np.testing.assert_array_equal(run.strategy.parameters, begin)
    finally:
        run.close()


def test_digests_are_taken_once_a_check(world, monkeypatch):
    """Also where something was repaired in an earlier one."""
    if world.size == 1:
        pytest.skip("one rank has nobody to be repaired by")
    run = build(_config(allreduce="ring", on_drift="repair"), world)
    found, taken = run.drift, []
    digests = found._digests
    try:
        found._compare(run.strategy.copies())
        if world.rank == 1:
            _flip(run.strategy.parameters, 5, 3)
        found._check_rest()
        monkeypatch.setattr(found, "_digests", lambda: taken.append(None) or digests())
        found._compare(run.strategy.copies())
        with together(world):
            assert found.repairs == 1 and len(taken) == 1
    finally:
        run.close()


def _norms(world, path, **options) -> list[list[float]]:
    """Norms of gradients, by check and rank."""
    train(_config(metrics=str(path), **options), world)
    lines = world.broadcast(path.read_text() if world.rank == 0 else None).splitlines()
    records = map(json.loads, lines)
    return [record["gradient_norms"] for record in records if record["event"] == "check"]


@pytest.mark.parametrize("options", [_TOGETHER, {"global_batch": 200}], ids=["together", "alone"])
def test_norms_of_gradients_are_recorded(world, folder, options):
    """Of each rank's last micro-batch, or of its last one with rows; the sixth and last step has rows for 6 of 8."""
    norms = _norms(world, folder / "metrics.jsonl", check_every=2, **options)
    bounds = chunk_bounds(8, world.size)
    with together(world):
        assert len(norms) == 3
        for check, filled in zip(norms, (8, 8, 6), strict=True):
            last = bounds[:-1] if options is _TOGETHER else [stop - 1 for stop in bounds[1:]]
            assert [norm > 0 for norm in check] == [number < filled for number in last]


def test_a_gradient_that_was_computed_together_is_named(world, monkeypatch):
    """Even the last bit of one element, when it comes out the second time."""
    compute, calls = Network.loss_and_gradients, []

    def faulty(self, parameters, micro_batches, exchange):
        sums = compute(self, parameters, micro_batches, exchange)
        calls.append(None)
        if len(calls) == 3 and world.rank == world.size - 1:  # step 2, once more
            _flip(micro_batches[-1].gradient["classes/weight"].reshape(-1), 7, 0)
        return sums

    monkeypatch.setattr(Network, "loss_and_gradients", faulty)
    words = [
        f"rank {world.size - 1} of",
        "the gradient of classes/weight in step 2, micro-batch 7, twice",
    ]
    with refused(world, RankError, *words):
        train(_config(check_every=2, **_TOGETHER), world)


class Faulty:
    """A model whose processor turns a bit of one gradient, once."""

    calls, rank, at = 0, 0, 0

    def __init__(self, feature_shape, class_count):
        self.shapes = {"v": (3,), "w": (64, 2)}

    def loss_and_gradient(self, parameters, batch, gradient):
        Faulty.calls += 1
        for array in gradient.values():
            array[:] = float(batch.x.sum())
        if Faulty.rank == 1 and Faulty.calls == Faulty.at:
            _flip(gradient["w"].reshape(-1), 77, 0)
        return float(len(batch.y))


def test_a_gradient_of_other_bits_is_named(world):
    """Even the last bit of one element."""
    Faulty.calls, Faulty.rank = 0, 1 if world.rank == world.size - 1 else 0
    run = build(_config(check_every=0), world, Faulty)
    own = len(run.strategy.numbers)
    run.close()
    first = 3  # the model's own first call is repeated for two halves
    Faulty.at = first + 4 * own - 1 if own else 0
    words = [f"rank {world.size - 1} of", "the gradient of w in step 4", "twice with other bits"]
    with refused(world, RankError, *words):
        train(_config(), world, Faulty)
