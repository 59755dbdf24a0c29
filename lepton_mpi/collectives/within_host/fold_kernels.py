"""Combines 1, 2, 4 or 8 vectors in one pass, by explicit vector instructions: what meeting_kernels adds with.

    for every 64 bytes:  load a line of every operand -> ((a b)(c d))((e f)(g h)) -> store it to every target

LLVM does not vectorise a loop over so many arrays, since it cannot exclude that two of them overlap; and passes
of two operands each go over what they add several times, with few streams from memory at once. ``benchmarks/limit.py``
times both. The combination is element by element, so the bits are those of the passes.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lepton_mpi.collectives.combining_kernels import OPERATIONS, SUM, combined
from lepton_mpi.kernels.intrinsics import LINE_BYTES

# Numbers of operands of one pass.
ARITIES = (1, 2, 4, 8)

_word = ir.IntType(64)


@intrinsic
def fold(
    typing_context,
    like,
    addresses,
    arity,
    operation,
    streaming,
    target_count,
    byte_count,
):
    """Combine ``arity`` vectors of ``byte_count`` bytes and store the result to ``target_count`` >= 1 targets.

    like : any array of the element type
    addresses : int64, first those of the operands, then those of the targets
    arity : 1, 2, 4 or 8; operation : SUM, MAX or MIN
    streaming : store a sum past the caches; there is one target then, 64-byte aligned, and ``byte_count`` is
        a multiple of 64
    """

    def generate(context, builder, signature, arguments):
        kind = signature.args[0].dtype
        words = context.make_array(signature.args[1])(context, builder, arguments[1])
        _, _, arity, operation, streaming, target_count, byte_count = arguments
        code = _Fold(context, builder, kind, words.data, target_count, byte_count)
        for known_arity in ARITIES:
            with builder.if_then(builder.icmp_signed("==", arity, _word(known_arity))):
                if known_arity == 1:  # nothing to combine
                    code.loops(1, SUM)
                    continue
                for known_operation in OPERATIONS.values():
                    if not _may_be(operation, known_operation):
                        continue
                    same = builder.icmp_signed("==", operation, _word(known_operation))
                    with builder.if_then(same):
                        if known_operation == SUM:
                            code.sum(known_arity, streaming)
                        else:
                            code.loops(known_arity, known_operation)
        return context.get_dummy_value()

    number = types.int64
    signature = types.none(like, addresses, number, number, types.boolean, number, number)
    return signature, generate


def _may_be(value, known: int) -> bool:
    """Whether an argument can have that value: for what a kernel says as a constant no other code is written."""
    return not isinstance(value, ir.Constant) or int(value.constant) == known


class _Fold:
    """Writes the loops of one fold."""

    def __init__(self, context, builder, kind, addresses, target_count, byte_count) -> None:
        self.builder, self.addresses = builder, addresses
        self.target_count, self.byte_count = target_count, byte_count
        self.scalar, self.width = context.get_data_type(kind), kind.bitwidth // 8
        self.is_float = isinstance(kind, types.Float)

    def sum(self, arity: int, streaming) -> None:
        """Past the caches, or with the loops of ``choose_targets``."""
        builder = self.builder
        if _may_be(streaming, True):
            with builder.if_then(streaming):
                self.loops(arity, SUM, 1, True)
        if _may_be(streaming, False):
            with builder.if_then(builder.not_(streaming)):
                self.choose_targets(arity)

    def choose_targets(self, arity: int) -> None:
        """With loops of their own for the numbers of targets that are usual."""
        builder = self.builder
        usual = [1, 2] if arity == 2 else [1, arity]
        is_usual = cgutils.false_bit
        for number in usual:
            same = builder.icmp_signed("==", self.target_count, _word(number))
            with builder.if_then(same):
                self.loops(arity, SUM, number)
            is_usual = builder.or_(is_usual, same)
        with builder.if_then(builder.not_(is_usual)):
            self.loops(arity, SUM)

    def loops(self, arity: int, operation: int, targets: int = 0, streaming: bool = False) -> None:
        """Whole lines, then the elements that are left; for ``targets``, or 0 if their number is not known."""
        bases = [self._address(_word(number)) for number in range(arity + max(1, targets))]
        whole = self.builder.and_(self.byte_count, _word(-LINE_BYTES))
        line = ir.VectorType(self.scalar, LINE_BYTES // self.width)
        parts = [(line, _word(0), whole, LINE_BYTES)]
        if not streaming:
            parts.append((self.scalar, whole, self.byte_count, self.width))
        for kind, start, stop, step in parts:
            with cgutils.for_range_slice(self.builder, start, stop, _word(step), _word) as (at, _):
                value = self._combined_at(kind, at, bases[:arity], operation)
                self._store(kind, at, value, bases[arity:], arity if targets == 0 else 0, streaming)

    def _address(self, number):
        return self.builder.load(self.builder.gep(self.addresses, [number]))

    def _combined_at(self, kind, offset, operands, operation: int):
        """One line or element of the operands, combined."""
        values = [
            self.builder.load(self._pointer(kind, base, offset), align=self.width)
            for base in operands
        ]
        while len(values) > 1:
            pairs = zip(values[::2], values[1::2], strict=True)
            values = [combined(self.builder, operation, self.is_float, *pair) for pair in pairs]
        return values[0]

    def _store(self, kind, offset, value, targets, first_target: int, streaming: bool) -> None:
        """To ``targets``, and, if ``first_target`` is not 0, to all but the first from that address on."""
        builder = self.builder
        for base in targets:
            align = LINE_BYTES if streaming else self.width
            stored = builder.store(value, self._pointer(kind, base, offset), align=align)
            if streaming:
                one = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
                stored.set_metadata("nontemporal", one)
        if first_target:
            with cgutils.for_range(builder, self.target_count, start=_word(1)) as others:
                target = self._address(builder.add(_word(first_target), others.index))
                builder.store(value, self._pointer(kind, target, offset), align=self.width)

    def _pointer(self, kind, base, offset):
        return self.builder.inttoptr(self.builder.add(base, offset), kind.as_pointer())
