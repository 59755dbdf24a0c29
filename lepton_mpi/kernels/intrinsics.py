"""What Numba has no word for: the address of an array and back, hints to the caches, and stores past them."""

import platform

from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from lepton_mpi.kernels.compiling import inlined

LINE_BYTES = 64
_word, _half_word = ir.IntType(64), ir.IntType(32)


@intrinsic
def base_address(typing_context, array):
    """Address of the first element, as int64."""

    def generate(context, builder, signature, arguments):
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(made.data, _word)

    return types.int64(array), generate


@intrinsic
def _pointer(typing_context, like, address):
    def generate(context, builder, signature, arguments):
        kind = context.get_value_type(signature.return_type)
        return builder.inttoptr(arguments[1], kind)

    return types.CPointer(like.dtype)(like, types.int64), generate


@intrinsic
def _word_pointer(typing_context, address):
    def generate(context, builder, signature, arguments):
        kind = context.get_value_type(signature.return_type)
        return builder.inttoptr(arguments[0], kind)

    return types.CPointer(types.int64)(types.int64), generate


@intrinsic
def _number_pointer(typing_context, address):
    def generate(context, builder, signature, arguments):
        kind = context.get_value_type(signature.return_type)
        return builder.inttoptr(arguments[0], kind)

    return types.CPointer(types.float64)(types.int64), generate


@inlined
def numbers_at(address, count):
    """The ``count`` numbers of float64 at ``address`` (int64); they must outlive the result."""
    return carray(_number_pointer(address), (count,))


@inlined
def words_at(address, count):
    """The ``count`` words of int64 at ``address`` (int64); they must outlive the result."""
    return carray(_word_pointer(address), (count,))


@inlined
def vector_at(like, address, count):
    """The ``count`` elements at ``address`` (int64), of the type of the array ``like``; they must outlive the result."""
    return carray(_pointer(like, address), (count,))


# The C library's, addresses as int64: target, source, bytes. Between cores it is worth its call from some kilobytes on: the C
# library knows of which length a processor copies fastest by one instruction for the whole, x86's "rep movsb", which need not
# fetch the lines that it overwrites from the core that had them last.
copy_bytes = types.ExternalFunction("memcpy", types.int64(types.int64, types.int64, types.int64))


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


@intrinsic
def stream_line(typing_context, like, source, target):
    """Copy the cache line at address ``source`` to ``target``, past the caches; ``like`` is an array of what is in it.

    Both are int64, and target a multiple of LINE_BYTES. Others may see it late: a fence comes before they are told.
    """

    def generate(context, builder, signature, arguments):
        scalar = context.get_data_type(signature.args[0].dtype)
        width = signature.args[0].dtype.bitwidth // 8
        line = ir.VectorType(scalar, LINE_BYTES // width).as_pointer()
        value = builder.load(builder.inttoptr(arguments[1], line), align=width)
        stored = builder.store(value, builder.inttoptr(arguments[2], line), align=LINE_BYTES)
        one = builder.module.add_metadata([ir.Constant(_half_word, 1)])
        stored.set_metadata("nontemporal", one)
        return context.get_dummy_value()

    return types.none(like, types.int64, types.int64), generate


@intrinsic
def stream_fence(typing_context):
    """Make streaming stores (``stream_line``) visible before anything stored later."""

    def generate(context, builder, signature, arguments):
        call_on_x86(builder, "llvm.x86.sse.sfence")
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), generate


def call_on_x86(builder, name):
    """Call an instruction of x86-64 that has neither arguments nor result; nothing elsewhere."""
    if platform.machine() == "x86_64":
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
