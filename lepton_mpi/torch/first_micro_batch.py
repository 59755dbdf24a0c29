"""Checks of a torch module in its first micro-batch, each an error in one line that names what is wrong.

every trained parameter gets a gradient     a layer that is left out would stay as it began
the same again has the same bits            nothing is remembered from one micro-batch to the next, beside running statistics
constants stay                              buffers that change would be others on every rank, and in no checkpoint
a normalisation is called once              its running statistics are those of one call
what ``models/first_step.py`` checks        losses are sums over rows, nothing is written to, all numbers are finite
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.layer import Sums
from lepton_mpi.models import first_step
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.torch.parts import normalisations
from lepton_mpi.vectors import Views

if TYPE_CHECKING:
    from lepton_mpi.torch.module import TorchModel

# How many names a message lists.
_LISTED_MAX = 5


def check(model: TorchModel, parameters: Views, batch: Batch, gradient: Views) -> None:
    """Raises ConfigurationError. ``gradient`` is left with anything in it."""
    constants = model.parts.constants
    before = {
        name: (b.layer._buffers[b.key], b.layer._buffers[b.key].clone())
        for name, b in constants.items()
    }
    values = {name: array.copy() for name, array in parameters.items()}
    _check_calls(model, parameters, batch, gradient)
    for name, array in parameters.items():
        if not np.array_equal(values[name], array, equal_nan=True):
            raise ConfigurationError(
                f"model {model.name}: forward wrote to parameters[{name!r}]: expected it to be read only; the optimizer alone changes it"
            )
    sums, missing = model.compute(parameters, batch, gradient, NO_SYNC)
    first = {name: array.copy() for name, array in gradient.items()}
    if missing:
        names = ", ".join(missing[:_LISTED_MAX]) + " …" * (len(missing) > _LISTED_MAX)
        raise ConfigurationError(
            f"model {model.name}: expected a gradient of every parameter, got none of {names}: the loss does not depend on it; "
            f"--freeze '{missing[0]}' or requires_grad_(False) leaves it as it is"
        )
    again, _ = model.compute(parameters, batch, gradient, NO_SYNC)
    same = all(
        np.array_equal(first[name], array, equal_nan=True) for name, array in gradient.items()
    )
    if not same or sums[0] != again[0]:
        raise ConfigurationError(
            f"model {model.name}: expected the same loss and gradient of the same micro-batch, got others when it was computed again "
            f"({sums[0]!r}, then {again[0]!r}): does forward remember rows of other micro-batches, or draw from a generator other "
            "than torch's?"
        )
    for name, (tensor, old) in before.items():
        now = constants[name].layer._buffers[constants[name].key]
        if now is not tensor or not bool((now == old).all() | ((now != now) & (old != old)).all()):
            raise ConfigurationError(
                f"model {model.name}: buffer {name}: expected one that stays in training, got one that forward changes: only running "
                "statistics of torch's own normalisations may"
            )
    if not model.mixes_rows:
        other, _ = model.compute(parameters, batch, gradient, NO_SYNC, seed=1)
        # Dropout of half of the rows is not that of all of them.
        model.mixes_rows = other[0] != sums[0]

    def run(parameters: Views, batch: Batch, gradient: Views) -> Sums:
        return model.compute(parameters, batch, gradient, NO_SYNC)[0]

    first_step.check(model, run, parameters, batch, gradient)


def _check_calls(model: TorchModel, parameters: Views, batch: Batch, gradient: Views) -> None:
    """Whether each normalisation is called at most once."""
    calls: Counter[str] = Counter()
    hooks = []
    for name, layer in normalisations(model.module):

        def count(layer: object, inputs: object, name: str = name) -> None:
            calls[name] += 1

        hooks.append(layer.register_forward_pre_hook(count))
    try:
        model.compute(parameters, batch, gradient, NO_SYNC)
    finally:
        for hook in hooks:
            hook.remove()
    for name, found in calls.items():
        if found > 1:
            raise ConfigurationError(
                f"model {model.name}: layer {name}: expected one call in a forward pass, got {found}: its running statistics would be "
                "those of the last; a layer for each call has its own"
            )
