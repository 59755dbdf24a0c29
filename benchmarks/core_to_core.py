"""How long does a cache line take from one core to another?

    ./run_local.sh bench core_to_core

Two threads on the first two cores answer each other through one word. Cores that share a last-level cache take about
50 ns, others several times as much, and so does everything that ranks do together in memory. Which of the two it is may
change while a program runs, where a virtual machine's cores are moved from one cache to another.
"""

import os
import threading
import time

import numpy as np

from benchmarks.harness import command_line
from lepton_mpi.collectives.within_host.atomics import load_acquire, store_release
from lepton_mpi.kernels.compiling import kernel

NEAR_NANOSECONDS = 100
_ANSWERS = 5000


@kernel("void(i8[::1], i8, i8)")
def _answer(words, parity, count):
    for number in range(count):
        while load_acquire(words, 0) != 2 * number + parity:
            pass
        store_release(words, 0, 2 * number + parity + 1)


def nanoseconds() -> float | None:
    """From the first core of this process to the second; None if it has one only."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return None
    words = np.zeros(64, np.int64)
    _answer(words, 0, 0)  # compiled, or loaded, before the clock runs

    def other() -> None:
        os.sched_setaffinity(0, cores[1:2])
        _answer(words, 1, _ANSWERS)

    thread = threading.Thread(target=other)
    try:
        os.sched_setaffinity(0, cores[:1])
        thread.start()
        began = time.perf_counter()
        _answer(words, 0, _ANSWERS)
        took = time.perf_counter() - began
    finally:
        thread.join()
        os.sched_setaffinity(0, cores)
    return took / (2 * _ANSWERS) * 1e9


def wait_until_near(limit_seconds: float) -> float | None:
    """Wait, no longer than that, until the cores are near each other; returns the last ``nanoseconds``."""
    end = time.monotonic() + limit_seconds
    while (found := nanoseconds()) is not None and found > NEAR_NANOSECONDS:
        if time.monotonic() > end:
            break
        time.sleep(1)
    return found


def main() -> int:
    """Print one figure a second; returns the exit code."""
    parser = command_line("core_to_core", __doc__)
    parser.add_argument("--count", type=int, default=10, help="figures; default: 10")
    for _ in range(parser.parse_args().count):
        found = nanoseconds()
        print("-" if found is None else f"{found:.0f} ns", flush=True)
        time.sleep(1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
