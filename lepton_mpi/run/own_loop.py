"""``mean`` and ``broadcast`` for a training loop of one's own: the arrays of all ranks, in place, in one line each.

    gradients = lepton_mpi.mean(gradients)          every rank has the mean over ranks
    weights = lepton_mpi.broadcast(weights)         every rank has rank 0's

Both take an array, a number, or lists, tuples and dicts of such, nested as you like. Arrays are changed in place and are in what is
returned; numbers come back as new ones. All ranks call them as often and in the same order, with arrays of the same names, shapes and
types, which is compared in every call: others are the same error on all ranks. A sum has one order of additions, by rank.

The ``World`` is made by the first call of any rank, which is collective, and belongs to the process until it ends. From then on an exception of a
rank ends the job, and so does a rank that the others have waited for ``LEPTON_TIMEOUT`` seconds, 300 by default. What all ranks do between two calls
may take any time, but for a call of a library that holds the interpreter lock for so long.
"""

from __future__ import annotations

import atexit
import hashlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lepton_mpi import launcher
from lepton_mpi.errors import ConfigurationError, LeptonError

if TYPE_CHECKING:
    from lepton_mpi.collectives.communicator import Communicator
    from lepton_mpi.world.world import World

_TIMEOUT = "LEPTON_TIMEOUT"
_SECONDS = 300.0


class Job(NamedTuple):
    """What the loops of a process share."""

    world: World
    communicator: Communicator


_present: Job | None = None


def mean(arrays: Any) -> Any:
    """The mean over all ranks, in place. Collective over the job.

    Parameters
    ----------
    arrays : array, number, or list, tuple or dict of such
        Arrays of float16, float32 or float64 of any shape, writable.

    Returns
    -------
    The same arrays in the same lists and dicts; of a number a new float.

    Raises
    ------
    ConfigurationError
        On all ranks: arrays of another type, or read-only.
    RankError
        On all ranks: arrays that differ between ranks in names, shapes or types.
    """
    return reduced(arrays, "mean")


def broadcast(arrays: Any, root: int = 0) -> Any:
    """Rank ``root``'s values on every rank, in place. Collective over the job; otherwise as ``mean``, and of any type of number."""
    world, communicator = job()
    if not isinstance(root, int) or not 0 <= root < world.size:
        raise ConfigurationError(
            f"broadcast: root: expected a rank, 0 to {world.size - 1}, got {root!r}"
        )
    return _each(arrays, f"broadcast {root}", lambda array: communicator.broadcast(array, root))


def reduced(arrays: Any, op: str) -> Any:
    """``Communicator.allreduce`` with ``op`` of each array, with the contract of ``mean``. Collective over the job."""
    communicator = job().communicator

    def reduce(array: np.ndarray) -> None:
        # NumPy has no such type; the libraries that bring it call it so.
        if array.dtype.name == "bfloat16":
            communicator.allreduce(array.view(np.uint16), op, kind="bfloat16")
        else:
            communicator.allreduce(array, op)

    return _each(arrays, op, reduce)


def rank() -> int:
    """Number of this rank, from 0. The first call of this module is collective over the job."""
    return job().world.rank


def world_size() -> int:
    """How many ranks there are. The first call of this module is collective over the job."""
    return job().world.size


def job() -> Job:
    """The world and a communicator of it, made by the first call. Collective then. Ends the process if MPI cannot start."""
    global _present
    if _present is None:
        from lepton_mpi.collectives.communicator import Communicator
        from lepton_mpi.world.world import World

        try:
            world = World(_timeout_seconds())
        except LeptonError as error:
            launcher.complain(f"lepton_mpi: {error}")
            raise SystemExit(error.exit_code) from None
        world.clock.name_steps("collectives")
        world.clock.is_free = True
        _present = Job(world, Communicator(world))
        atexit.register(_at_exit)
    return _present


def close() -> None:
    """Give back the world before the process ends. Collective; does nothing if there is none."""
    global _present
    if _present is not None:
        atexit.unregister(_at_exit)
        world, communicator = _present
        _present = None
        communicator.close()
        world.close()


