"""``--check-every``: a flipped bit is found, who has it and in which parameter is said, and repaired where somebody knows what was right."""

import numpy as np
import pytest

from lepton_mpi import QuietHook
from lepton_mpi.errors import RankError
from lepton_mpi.options.config import Config
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
