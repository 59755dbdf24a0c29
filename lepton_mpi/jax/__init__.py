"""The doors to JAX: ``allreduce`` of a pytree, in and outside of ``jit``, and a loss function as a model of ``fit``.

reducing.py   allreduce, broadcast
model.py      model
"""

from importlib import import_module
from typing import Any

# Loaded on first use: whoever asks for one of them has JAX.
_PUBLIC = {"Rows": "model", "allreduce": "reducing", "broadcast": "reducing", "model": "model"}
__all__ = ["Rows", "allreduce", "broadcast", "model"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lepton_mpi.jax' has no attribute {name!r}")
    found = getattr(import_module(f"lepton_mpi.jax.{_PUBLIC[name]}"), name)
    # Else the submodule of this name would take its place.
    globals()[name] = found
    return found
