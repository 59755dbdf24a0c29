"""Reads memory of another process of the host (cross-memory attach): one copy, by the kernel of the operating system.

Linux allows it to whoever may trace the other process. Where it does not, as with ``kernel.yama.ptrace_scope`` of 1 or in some
containers, nothing but the trial of ``can_read`` fails.
"""

import platform

from numba import types

from lepton_mpi.kernels.compiling import kernel
from lepton_mpi.kernels.intrinsics import words_at

_NUMBER = {"x86_64": 310, "aarch64": 270, "riscv64": 270, "ppc64le": 351}.get(
    platform.machine(), -1
)
_syscall = types.ExternalFunction("syscall", types.int64(*[types.int64] * 7))


@kernel("i8(i8, i8, i8, i8, i8)")
def read_memory(process, source, target, byte_count, pair):
    """Copy bytes at address ``source`` of a process to ``target``; how many bytes are missing.

    pair : address of 4 words of scratch.
    """
    words = words_at(pair, 4)
    done = 0
    while done < byte_count:
        words[0], words[1] = target + done, byte_count - done
        words[2], words[3] = source + done, byte_count - done
        copied = _syscall(_NUMBER, process, pair, 1, pair + 16, 1, 0)
        if copied <= 0:
            break
        done += copied
    return byte_count - done
