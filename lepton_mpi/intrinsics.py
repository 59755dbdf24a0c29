"""What Numba has no word for: the address of an array, and a hint to the cache."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_word, _half_word = ir.IntType(64), ir.IntType(32)


@intrinsic
def base_address(typing_context, array):
    """Address of the first element, as int64."""

    def generate(context, builder, signature, arguments):
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(made.data, _word)

    return types.int64(array), generate


@intrinsic
def prefetch(typing_context, address):
    """Ask for the cache line at ``address`` (int64), to be read soon. Any address may be given; nothing is waited for."""

    def generate(context, builder, signature, arguments):
        emit_prefetch(builder, arguments[0])
        return context.get_dummy_value()

    return types.none(types.int64), generate


def emit_prefetch(builder, address) -> None:
    """The same for those who write code themselves."""
    pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, _half_word, _half_word, _half_word])
    name = "llvm.prefetch.p0"
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    # To read, into the outer caches, data and not code: the first level has better things to hold.
    builder.call(function, [pointer, _half_word(0), _half_word(1), _half_word(1)])
