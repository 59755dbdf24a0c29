"""``save``: the ``state_dict`` of a module as a safetensors file, which runs no program when it is read, as a pickle may."""

from pathlib import Path

import torch
from torch import Tensor, nn

from lepton_mpi.data.files.parameter_writing import Stored, little_endian, write_stored
from lepton_mpi.errors import DataError, LauncherError
from lepton_mpi.torch.tensors import memory_of

_SUFFIX = ".safetensors"
# torch's types, which not every version has all of, and their names in safetensors.
_NAMES = {
    **{"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL"},
    **{"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8"},
    **{"uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8"},
    **{"complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"},
}
_KINDS = {getattr(torch, name): kind for name, kind in _NAMES.items() if hasattr(torch, name)}


def save(module: nn.Module, path: str | Path) -> None:
    """Write ``module.state_dict()`` to ``path``, in full or not at all. Not collective: one rank calls it.

    What several layers share is written once, under its first name, as by ``safetensors.torch.save_model``; that library's
    ``load_model(module, path)`` reads it, and so does ``--initial``.

    Raises
    ------
    DataError
        A path that does not end in .safetensors; a tensor of a type that such files do not have.
    LauncherError
        A file that cannot be written.
    """
    path = Path(path)
    if not path.name.endswith(_SUFFIX):
        raise DataError(f"{path}: expected a file whose name ends in {_SUFFIX}")
    stored, about = _once(module, path)
    try:
        write_stored(path, stored, about)
    except OSError as error:
        raise LauncherError(f"cannot write {path}: {error.strerror or error}") from None


def _once(module: nn.Module, path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """Tensors by name, and of names that stand for the same memory as an earlier one, that name."""
    stored: dict[str, Stored] = {}
    names: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    about = {"format": "pt"}
    for name, tensor in module.state_dict().items():
        key = tensor.data_ptr(), tuple(tensor.shape), tensor.stride()
        if tensor.numel() and key in names:
            about[name] = names[key]
            continue
        names[key] = name
        stored[name] = _stored(name, tensor, path)
    return stored, about


def _stored(name: str, tensor: Tensor, path: Path) -> Stored:
    kind = _KINDS.get(tensor.dtype)
    if kind is None:
        raise DataError(
            f"{path}: {name}: safetensors files have no {tensor.dtype}; expected one of {', '.join(map(str, _KINDS))}"
        )
    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return Stored(kind, tuple(tensor.shape), little_endian(memory_of(dense)))
