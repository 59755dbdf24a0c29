"""Combines any number of rows of any dtype in one pass, in the order of the summation tree, by explicit vector instructions.

    for every block of 256 bytes:   load it of row 0, 1, 2, … and merge as a binary counter carries -> store to the target

        row      0      1        2          3                    the values alive are the whole nodes of
        alive    0      01       01 2       0123                 ``summation_tree.py``, so the bits are those of ``make_plan``

Values alive are in the first-level cache, 256 bytes each, and in registers for 2, 4 and 8 rows.
16-bit floats are widened to float32 as they are loaded, and rounded once, to nearest even, as the result is stored.
A kernel is called by its address: so what meets and copies (``staged_kernels.py``) is compiled once for all dtypes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lepton_mpi.collectives.combining_kernels import MAX, MIN, SUM, combined
from lepton_mpi.kernels.compiling import Kernel, kernel

PRODUCT, MEAN, AND, OR, XOR = range(3, 8)
_FLOAT_OPERATIONS = (SUM, MAX, MIN, PRODUCT, MEAN)
_WHOLE_OPERATIONS = (SUM, MAX, MIN, PRODUCT, AND, OR, XOR)

# Of the type that is computed in. With 64 instead a loop spends as much on addresses as on numbers.
_BLOCK_BYTES = 256
# Levels of a tree over 2**20 rows.
_LEVELS = 21
_ARITIES = (2, 4, 8)

_word, _half, _single = ir.IntType(64), ir.IntType(16), ir.FloatType()
_SIGNATURE = "void(i8, i8, i8, i8, i8, f8)"


@dataclass(frozen=True)
class _Kind:
    """How numbers are stored, and what they are computed in."""

    stored: Any
    computed: Any
    is_signed: bool = True
    is_bfloat16: bool = False

    @property
    def is_float(self) -> bool:
        return not isinstance(self.computed, ir.IntType)

    @property
    def stored_bytes(self) -> int:
        return _byte_count(self.stored)


_KINDS = {
    "uint8": _Kind(ir.IntType(8), ir.IntType(8), is_signed=False),
    "int8": _Kind(ir.IntType(8), ir.IntType(8)),
    "int16": _Kind(ir.IntType(16), ir.IntType(16)),
    "int32": _Kind(ir.IntType(32), ir.IntType(32)),
    "int64": _Kind(ir.IntType(64), ir.IntType(64)),
    "float16": _Kind(ir.HalfType(), _single),
    "bfloat16": _Kind(_half, _single, is_bfloat16=True),
    "float32": _Kind(_single, _single),
    "float64": _Kind(ir.DoubleType(), ir.DoubleType()),
}


def _byte_count(kind) -> int:
    sizes = {ir.HalfType: 2, ir.FloatType: 4, ir.DoubleType: 8}
    return kind.width // 8 if isinstance(kind, ir.IntType) else sizes[type(kind)]


@intrinsic(prefer_literal=True)
def _fold_rows(typing_context, source, target, table, rows, out, elements, operation, divisor):
    """Combine rows of ``source`` to ``target``, two names of ``_KINDS``."""
    names = source.literal_value, target.literal_value

    def generate(context, builder, signature, arguments):
        kinds = (_KINDS[name] for name in names)
        _Folding(builder, *kinds, *arguments[2:]).write()
        return context.get_dummy_value()

    whole = [types.int64] * 5
    return types.none(source, target, *whole, types.float64), generate


class _Folding:
    """Writes the loops of one kernel."""

    def __init__(self, builder, source, target, table, rows, out, elements, operation, divisor):
        self.builder, self.source, self.target = builder, source, target
        self.table, self.rows, self.out = table, rows, out
        self.elements, self.operation = elements, operation
        self.divisor = builder.fptrunc(divisor, _single) if source.computed is _single else divisor
        self.lanes = _BLOCK_BYTES // _byte_count(source.computed)

    def write(self) -> None:
        builder = self.builder
        known = _FLOAT_OPERATIONS if self.source.is_float else _WHOLE_OPERATIONS
        for operation in known:
            with builder.if_then(builder.icmp_signed("==", self.operation, _word(operation))):
                arities = _ARITIES if operation in (SUM, MEAN) and self.source.is_float else ()
                self.choose_rows(operation, arities)

    def choose_rows(self, operation: int, arities: tuple[int, ...]) -> None:
        builder, is_known = self.builder, cgutils.false_bit
        for arity in arities:
            same = builder.icmp_signed("==", self.rows, _word(arity))
            with builder.if_then(same):
                self.loops(operation, arity)
            is_known = builder.or_(is_known, same)
        with builder.if_then(builder.not_(is_known)):
            self.loops(operation, 0)

    def loops(self, operation: int, arity: int) -> None:
        """Whole blocks, then the elements that are left; for ``arity`` rows, or 0 if their number is not known."""
        builder = self.builder
        whole = builder.and_(self.elements, _word(-self.lanes))
        bases = [self.base(_word(row)) for row in range(arity)]
        for lanes, start, stop in ((self.lanes, _word(0), whole), (1, whole, self.elements)):
            live = None if arity else self.alive(lanes)
            with cgutils.for_range_slice(builder, start, stop, _word(lanes), _word) as (at, _):
                if arity:
                    value = self.tree([self.load(base, at, lanes) for base in bases], operation)
                else:
                    value = self.counted(live, at, lanes, operation)
                self.store(value, at, lanes, operation)

    def alive(self, lanes: int):
        """Room for the nodes that wait for their sibling."""
        kind = self.source.computed if lanes == 1 else ir.VectorType(self.source.computed, lanes)
        return cgutils.alloca_once(self.builder, kind, size=_word(_LEVELS))

    def tree(self, values: list, operation: int):
        while len(values) > 1:
            pairs = zip(values[::2], values[1::2], strict=True)
            values = [self.combine(operation, *pair) for pair in pairs]
        return values[0]

    def counted(self, live, at, lanes: int, operation: int):
        """The tree over a number of rows that is not known."""
        builder = self.builder
        top = cgutils.alloca_once_value(builder, _word(0))
        ones = cgutils.alloca_once(builder, _word)

        def merge() -> None:
            level = builder.sub(builder.load(top), _word(1))
            lower = builder.sub(level, _word(1))
            left, right = (builder.gep(live, [place]) for place in (lower, level))
            builder.store(self.combine(operation, builder.load(left), builder.load(right)), left)
            builder.store(level, top)

        builder.store(_word(0), top)
        with cgutils.for_range(builder, self.rows) as row:
            place = builder.load(top)
            builder.store(self.load(self.base(row.index), at, lanes), builder.gep(live, [place]))
            builder.store(builder.add(place, _word(1)), top)
            builder.store(row.index, ones)
            with _while(builder, lambda: builder.trunc(builder.load(ones), ir.IntType(1))):
                merge()
                builder.store(builder.lshr(builder.load(ones), _word(1)), ones)
        with _while(builder, lambda: builder.icmp_signed(">", builder.load(top), _word(1))):
            merge()
        return builder.load(live)

    def combine(self, operation: int, left, right):
        builder = self.builder
        if operation in (AND, OR, XOR):
            how = {AND: builder.and_, OR: builder.or_, XOR: builder.xor}[operation]
            return how(left, right)
        if operation == PRODUCT:
            return (builder.fmul if self.source.is_float else builder.mul)(left, right)
        if operation == MEAN:
            operation = SUM
        if operation != SUM and not self.source.is_signed:
            sign = ">" if operation == MAX else "<"
            return builder.select(builder.icmp_unsigned(sign, left, right), left, right)
        return combined(builder, operation, self.source.is_float, left, right)

    def base(self, row):
        words = self.builder.inttoptr(self.table, _word.as_pointer())
        return self.builder.load(self.builder.gep(words, [row]))

    def place(self, kind: _Kind, base, at, lanes: int):
        """Pointer to ``lanes`` elements from element ``at`` on."""
        builder = self.builder
        stored = kind.stored if lanes == 1 else ir.VectorType(kind.stored, lanes)
        address = builder.add(base, builder.mul(at, _word(kind.stored_bytes)))
        return builder.inttoptr(address, stored.as_pointer())

    def load(self, base, at, lanes: int):
        builder, kind = self.builder, self.source
        value = builder.load(self.place(kind, base, at, lanes), align=kind.stored_bytes)
        if kind.is_bfloat16:
            bits = builder.zext(value, _like(ir.IntType(32), lanes))
            shifted = builder.shl(bits, _constant(ir.IntType(32), 16, lanes))
            return builder.bitcast(shifted, _like(_single, lanes))
        if kind.stored is not kind.computed and kind.is_float:
            return builder.fpext(value, _like(_single, lanes))
        return value

    def store(self, value, at, lanes: int, operation: int) -> None:
        builder, kind = self.builder, self.target
        if operation == MEAN:
            value = builder.fdiv(value, self.spread(self.divisor, lanes))
        if kind.is_bfloat16:
            value = self.to_bfloat16(value, lanes)
        elif kind.stored is not kind.computed and kind.is_float:
            value = builder.fptrunc(value, _like(kind.stored, lanes))
        builder.store(value, self.place(kind, self.out, at, lanes), align=kind.stored_bytes)

    def spread(self, value, lanes: int):
        """The number in all lanes."""
        if lanes == 1:
            return value
        kind, builder = ir.VectorType(value.type, lanes), self.builder
        first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)

    def to_bfloat16(self, value, lanes: int):
        """Rounded to nearest even; NaN stays NaN."""
        builder, whole = self.builder, ir.IntType(32)

        def number(value: int):
            return _constant(whole, value, lanes)

        bits = builder.bitcast(value, _like(whole, lanes))
        odd = builder.and_(builder.lshr(bits, number(16)), number(1))
        rounded = builder.add(builder.add(bits, number(0x7FFF)), odd)
        quiet = builder.or_(bits, number(0x400000))
        is_nan = builder.fcmp_unordered("uno", value, value)
        chosen = builder.lshr(builder.select(is_nan, quiet, rounded), number(16))
        return builder.trunc(chosen, _like(_half, lanes))


def _like(kind, lanes: int):
    return kind if lanes == 1 else ir.VectorType(kind, lanes)


def _constant(kind, value: int, lanes: int):
    return ir.Constant(_like(kind, lanes), value if lanes == 1 else [value] * lanes)


@contextmanager
def _while(builder, condition: Callable[[], Any]) -> Iterator[None]:
    """A block that is carried out as long as ``condition``, written before each time, is true."""
    test, body, end = (builder.append_basic_block(name) for name in ("test", "body", "end"))
    builder.branch(test)
    builder.position_at_end(test)
    builder.cbranch(condition(), body, end)
    builder.position_at_end(body)
    yield
    builder.branch(test)
    builder.position_at_end(end)


def _made(source: str, target: str) -> Kernel:
    """The kernel (table, rows, out, elements, operation, divisor), all int64 but the last one, float64.

    table : address of the addresses of the rows; out : address of the result, which may be one of the rows; operation : one of
    those above; divisor : of MEAN, the number of contributions.
    """

    def fold(table, rows, out, elements, operation, divisor):
        _fold_rows(source, target, table, rows, out, elements, operation, divisor)

    return kernel(_SIGNATURE)(fold)


# By how rows and the result are stored. Between hosts, partial sums of 16-bit floats are float32.
FOLDS = {(name, name): _made(name, name) for name in _KINDS}
for _name in ("float16", "bfloat16"):
    FOLDS |= {
        (_name, "float32"): _made(_name, "float32"),
        ("float32", _name): _made("float32", _name),
    }


def fold_address(source: str, target: str) -> int:
    """Address of a kernel of ``FOLDS``, for ``call_fold``; compiles it, or loads it from disk, at the first call."""
    found = FOLDS[source, target]
    found.compile(_SIGNATURE)
    (result,) = found.overloads.values()
    return result.library.get_pointer_to_function(result.fndesc.llvm_func_name)


@intrinsic
def call_fold(typing_context, address, table, rows, out, elements, operation, divisor):
    """Call the kernel at ``address`` with the other arguments."""

    def generate(context, builder, signature, arguments):
        kinds, given = signature.args[1:], arguments[1:]
        kind = context.call_conv.get_function_type(types.none, kinds)
        function = builder.inttoptr(arguments[0], kind.as_pointer())
        context.call_conv.call_function(builder, function, types.none, kinds, given)
        return context.get_dummy_value()

    whole = [types.int64] * 6
    return types.none(*whole, types.float64), generate
