"""Atomic words in memory shared by processes, and waiting for them; for use inside Numba kernels.

Numba has no atomics on CPUs, but LLVM has, and ``@intrinsic`` reaches them. Flags must be read by
``load_acquire``: an ordinary load in a loop is moved out of it by the compiler.

Waiting goes from cheap and greedy to slow and polite: poll, then give the core away (``sched_yield``), then
sleep in the kernel (``futex``). With more ranks than cores polling would keep the one awaited from running.
"""

import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lepton_mpi.kernels.compiling import forced
from lepton_mpi.kernels.intrinsics import call_on_x86, words_at

# One flag per line, and two lines because processors fetch lines in pairs; in int64 words.
LINE_WORDS = 16

# Of every control block: a timespec, two words, the longest sleep.
TIMEOUT = 0
FIRST_FREE_WORD = LINE_WORDS
LONGEST_SLEEP_NANOSECONDS = 50_000_000

# Of a yield, after which a wait sleeps.
LONG_YIELD_NANOSECONDS = 20_000

_FUTEX_NUMBER = {"x86_64": 202, "aarch64": 98, "ppc64le": 221, "riscv64": 98}.get(
    platform.machine(), 202
)
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1

_syscall = types.ExternalFunction("syscall", types.int64(*[types.int64] * 7))
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.int64))
_CLOCK_MONOTONIC = 1
_sched_getcpu = types.ExternalFunction("sched_getcpu", types.int32())
_sched_yield = types.ExternalFunction("sched_yield", types.int32())


def _pointer(context, builder, array_type, array, index):
    return cgutils.get_item_pointer(
        context,
        builder,
        array_type,
        context.make_array(array_type)(context, builder, array),
        [index],
    )


@intrinsic
def load_acquire(typing_context, words, index):
    """``words[index]``; what its writer stored before is visible afterwards. ``words`` int64."""

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature.args[0], *arguments)
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(words, types.intp), generate


@intrinsic
def store_release(typing_context, words, index, value):
    """``words[index] = value``, after everything that was stored before."""

    def generate(context, builder, signature, arguments):
        array, position, number = arguments
        pointer = _pointer(context, builder, signature.args[0], array, position)
        builder.store_atomic(number, pointer, "release", 8)
        return context.get_dummy_value()

    return types.none(words, types.intp, types.int64), generate


@intrinsic
def fetch_add(typing_context, words, index, value):
    """Add to ``words[index]`` and return what was there before, as one indivisible step."""

    def generate(context, builder, signature, arguments):
        array, position, number = arguments
        pointer = _pointer(context, builder, signature.args[0], array, position)
        return builder.atomic_rmw("add", pointer, number, "acq_rel")

    return types.int64(words, types.intp, types.int64), generate


@intrinsic
def full_fence(typing_context):
    """Nothing is stored or read out of its order across this, neither before nor after."""

    def generate(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def _store_and_look(typing_context, words, index, value, other):
    """``words[index] = value``, after everything stored before; then, never before, read ``words[other]``.

    By an exchange, which is a fence at the price of the store.
    """

    def generate(context, builder, signature, arguments):
        array, position, number, other = arguments
        kind = signature.args[0]
        pointer = _pointer(context, builder, kind, array, position)
        builder.atomic_rmw("xchg", pointer, number, "seq_cst")
        return builder.load_atomic(_pointer(context, builder, kind, array, other), "seq_cst", 8)

    return types.int64(words, types.intp, types.int64, types.intp), generate


@intrinsic
def pause(typing_context):
    """Tell the processor that this is a polling loop."""

    def generate(context, builder, signature, arguments):
        call_on_x86(builder, "llvm.x86.sse2.pause")
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def _address(typing_context, words, index):
    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(
            _pointer(context, builder, signature.args[0], *arguments), ir.IntType(64)
        )

    return types.int64(words, types.intp), generate


@forced
def current_core():
    """Number of the core that this process runs on, for now; 0 where the system does not say."""
    return max(_sched_getcpu(), 0)


@forced
def monotonic_nanoseconds(words, index):
    """The time, by way of ``words[index]`` and the word after it."""
    _clock_gettime(_CLOCK_MONOTONIC, _address(words, index))
    return words[index] * 1_000_000_000 + words[index + 1]


@forced
def reached_by_polls(words, index, target, polls):
    """Whether ``words[index] >= target`` within so many polls."""
    for _ in range(polls):
        if load_acquire(words, index) >= target:
            return True
        pause()
    return False


@forced
def longest_yield(words, index, target, yields, clock):
    """Yield until ``words[index] >= target``, so many times at most; nanoseconds of the longest one.

    The first long one is the last: then others need this core. A yield on a busy machine costs a turn of every process that
    wants the core, many milliseconds, and the word may be written in the first of them. Who sleeps in the kernel is run soon
    after it is woken.

    clock : address of two words of scratch.
    """
    pair, longest = words_at(clock, 2), 0
    before = monotonic_nanoseconds(pair, 0)
    for _ in range(yields):
        if longest > LONG_YIELD_NANOSECONDS or load_acquire(words, index) >= target:
            break
        _sched_yield()
        now = monotonic_nanoseconds(pair, 0)
        longest, before = max(longest, now - before), now
    return longest


@forced
def sleep_until(words, index, target):
    """Return once ``words[index] >= target``. Where that can never be, since a rank has failed, the watchdog ends the process.

    The line after that of ``index`` counts the ranks asleep on it, so that nobody wakes an empty room.
    """
    if load_acquire(words, index) >= target:
        return
    fetch_add(words, index + LINE_WORDS, 1)
    while True:
        seen = load_acquire(words, index)
        if seen >= target:
            break
        # Sleeps only if the word still is what was seen; at most as long as words[TIMEOUT] says.
        address, timeout = _address(words, index), _address(words, TIMEOUT)
        _syscall(_FUTEX_NUMBER, address, _FUTEX_WAIT, seen & 0xFFFFFFFF, timeout, 0, 0)
    fetch_add(words, index + LINE_WORDS, -1)


@forced
def publish(words, index, value):
    """``words[index] = value``, and wake everybody who sleeps on it."""
    if _store_and_look(words, index, value, index + LINE_WORDS) > 0:
        _syscall(_FUTEX_NUMBER, _address(words, index), _FUTEX_WAKE, 1 << 30, 0, 0, 0)
