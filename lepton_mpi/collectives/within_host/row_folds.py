"""Which kernel of ``row_fold_kernels.py`` combines the arrays of a call, and how it is told the operation."""

from functools import cache

from lepton_mpi.collectives.calls import Combination
from lepton_mpi.collectives.within_host import row_fold_kernels

OPERATION_CODES = {
    **{"sum": row_fold_kernels.SUM, "max": row_fold_kernels.MAX, "min": row_fold_kernels.MIN},
    **{"product": row_fold_kernels.PRODUCT, "mean": row_fold_kernels.MEAN},
    **{"band": row_fold_kernels.AND, "bor": row_fold_kernels.OR, "bxor": row_fold_kernels.XOR},
}


@cache
def fold_words(how: Combination, is_partial: bool) -> tuple[int, int, int]:
    """Address of the fold, its operation, bytes of an element of the result. Compiles it at the first call.

    A partial result is still to be combined with others.
    """
    stored = how.wide if is_partial else how.stored
    operation = "sum" if is_partial and how.operation == "mean" else how.operation
    address = row_fold_kernels.fold_address(how.stored, stored)
    item_bytes = 4 if stored != how.stored else how.item_bytes
    return address, OPERATION_CODES[operation], item_bytes