def _at_exit() -> None:
    """Nothing is collective here: a rank may be the only one that leaves, and then the others' watchdogs name it."""
    if _present is not None:
        _present.world.abandon()


def _timeout_seconds() -> float:
    text = os.environ.get(_TIMEOUT, "")
    try:
        return float(text) if text else _SECONDS
    except ValueError:
        raise ConfigurationError(f"{_TIMEOUT}: expected seconds, got {text!r}") from None


def _each(arrays: Any, verb: str, call: Callable[[np.ndarray], None]) -> Any:
    """``call`` with each array, in order, after all ranks have agreed on what they are."""
    world, communicator = job()
    leaves: list[tuple[str, np.ndarray]] = []
    error: ConfigurationError | None = None
    rebuild: Callable[[], Any] = list
    try:
        rebuild = _flattened(arrays, "", leaves, None if verb.startswith("broadcast") else float)
        if verb == "mean":
            _check_floats(leaves)
    except ConfigurationError as wrong:
        error = wrong
    world.clock.enter("communication")
    told = {name: f"{array.dtype}, shape {array.shape}" for name, array in leaves}
    _compare(world, communicator, verb, told, error)
    for _, array in leaves:
        if array.flags.c_contiguous:
            call(array)
        else:
            whole = np.ascontiguousarray(array)
            call(whole)
            array[...] = whole
    world.clock.enter("compute")
    return rebuild()


def _compare(
    world: World,
    communicator: Communicator,
    verb: str,
    told: Mapping[str, str],
    error: ConfigurationError | None,
) -> None:
    """Raise on all ranks what one raises, and RankError where they tell different things."""
    text = repr((verb, list(told.items())))
    digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
    number = int.from_bytes(digest, "little")
    # The largest of a number, of its opposite, and of whether there is an error.
    words = np.array([number, -number, error is not None], np.int64)
    communicator.allreduce(words, "max")
    if words[2]:
        world.agree(error)
    if words[0] != -words[1]:
        # In this order: with the same names in another one they differ, too.
        world.agree_on("what is combined", {"call": verb, "arrays": list(told), **told})


def _flattened(
    given: Any, name: str, leaves: list[tuple[str, np.ndarray]], of_numbers: type | None
) -> Callable[[], Any]:
    """Append the arrays of ``given`` to ``leaves``; what is returned puts them together again.

    ``of_numbers`` is the type of arrays that numbers become. Raises ConfigurationError.
    """
    if isinstance(given, np.ndarray):
        if given.dtype.hasobject or not given.flags.writeable:
            kind = "read-only" if not given.dtype.hasobject else "of objects"
            raise ConfigurationError(
                f"{_named(name)}: expected a writable array of numbers, got one that is {kind}; pass a copy of it"
            )
        leaves.append((name or "array", given))
        return lambda: given
    if isinstance(given, bool | int | float | np.number | np.bool_):
        array = np.array([given], of_numbers)
        leaves.append((name or "number", array))
        return lambda: array[0].item()
    if isinstance(given, Mapping):
        of_each = {
            key: _flattened(value, f"{name}[{key!r}]", leaves, of_numbers)
            for key, value in given.items()
        }
        return lambda: {key: build() for key, build in of_each.items()}
    if isinstance(given, list | tuple):
        builds = [
            _flattened(each, f"{name}[{i}]", leaves, of_numbers) for i, each in enumerate(given)
        ]
        return lambda: _like(given, [build() for build in builds])
    raise ConfigurationError(
        f"{_named(name)}: expected a NumPy array, a number, or lists, tuples and dicts of them, got {type(given).__name__}"
    )


def _check_floats(leaves: list[tuple[str, np.ndarray]]) -> None:
    """Raises ConfigurationError: a mean of whole numbers is none."""
    for name, array in leaves:
        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            raise ConfigurationError(
                f"mean: {name}: expected an array of floats, got one of {array.dtype}; pass array.astype(float)"
            )


def _like(given: list[Any] | tuple[Any, ...], values: list[Any]) -> Any:
    if isinstance(given, tuple) and hasattr(given, "_fields"):
        return type(given)(*values)
    return type(given)(values)


def _named(name: str) -> str:
    return f"arrays{name}"
