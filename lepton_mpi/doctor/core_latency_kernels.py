"""Two threads that answer each other through one word, each on a core of its own."""

from lepton_mpi.collectives.within_host.atomics import (
    LINE_WORDS,
    load_acquire,
    monotonic_nanoseconds,
    store_release,
)
from lepton_mpi.kernels.compiling import kernel

# Where a thread says that it has given up; nanoseconds of the first thread; what its clock writes.
GAVE_UP, TOOK, _CLOCK = LINE_WORDS, 2 * LINE_WORDS, 2 * LINE_WORDS + 2
WORDS = 3 * LINE_WORDS


@kernel("void(i8[::1], i8, i8, i8)")
def answer(words, parity, count, polls_max):
    """Answer ``count`` times: the thread of parity 0 begins, and takes the time from its second answer on.

    Both give up when one has looked ``polls_max`` times in vain.
    """
    began = 0
    for number in range(count):
        polls = 0
        while load_acquire(words, 0) != 2 * number + parity:
            polls += 1
            if polls > polls_max or load_acquire(words, GAVE_UP) > 0:
                store_release(words, GAVE_UP, 1)
                return
        if parity == 0 and number == 1:
            began = monotonic_nanoseconds(words, _CLOCK)
        store_release(words, 0, 2 * number + parity + 1)
    if parity == 0:
        words[TOOK] = monotonic_nanoseconds(words, _CLOCK) - began
