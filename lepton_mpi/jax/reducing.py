"""``allreduce`` and ``broadcast``: a pytree of CPU arrays over all ranks.

    outside of jit   each array is copied once, into memory where it is combined, and JAX takes that over by dlpack without a copy
    inside of jit    one ordered callback (``io_callback``) for the whole tree

Why ordered: XLA runs callbacks when their arguments are ready. Of 8 ``pure_callback`` in one program, or of 8 unordered ``io_callback``, those came
first whose argument took no matrix product (0, 2, 6, 4, 1, 3, 5, 7; jax 0.10), and a pure one whose result nobody reads was not called at all. Ranks whose
programs or loads differ would then call in different orders. Ordered ones came in the order of the program, all of them, also in
``lax.scan``. What they cost: no ``vmap`` and no derivative through them, so average gradients, as in ``allreduce(jax.grad(loss)(…))``.
"""

from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import io_callback

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.run import own_loop

OPERATIONS = ("mean", "sum", "max", "min", "product")
# Below this JAX copies what it is given.
_ALIGNMENT_BYTES = 64


def allreduce(tree: Any, op: str = "mean") -> Any:
    """The combination of every rank's ``tree``, the same on all ranks. Collective over the job.

    Parameters
    ----------
    tree : pytree
        Of arrays on the CPU or numbers, with the same keys, shapes and types on all ranks: floats for "mean".
    op : {"mean", "sum", "max", "min", "product"}

    Returns
    -------
    pytree
        New arrays; ``tree`` stays as it is. Inside of ``jit`` it is part of the program, and runs in the order of the program.

    Raises
    ------
    ConfigurationError
        Another ``op`` or type.
    RankError
        On all ranks: trees that differ between ranks.
    """
    if op not in OPERATIONS:
        raise ConfigurationError(f"allreduce: op: expected {', '.join(OPERATIONS)}, got {op!r}")
    return _over_ranks(tree, partial(_reduced, op=op))


def broadcast(tree: Any, root: int = 0) -> Any:
    """Rank ``root``'s ``tree``, on all ranks. Collective over the job; otherwise as ``allreduce``, and of any type of number."""
    return _over_ranks(tree, partial(own_loop.broadcast, root=root))


def _reduced(arrays: Any, op: str) -> Any:
    return own_loop.reduced(arrays, op)


def _over_ranks(tree: Any, combine: Any) -> Any:
    named, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path) or "tree" for path, _ in named]
    leaves = [leaf for _, leaf in named]
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        leaves = [jax.numpy.asarray(leaf) for leaf in leaves]
        shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
        found = io_callback(partial(_combined, names, combine), shapes, *leaves, ordered=True)
        return structure.unflatten(found)
    # What is in a program that has not ended comes first on all ranks.
    jax.effects_barrier()
    arrays = _combined(names, combine, *leaves)
    return structure.unflatten(_taken_over(array) for array in arrays)


def _combined(names: list[str], combine: Any, *leaves: Any) -> list[np.ndarray]:
    """Copies of the leaves, combined."""
    arrays = {name: _copied(name, leaf) for name, leaf in zip(names, leaves, strict=True)}
    combine(arrays)
    return list(arrays.values())


def _copied(name: str, leaf: Any) -> np.ndarray:
    """In memory that JAX can take over. Raises ConfigurationError."""
    if isinstance(leaf, jax.Array) and any(d.platform != "cpu" for d in leaf.devices()):
        raise ConfigurationError(
            f"{name}: expected an array on the CPU, got one on {leaf.devices()}; jax.device_put(tree, jax.devices('cpu')[0]) moves it"
        )
    array = np.asarray(leaf)
    memory = np.empty(array.nbytes + _ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT_BYTES
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _taken_over(array: np.ndarray) -> jax.Array:
    if array.size == 0 or array.dtype == np.bool_:
        return jax.numpy.asarray(array)
    try:
        return jax.dlpack.from_dlpack(array)
    except (BufferError, TypeError):  # types that NumPy's dlpack lacks, such as bfloat16
        return jax.numpy.asarray(array)
