"""A run is torn down and built again in the same process, from its state in memory, with more micro-batches a rank."""

import pytest

from lepton_mpi import QuietHook
from lepton_mpi.options.config import Config
from lepton_mpi.run import loop, resume
from lepton_mpi.run.build import build
from lepton_mpi.run.fit import train
from tests.parallel.together import together

STEPS_PER_EPOCH, EPOCHS = 18, 3


class _Stop(Exception):
    """Leaves the loop on every rank after the same step."""


class _StopAfter(QuietHook):
    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, run) -> None:
        if run.step == self.step:
            raise _Stop


def _config(**options) -> Config:
    return Config(epochs=EPOCHS, progress="none", dropout=0.25, augment=("noise=0.1",), **options)


def _state_after(step: int, world, **options) -> resume.Start:
    run = build(_config(**options), world)
    run.hooks.append(_StopAfter(step))
    with pytest.raises(_Stop):
        loop.train(run)
    state = resume.capture(run)
    run.close()
    return state


def _finished(state: resume.Start, ranks, **options) -> str:
    """The digest at the end of the run that goes on from ``state``."""
    run = build(_config(**options), ranks, start=state)
    assert run.strategy.numbers or ranks.size > 8
    loop.train(run)
    run.close()
    return run.result["weights_digest"]


@pytest.mark.parametrize("step", [1, 7, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 5, 2 * STEPS_PER_EPOCH])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_it_goes_on_in_a_smaller_group_with_the_same_bits(world, step, optimizer):
    """All but the last rank go on: each computes more of a step's 8 micro-batches. One rank goes on alone."""
    whole = train(_config(optimizer=optimizer), world)["weights_digest"]
    state = _state_after(step, world, optimizer=optimizer)
    remaining = list(range(max(1, world.size - 1)))
    digest = whole
    if world.rank in remaining:
        with world.group(remaining) as group:
            digest = _finished(state, group, optimizer=optimizer)
    with together(world):
        assert state.step == step
        assert digest == whole


def test_again_and_again(world):
    """Every step in a run of its own."""
    whole = train(_config(), world)["weights_digest"]
    state = None
    for step in range(1, 6):
        run = build(_config(), world, start=state)
        run.hooks.append(_StopAfter(step))
        with pytest.raises(_Stop):
            loop.train(run)
        state = resume.capture(run)
        run.close()
    digest = _finished(state, world)
    with together(world):
        assert digest == whole
