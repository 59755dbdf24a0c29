"""Transposing a matrix, in square blocks of as many vectors as a vector has elements."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lepton_mpi.kernels.compiling import kernel
from lepton_mpi.kernels.intrinsics import base_address
from lepton_mpi.kernels.vector_code import VECTOR_BYTES, VectorCode

_word = ir.IntType(64)


@intrinsic
def transpose_block(typing_context, like, rows, columns, source, source_row, target, target_row):
    """Copy a block of at most a vector's length of rows and of columns, transposed.

    like : any array of the element type
    rows, columns : of the source, 1 or more
    source, target : addresses, in memory that does not overlap; source_row, target_row : bytes from a row to the next
    """

    def generate(context, builder, signature, arguments):
        kind = signature.args[0].dtype
        code = VectorCode(builder, context.get_data_type(kind), kind.bitwidth // 8)
        _transpose_block(code, *arguments[1:])
        return context.get_dummy_value()

    return types.none(like, *[types.int64] * 6), generate


def _transpose_block(code, rows, columns, source, source_row, target, target_row) -> None:
    """Swap the two blocks beside the diagonal, then those of each half, and so on down to single elements.

    Source: Eklundh, "A fast computer method for matrix transposing", IEEE Transactions on Computers C-21(7), 1972.
    """
    builder, lanes = code.builder, code.lanes

    def mask(limit, others, number):
        """Of the first ``limit`` lanes where ``number`` is below ``others``, else of none."""
        is_there = builder.icmp_signed("<", _word(number), others)
        return code.first_lanes(builder.select(is_there, limit, _word(0)))

    def row(base, step, number):
        return builder.add(base, builder.mul(step, _word(number)))

    vectors = [
        code.load(row(source, source_row, number), mask(columns, rows, number))
        for number in range(lanes)
    ]
    distance = lanes // 2
    while distance:
        upper = [n if not n & distance else lanes + n - distance for n in range(lanes)]
        lower = [n + distance if not n & distance else lanes + n for n in range(lanes)]
        for number in range(lanes):
            if not number & distance:
                pair = vectors[number], vectors[number + distance]
                vectors[number] = code.choose(*pair, upper)
                vectors[number + distance] = code.choose(*pair, lower)
        distance //= 2
    for number, vector in enumerate(vectors):
        code.store(vector, row(target, target_row, number), mask(rows, columns, number))


@kernel("void(M, M)")
def transpose(a, out):
    """``out = a.T``. Shapes (m, n), (n, m), in memory that does not overlap."""
    size, lanes = a.itemsize, VECTOR_BYTES // a.itemsize
    (m, n), at_a, at_out = a.shape, base_address(a), base_address(out)
    for i in range(0, m, lanes):
        for j in range(0, n, lanes):
            source, target = at_a + (i * n + j) * size, at_out + (j * m + i) * size
            shape = min(lanes, m - i), min(lanes, n - j)
            transpose_block(a, *shape, source, n * size, target, m * size)
