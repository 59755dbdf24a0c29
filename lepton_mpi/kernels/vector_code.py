"""Writes operations on vectors of 64 bytes as LLVM's instructions, for kernels that LLVM does not find in loops.

Where registers are shorter, LLVM splits the vectors.
"""

import numba
from llvmlite import ir
from numba.core.codegen import get_host_cpu_features

VECTOR_BYTES = 64
# Of a number that says which row of a table is meant: they are int64.
PLACE_BYTES = 8
_word, _half_word, _bit = ir.IntType(64), ir.IntType(32), ir.IntType(1)


def compiles_for(feature: str) -> bool:
    """Whether the processor that Numba compiles for has ``feature``, called as LLVM calls it.

    That is this one, unless NUMBA_CPU_FEATURES or the NUMBA_CPU_NAME ``generic`` say otherwise.
    """
    asked = numba.config.CPU_FEATURES
    features = get_host_cpu_features() if asked is None else asked
    return f"+{feature}" in features.split(",")


class VectorCode:
    """Operations on vectors of one element type.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    scalar : llvmlite.ir.Type
        float or double
    width : int
        Bytes of an element.

    Attributes
    ----------
    lanes : int
        Elements of a vector.
    zero : llvmlite.ir.Constant
    """

    def __init__(self, builder, scalar, width: int) -> None:
        self.builder, self.scalar, self.width = builder, scalar, width
        self.lanes = VECTOR_BYTES // width
        self.vector = ir.VectorType(scalar, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        self._mask = ir.VectorType(_bit, self.lanes)

    def row_of(self, table, places, index, row_bytes):
        """Address of the row of ``table`` that ``places`` has at ``index``; all are int64, the first two addresses."""
        at = self.builder.add(places, self.builder.mul(index, _word(PLACE_BYTES)))
        pointer = self.builder.inttoptr(at, _word.as_pointer())
        place = self.builder.load(pointer, align=PLACE_BYTES)
        return self.builder.add(table, self.builder.mul(place, row_bytes))

    def splat(self, value):
        """A vector whose lanes are all ``value``."""
        return self._splat(value, self.scalar)

    def first_lanes(self, count):
        """A mask of the first ``count`` lanes, int64; none, if it is 0 or less."""
        lanes = ir.Constant(ir.VectorType(_half_word, self.lanes), list(range(self.lanes)))
        count = self.builder.trunc(count, _half_word)
        return self.builder.icmp_signed("<", lanes, self._splat(count, _half_word))

    def load(self, address, mask=None):
        """The vector at ``address``, aligned as its elements are; with a mask 0 in the other lanes, which are not read."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        if mask is None:
            return self.builder.load(pointer, align=self.width)
        kinds = [pointer.type, _half_word, self._mask, self.vector]
        load = self._function(f"llvm.masked.load.{self._suffix}.p0", self.vector, kinds)
        return self.builder.call(load, [pointer, _half_word(self.width), mask, self.zero])

    def store(self, value, address, mask=None) -> None:
        """Write a vector to ``address``; with a mask the other lanes' memory stays as it is."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        if mask is None:
            self.builder.store(value, pointer, align=self.width)
            return
        kinds = [self.vector, pointer.type, _half_word, self._mask]
        store = self._function(f"llvm.masked.store.{self._suffix}.p0", ir.VoidType(), kinds)
        self.builder.call(store, [value, pointer, _half_word(self.width), mask])

    def multiply_add(self, left, right, addend):
        """``left * right + addend`` with one rounding."""
        multiply_add = self._function(f"llvm.fma.{self._suffix}", self.vector, [self.vector] * 3)
        return self.builder.call(multiply_add, [left, right, addend])

    def sum_of_lanes(self, vector):
        """The lanes' sum, a scalar: each of the first half with its like in the second half, and so on."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            halves = [n + lanes if n < lanes else n for n in range(self.lanes)]
            vector = self.builder.fadd(vector, self.choose(vector, vector, halves))
        return self.builder.extract_element(vector, _half_word(0))

    def choose(self, left, right, lanes: list[int]):
        """A vector of ``lanes`` of both, those of ``right`` numbered from ``self.lanes`` on."""
        numbers = ir.Constant(ir.VectorType(_half_word, self.lanes), lanes)
        return self.builder.shuffle_vector(left, right, numbers)

    @property
    def _suffix(self) -> str:
        return f"v{self.lanes}f{8 * self.width}"

    def _splat(self, value, kind):
        vector = ir.VectorType(kind, self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, _half_word(0))
        places = ir.Constant(ir.VectorType(_half_word, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, places)

    def _function(self, name: str, result, kinds):
        module = self.builder.module
        return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, kinds), name)
