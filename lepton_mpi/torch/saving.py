"""``save``: the ``state_dict`` of a module as a safetensors file, which runs no program when it is read, as a pickle may."""

import os
import tempfile
from pathlib import Path

from torch import Tensor, nn

from lepton_mpi.durable import replace_durably
from lepton_mpi.errors import DataError, LauncherError
from lepton_mpi.extras import pip_install

_SUFFIX = ".safetensors"


def save(module: nn.Module, path: str | Path) -> None:
    """Write ``module.state_dict()`` to ``path``, in full or not at all. Not collective: one rank calls it.

    What several layers share is written once, under its first name, as by ``safetensors.torch.save_model``; that library's
    ``load_model(module, path)`` reads it, and so does ``--initial``.

    Raises
    ------
    DataError
        A path that does not end in .safetensors.
    LauncherError
        Without the library safetensors, or for a file that cannot be written.
    """
    path = Path(path)
    if not path.name.endswith(_SUFFIX):
        raise DataError(f"{path}: expected a file whose name ends in {_SUFFIX}")
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise LauncherError(
            f"{path}: is written by the library safetensors: {pip_install('safetensors')}"
        ) from None
    tensors, metadata = _once(module)
    try:
        handle, temporary = tempfile.mkstemp(suffix=_SUFFIX, dir=path.parent)
        os.close(handle)
        try:
            save_file(tensors, temporary, metadata)
            replace_durably(Path(temporary), path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise LauncherError(f"cannot write {path}: {error.strerror or error}") from None


def _once(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and of names that stand for the same memory as an earlier one, that name."""
    tensors: dict[str, Tensor] = {}
    names: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    metadata = {"format": "pt"}
    for name, tensor in module.state_dict().items():
        key = tensor.data_ptr(), tuple(tensor.shape), tensor.stride()
        if tensor.numel() and key in names:
            metadata[name] = names[key]
            continue
        names[key] = name
        tensors[name] = tensor.detach().clone().contiguous()
    return tensors, metadata
