"""The doors to torch: a module as a model of ``fit`` (``model``), and its ``state_dict`` as a file (``save``)."""

from importlib import import_module
from typing import Any

# Loaded on first use: whoever asks for one of them has torch.
_PUBLIC = {"model": "module", "save": "saving"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lepton_mpi.torch' has no attribute {name!r}")
    return getattr(import_module(f"lepton_mpi.torch.{_PUBLIC[name]}"), name)
