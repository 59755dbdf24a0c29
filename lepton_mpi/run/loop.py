"""START HERE: the training loop, read top to bottom.

    mpirun -n 8 python -m lepton_mpi.train                          the embedded digits
    mpirun -n 8 python -m lepton_mpi.train --data FILE.h5           your own rows
    mpirun -n 8 python my_model.py                                  your own model: fit(model, ...)

A step: this rank's micro-batches of the global batch -> summed loss and gradient of each -> sum over all
micro-batches of all ranks -> division by all rows -> optimizer. Every row of an epoch is used exactly once,
and the sum has one order of additions, so the weights do not depend on the number of ranks, bit for bit.

A model that normalises over all rows of a step has its micro-batches computed together: ``together.py``.

``build.py`` makes the run, ``hooks.py`` has what happens beside training: figures, evaluation, checkpoints, progress.
"""

from collections.abc import Callable
from math import isfinite

from lepton_mpi.run.hook import QuietHook
from lepton_mpi.run.run import Run, Step
from lepton_mpi.run.together import Together
from lepton_mpi.sync import Untold


def train(run: Run) -> None:
    """Make all steps of all epochs that are left, and call the hooks. Collective over ``run.world``."""
    # Most hooks have nothing to do after a step.
    nothing = QuietHook.after_step
    after_step = [
        hook.after_step
        for hook in run.hooks
        if getattr(type(hook), "after_step", None) is not nothing
    ]
    together = Together(run) if run.model.synchronised else None
    make_step: Callable[[int, int], None] = (
        run.divergence.step if run.divergence.looks_at_gradients else run.strategy.step
    )
    if run.faults:
        make_step = run.faults.guarding(make_step)
    if run.drift:
        make_step = run.drift.guarding(make_step)
    first, is_paused = run.start.step + 1, False
    for _ in run.epochs():
        for hook in run.hooks:
            hook.before_epoch(run)
        for step in run.steps():
            if together:
                together.compute(run, step)
            elif step.number == first:
                with run.world.agreeing():  # a user's model is checked in its first step
                    compute(run, step)
            else:
                compute(run, step)
            if step.number == first:
                run.first_loss = run.loss
            make_step(step.number, step.weight)
            for call in after_step:
                call(run)
        is_paused = run.will_go_on_unsaved
        if is_paused:
            run.strategy.pause()
        else:
            run.strategy.finish()
        for hook in run.hooks:
            hook.after_epoch(run)
    if is_paused:  # the run ends early
        run.strategy.finish()
    for hook in run.hooks:
        hook.at_end(run)


def compute(run: Run, step: Step) -> None:
    """Fill the gradients of this rank's micro-batches of a step, and add up loss and correct count."""
    clock, model, parameters = run.world.clock, run.model, run.parameters
    drift = run.drift if run.drift and run.drift.is_due() else None
    looks, is_wrong = run.divergence.looks_at_gradients, run.divergence.is_wrong
    for number, vector, gradient, sync in run.strategy.shares(step.number):
        clock.enter("input", step.number)
        batch = run.next_batch(step)
        clock.enter("compute")
        is_compared = drift is not None and number == run.strategy.numbers[-1]
        if batch.y.size:
            if drift and is_compared:
                # Once all is told others may write new parameters, and add to the gradient.
                sync, parameters = Untold(sync), drift.still(parameters)
            sums = model.loss_and_gradient(parameters, batch, gradient, sync)
            if isfinite(sums[0]) and not (looks and is_wrong(vector)):
                run.add(sums)
            else:
                run.divergence.note(number, batch, vector, sums)
            if drift and is_compared:
                drift.twice(number, parameters, batch, vector)
        else:
            vector[:] = 0  # the last step of an epoch may be shorter
