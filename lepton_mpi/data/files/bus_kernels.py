"""What the processor does when a mapped row cannot be read: SIGBUS, handled by compiled code, since Python's handlers would come too late.

Python only notes a signal and goes on at the instruction that has failed, for ever. So this handler looks up the address in a table of
what is mapped, prints one line with file, data set and row, and ends the process. Everything that it calls may be called in a signal handler.

    words 0 to 15   the number of mappings; room for a LINE; the text AFTER a row's number; where the address of the word is by which a
                    host's ranks tell each other that one has reported, and what it is then; the exit code; the handler BEFORE this one;
                    microseconds of PATIENCE before the end; the FIRST of the handlers before this one; whether a fault was PASSED_ON
    from 16 on      ROW words for each mapping: addresses [FROM, TO), bytes of a row, the text before the row's number

A fault at any other address is not ours: the handler that was there before is put back, and the instruction fails again. That handler may have
found this one when it came, and put it back in turn: then it is the first one's.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lepton_mpi.kernels.compiling import callback, inner
from lepton_mpi.kernels.intrinsics import copy_bytes, words_at

COUNT, LINE, AFTER, AFTER_BYTES, REPORTED_AT, REPORTED, EXIT_CODE, BEFORE, PATIENCE = range(9)
FIRST, PASSED_ON = 9, 10
HEAD = 16
FROM, TO, ROW_BYTES, TEXT, TEXT_BYTES = range(5)
ROW = 8

# Of ``siginfo_t`` on machines of 64 bits, in words: where the signal comes from, in half a word, above 0 for faults; the address that could not be
# read.
_CODE, _ADDRESS = 1, 2
_STANDARD_ERROR = 2
_ZERO = 48

_write = types.ExternalFunction("write", types.int64(types.int32, types.int64, types.int64))
_fill = types.ExternalFunction("memset", types.int64(types.int64, types.int32, types.int64))
_sleep = types.ExternalFunction("usleep", types.int32(types.uint32))
_end = types.ExternalFunction("_exit", types.void(types.int32))
_raise = types.ExternalFunction("raise", types.int32(types.int32))
_set_action = types.ExternalFunction(
    "sigaction", types.int32(types.int32, types.int64, types.int64)
)
_word = ir.IntType(64)


def _table(builder):
    """The module's own variable with the address of the table."""
    name = "lepton_mpi_mapped_rows"
    found = builder.module.globals.get(name)
    if found is None:
        found = cgutils.add_global_variable(builder.module, _word, name)
        found.initializer, found.linkage = _word(0), "internal"
    return found


@intrinsic
def _table_address(typing_context):
    def generate(context, builder, signature, arguments):
        return builder.load(_table(builder))

    return types.int64(), generate


@intrinsic
def _set_table_address(typing_context, address):
    def generate(context, builder, signature, arguments):
        builder.store(arguments[0], _table(builder))
        return context.get_dummy_value()

    return types.none(types.int64), generate


@intrinsic
def _put_if_zero(typing_context, address, value):
    """Put ``value`` to ``address`` where 0 is, and return what was there, as one step."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], _word.as_pointer())
        found = builder.cmpxchg(pointer, _word(0), arguments[1], "seq_cst", "seq_cst")
        return builder.extract_value(found, 0)

    return types.int64(types.int64, types.int64), generate


@inner
def _print_line(table, row, number):
    """One line, by one call."""
    line = table[LINE]
    copy_bytes(line, row[TEXT], row[TEXT_BYTES])
    at, unit = line + row[TEXT_BYTES], 1
    while number // unit >= 10:
        unit *= 10
    while unit > 0:
        _fill(at, _ZERO + number // unit % 10, 1)
        at += 1
        unit //= 10
    copy_bytes(at, table[AFTER], table[AFTER_BYTES])
    _write(_STANDARD_ERROR, line, at + table[AFTER_BYTES] - line)


@callback("i8(i4, i8, i8)")
def on_bus_error(number, told, context):
    """A handler of signals, by three arguments of C; with a ``number`` below 0, ``told`` is the address of the table from now on."""
    if number < 0:
        _set_table_address(told)
        return 0
    table = words_at(_table_address(), HEAD)
    address = words_at(told, _ADDRESS + 1)[_ADDRESS]
    for mapping in range(table[COUNT]):
        row = words_at(_table_address() + 8 * (HEAD + ROW * mapping), ROW)
        if row[FROM] <= address < row[TO]:
            word, before = words_at(table[REPORTED_AT], 1)[0], 0
            if word != 0:
                before = _put_if_zero(word, table[REPORTED])
            if before == 0:
                _print_line(table, row, (address - row[FROM]) // row[ROW_BYTES])
            _sleep(table[PATIENCE])
            code = before // 256  # as ``report_word.code_of``
            _end(code if code > 0 else table[EXIT_CODE])
    _set_action(number, table[FIRST] if table[PASSED_ON] else table[BEFORE], 0)
    table[PASSED_ON] = 1
    if not 0 < words_at(told, _CODE + 1)[_CODE] & 0xFFFFFFFF < 1 << 31:
        _raise(number)  # nothing has failed that would fail again: somebody has sent the signal
    return 0
