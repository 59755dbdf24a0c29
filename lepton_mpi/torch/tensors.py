"""Tensors as the NumPy arrays that a ``Communicator`` takes, without a copy where their memory allows it.

A collective that moves data sees bytes, whatever the type. One that reduces sees numbers:

    float16 float32 float64 int8 to int64 uint8    as they are
    bool                                           sum and max are "or", product and min are "and"
    bfloat16                                       uint16 with kind "bfloat16"
    complex64 complex128                           pairs of floats; sum and mean alone
    uint16 uint32 uint64                           int64 for the time of the call; what overflows wraps round, as in torch

A tensor that is not contiguous is copied before the call and, if it is written to, back after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributed import ReduceOp

_OPERATIONS = {
    ReduceOp.SUM: "sum",
    ReduceOp.AVG: "mean",
    ReduceOp.PRODUCT: "product",
    ReduceOp.MIN: "min",
    ReduceOp.MAX: "max",
    ReduceOp.BAND: "band",
    ReduceOp.BOR: "bor",
    ReduceOp.BXOR: "bxor",
}
_PLAIN = {
    *(torch.float16, torch.float32, torch.float64, torch.bool, torch.uint8),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
}
_WIDENED = {torch.uint16, torch.uint32, torch.uint64}


class Numbers(NamedTuple):
    """What a reduction is given.

    Attributes
    ----------
    array : ndarray of one dimension
    kind : str or None
        "bfloat16" where ``array`` holds its bits.
    operation : str
        Of the ``Communicator``.
    give_back : callable or None
        Puts the result, which is in ``array``, where it belongs; None where it is there.
    """

    array: np.ndarray
    kind: str | None
    operation: str
    give_back: Callable[[], Any] | None


def check_on_cpu(tensors: Sequence[Tensor]) -> None:
    """Raise ValueError unless all are dense tensors in the memory of the CPU."""
    for tensor in tensors:
        if tensor.layout is not torch.strided or not tensor.is_cpu:
            raise ValueError(
                f"backend lepton: expected dense tensors on the CPU, got one on {tensor.device} with layout {tensor.layout}"
            )


def memory_of(tensor: Tensor) -> np.ndarray:
    """The memory of a contiguous tensor, as an array of its numbers, or of integers of their size, in one dimension."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.is_neg() or tensor.is_conj():
        raise ValueError("backend lepton: call resolve_conj() or resolve_neg() on the tensor first")
    try:
        return tensor.numpy().reshape(-1)
    except TypeError:
        integers = torch.int16 if tensor.element_size() == 2 else torch.uint8
        return tensor.reshape(-1).view(integers).numpy()


def bytes_of(tensor: Tensor) -> np.ndarray:
    """The bytes of a contiguous tensor."""
    return memory_of(tensor).view(np.uint8)


def contiguous(tensor: Tensor) -> Tensor:
    """The tensor, or a copy that is contiguous."""
    return tensor if tensor.is_contiguous() else tensor.detach().contiguous()


class Outputs:
    """Tensors that a call writes, as arrays of bytes; ``give_back`` fills those that are not contiguous."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        check_on_cpu(tensors)
        pairs = [(one, contiguous(one)) for one in tensors]
        self.arrays = [bytes_of(dense) for _, dense in pairs]
        self._copies = [(one, dense) for one, dense in pairs if one is not dense]

    def give_back(self) -> None:
        """After the call."""
        for tensor, dense in self._copies:
            tensor.detach().copy_(dense)


def inputs_of(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Tensors that a call reads, as arrays of bytes."""
    check_on_cpu(tensors)
    return [bytes_of(contiguous(one)) for one in tensors]


def numbers_of(tensor: Tensor, reduce_op: Any, is_output: bool = True) -> Numbers:
    """What to reduce, see above.

    Raises ValueError for an operation that numbers of this type do not have.
    """
    dtype = tensor.dtype
    key = dtype, getattr(reduce_op, "op", reduce_op)
    operation = _found.get(key)
    if operation is None:
        operation = _found[key] = _operation(*key)
    check_on_cpu((tensor,))
    if dtype in _PLAIN and tensor.is_contiguous():
        return Numbers(memory_of(tensor), None, operation, None)
    dense = contiguous(tensor)
    if dtype in _WIDENED:
        dense = dense.to(torch.int64)
    array, kind = memory_of(dense), None
    if dtype is torch.bfloat16:
        array, kind = array.view(np.uint16), "bfloat16"
    elif dtype.is_complex:
        array = array.view(np.float32 if dtype is torch.complex64 else np.float64)
    if dense is tensor or not is_output:
        return Numbers(array, kind, operation, None)
    return Numbers(array, kind, operation, lambda: tensor.detach().copy_(dense))


# What was looked up before, by type and operation: a small call takes as long as its look-ups.
_found: dict[Any, str] = {}


def _operation(dtype: torch.dtype, reduce_op: Any) -> str:
    operation = _OPERATIONS.get(reduce_op)
    is_float = dtype.is_floating_point
    known = dtype in _PLAIN or dtype in _WIDENED or dtype is torch.bfloat16
    allowed = known
    if dtype.is_complex:
        allowed = operation in ("sum", "mean")
    elif operation == "mean":
        allowed = known and is_float
    elif operation in ("band", "bor", "bxor"):
        allowed = known and not is_float
    if operation is None or not allowed:
        raise ValueError(
            f"backend lepton: no {operation or reduce_op} of tensors of {dtype}; "
            "sum, min, max and product are for all real types, sum and mean for complex ones, mean for floats, "
            "bitwise operations for integers and booleans"
        )
    return operation


def check_same_type(tensors: Sequence[Tensor]) -> None:
    """Raise ValueError unless all tensors have the type of the first."""
    for tensor in tensors:
        if tensor.dtype is not tensors[0].dtype:
            raise ValueError(
                f"backend lepton: expected tensors of one type, got {tensors[0].dtype} and {tensor.dtype}"
            )


def listed(tensors: Any) -> list[Tensor]:
    """A list of tensors, or one tensor, as a list."""
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)
