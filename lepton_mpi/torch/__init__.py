"""Backend ``lepton`` of ``torch.distributed``, registered by ``import lepton_mpi.torch``; see README.md of this folder.

backend.py         the class that torch makes a process group of; process_group.py its calls
work.py            calls that are done or under way, and whose turn it is; messages.py those of two ranks
tensors.py         tensors as NumPy arrays
job.py             the World that process groups share; environment.py launcher, store and addresses
monitor.py         who is late
shared_buckets.py  DDP without copies of its buckets
canonical.py       DDP with the same bits on any number of ranks
module.py          a torch module as a model of ``fit``
"""

from __future__ import annotations

from typing import Any

from lepton_mpi.extras import pip_install

try:
    import torch
    import torch.distributed
except ImportError as error:
    raise ImportError(
        f"lepton_mpi.torch needs torch: {pip_install('torch')}, or torch for the CPU as pytorch.org says"
    ) from error

# Of the oldest torch on which the tests pass; on 2.4 functional collectives do not find their group.
_OLDEST = 2, 8
if tuple(map(int, torch.__version__.split(".")[:2])) < _OLDEST:
    raise ImportError(
        f"lepton_mpi.torch needs torch {'.'.join(map(str, _OLDEST))} or later, got {torch.__version__}: "
        f"{pip_install('torch')}"
    )

from lepton_mpi.torch.backend import register  # noqa: E402

_PUBLIC = {
    "CanonicalGradients": "canonical",
    "SharedBuckets": "shared_buckets",
    "canonical_hook": "canonical",
    "model": "module",
    "save": "saving",
    "shared_hook": "shared_buckets",
}
__all__ = ["CanonicalGradients", "SharedBuckets", "canonical_hook", "model", "save", "shared_hook"]

if not torch.distributed.is_available():
    raise ImportError("lepton_mpi.torch needs a torch that was built with torch.distributed")
register()


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _PUBLIC:
        raise AttributeError(f"module 'lepton_mpi.torch' has no attribute {name!r}")
    return getattr(import_module(f"lepton_mpi.torch.{_PUBLIC[name]}"), name)
