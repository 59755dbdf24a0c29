"""Checks of a user's model in its first micro-batch, while a mistake is cheap. Each error names what is wrong, in one line.

    it changes nothing           parameters and batch have the same bits afterwards
    it fills every gradient      which hold NaN of a pattern that no computation gives
    losses and gradients are     those of two halves of the micro-batch add up to those of the whole; with a mean, results
    sums over the rows           would depend on how rows are cut into micro-batches
    all numbers are finite

Arrays are not marked as read-only, since compiled kernels with declared types refuse such arrays, also to read them. The
halves need two more vectors of the gradient's length, for this one step.
"""

import hashlib
from collections.abc import Callable, Mapping
from math import isfinite, isnan
from typing import Any, NamedTuple

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.layers.layer import Array, Sums
from lepton_mpi.models.model import Model
from lepton_mpi.vectors import Layout, Views

# NaN whose lower bits no computation gives.
_POISON = {4: (np.uint32, 0x7FC0DEAD), 8: (np.uint64, 0x7FF8DEADDEADDEAD)}

Run = Callable[[Views, Batch, Views], Sums]


class _Result(NamedTuple):
    sums: Sums
    gradient: Mapping[str, Array]


def check(model: Model, run: Run, parameters: Views, batch: Batch, gradient: Views) -> Sums:
    """Compute a micro-batch with ``run(parameters, batch, gradient)``, fill ``gradient``, return the sums.

    Raises
    ------
    ConfigurationError
    """
    before = _fingerprints(parameters, batch)
    whole = _computed(model, run, parameters, batch, gradient)
    for label, digest in _fingerprints(parameters, batch).items():
        if digest != before[label]:
            raise ConfigurationError(
                f"model {model.name}: loss_and_gradient wrote to {label}: expected it to be read only; write to a copy"
            )
    if not model.mixes_rows:
        _check_sums(model, run, parameters, batch, whole)
    return whole.sums


def _computed(
    model: Model, run: Run, parameters: Views, batch: Batch, gradient: Mapping[str, Array]
) -> _Result:
    """Loss and gradient, of which every element was filled with a finite number."""
    for array in gradient.values():
        kind, bits = _POISON[array.itemsize]
        array.view(kind)[...] = bits
    sums = run(parameters, batch, gradient)  # type: ignore[arg-type]
    for name, array in gradient.items():
        if name in model.frozen:  # which need not be filled
            array[...] = 0
            continue
        kind, bits = _POISON[array.itemsize]
        left = int(np.count_nonzero(array.view(kind) == bits))
        if left:
            how = (
                f"{left} of its {array.size} elements were not"
                if left < array.size
                else "it was not"
            )
            raise ConfigurationError(
                f"model {model.name}: expected gradient[{name!r}] to be filled, {how} (what it held before is no zero: "
                "fill it, do not add to it)"
            )
        if not np.isfinite(array).all():
            raise ConfigurationError(
                f"model {model.name}: expected finite numbers in gradient[{name!r}], got infinite ones or NaN in the first "
                "micro-batch"
            )
    if not isfinite(sums[0]) or not (isnan(sums[1]) or isfinite(sums[1])):
        raise ConfigurationError(
            f"model {model.name}: expected a finite loss in the first micro-batch, got {sums}"
        )
    return _Result(sums, gradient)


def _check_sums(model: Model, run: Run, parameters: Views, batch: Batch, whole: _Result) -> None:
    """Whether loss and gradient of the parts of a batch add up to those of the whole."""
    layout = Layout(model.shapes)
    dtype = next(iter(whole.gradient.values())).dtype

    def compute(rows: Any) -> _Result:
        gradient = layout.views(np.empty(layout.size, dtype))
        return _computed(model, run, parameters, rows_of(batch, rows), gradient)

    rows, half = len(batch.y), len(batch.y) // 2
    if rows == 1:  # twice the same row, in one batch
        rows, half, parts = 2, 1, (whole, whole)
        whole = compute(np.zeros(2, np.int64))
    else:
        parts = compute(slice(0, half)), compute(slice(half, rows))
    eps = float(np.finfo(dtype).eps)
    # Roundings: of so many terms as large as any element, and what cancels in this array.
    of_terms = rows * eps * max(_largest(array) for array in whole.gradient.values())
    for label, array in _arrays(whole).items():
        first, second = (_arrays(part)[label] for part in parts)
        size = max(_largest(array), _largest(first), _largest(second))
        allowed = eps**0.5 * size + (of_terms if label.startswith("gradient") else 0.0)
        if _largest(array - (first + second)) > allowed:
            off = rows * array - (half * first + (rows - half) * second)
            _refuse(model, label, is_mean=_largest(off) <= rows * allowed)


def _arrays(result: _Result) -> dict[str, Array]:
    """Loss, correct and gradients, by what they are called in messages."""
    numbers = {"loss": np.array(result.sums[0]), "correct": np.array(result.sums[1])}
    return numbers | {f"gradient[{name!r}]": array for name, array in result.gradient.items()}


def _refuse(model: Model, label: str, is_mean: bool) -> None:
    why = (
        "it is a mean; leave out the division by the number of rows"
        if is_mean
        else "a mean, a number that depends on the call, or random numbers that are no function of batch.draw and "
        "batch.rows? If rows of a micro-batch depend on each other on purpose, say mixes_rows = True"
    )
    raise ConfigurationError(
        f"model {model.name}: {label}: expected the sum over the rows of a micro-batch, but the two halves do not add up to "
        f"the whole: {why}"
    )


def rows_of(batch: Batch, rows: Any) -> Batch:
    """Some rows of a batch: a slice, or an array of row numbers."""
    found: dict[str, Any] = {}
    for field, value in batch._asdict().items():
        if isinstance(value, Mapping):
            found[field] = {name: array[rows] for name, array in value.items()}
        elif isinstance(value, np.ndarray) and not (field == "x" and batch.places is not None):
            found[field] = value[rows]
    return batch._replace(**found)


def _largest(array: Array) -> float:
    """Size of the largest element; of NaN, which stands for what is not counted, 0."""
    return float(np.nan_to_num(np.abs(array).max(initial=0)))


def _fingerprints(parameters: Views, batch: Batch) -> dict[str, bytes]:
    """Of every array that must not be changed; of a table only the batch's rows."""
    arrays: dict[str, Array] = {f"parameters[{name!r}]": a for name, a in parameters.items()}
    for field, value in batch._asdict().items():
        if isinstance(value, Mapping):
            arrays |= {f"batch.{field}[{name!r}]": array for name, array in value.items()}
        elif isinstance(value, np.ndarray):
            is_table = field == "x" and batch.places is not None
            arrays[f"batch.{field}"] = value[batch.places] if is_table else value
    return {
        label: hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).digest()
        for label, array in arrays.items()
    }
