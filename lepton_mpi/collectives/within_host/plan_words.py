"""A host plan as one vector of int64 words: what the kernels of ``meeting_kernels.py`` are to do, and with which memory."""

from itertools import chain

import numpy as np

from lepton_mpi.collectives.combining_kernels import OPERATIONS
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.within_host import meeting_kernels as kernels
from lepton_mpi.collectives.within_host.atomics import LONGEST_SLEEP_NANOSECONDS, TIMEOUT
from lepton_mpi.collectives.within_host.folds import Fold
from lepton_mpi.collectives.within_host.told import Meeting, meet_by, workers_of
from lepton_mpi.kernels.compiling import Kernel

# The sizes below can be tried out: mpirun -n 2 python -m benchmarks.allreduce --constants PART_BYTES=64K …

# Whoever has a core takes the next piece: small enough to share the work evenly, large enough that taking
# one, an atomic addition, does not count beside adding it. 2 ranks, 1 MiB, private: 18 us, with pieces of
# 64 KiB 21 us, of 32 KiB 23 us; no difference from 16 MiB on.
PIECE_BYTES = 128 << 10

# Polls before giving the core away, none with more ranks than cores; then yields before sleeping in the
# kernel. Both are first choices that no sweep has confirmed.
POLLS = 2_000
YIELDS = 1_000


def encode_plan(
    group: Group,
    control: np.ndarray | None,
    addresses: list[int],
    scratch: np.ndarray,
    start: int,
    stop: int,
    operation: str,
    groups,
    piece_bytes: int = 0,
) -> np.ndarray:
    """What a kernel of ``meeting_kernels.py`` is to do, as one vector of int64; for those in which ranks ``arrive`` take ``encode_meeting``.

    It has the addresses of the control block, where ranks meet in a call, of the vectors, and of the rows of
    ``scratch``; all of them must outlive it.
    Several pieces are as many for each core, and of equal length, so that all cores end together.
    """
    itemsize = scratch.itemsize
    pieces = max(1, -(-(stop - start) * itemsize // (piece_bytes or PIECE_BYTES)))
    if pieces > 1:
        pieces = -(-pieces // workers_of(group)) * workers_of(group)
    line = kernels.LINE_BYTES // itemsize
    piece = max(line, -(-(stop - start) // (pieces * line)) * line)
    crowded = group.local_size > group.cores
    body = [word for folds in groups for word in (len(folds), *chain(*map(Fold.words, folds)))]
    addresses = [*addresses, *row_addresses(scratch)]
    longest = max((len(fold.words()) for folds in groups for fold in folds), default=0)
    header = np.zeros(kernels.PLAN_HEADER, np.int64)
    header[kernels.RANKS], header[kernels.OPERATION] = group.local_size, OPERATIONS[operation]
    header[kernels.START], header[kernels.STOP] = start, stop
    header[kernels.PIECE], header[kernels.PIECES] = piece, max(1, -(-(stop - start) // piece))
    header[kernels.POLLS], header[kernels.YIELDS] = 0 if crowded else POLLS, YIELDS
    header[kernels.WORKERS] = workers_of(group)
    header[kernels.GROUPS] = len(groups)
    header[kernels.FIRST_SLOT] = len(addresses) - len(scratch)
    header[kernels.VECTORS], header[kernels.WORK] = len(addresses), len(header) + len(body)
    header[kernels.BLOCK] = scratch.shape[1]
    header[kernels.CONTROL] = 0 if control is None else control.ctypes.data
    return np.concatenate([header, np.array([*body, *addresses, *[0] * longest], np.int64)])


def encode_meeting(
    group: Group,
    control: np.ndarray,
    addresses: list[int],
    scratch: np.ndarray,
    start: int,
    stop: int,
    operation: str,
    groups,
    piece_bytes: int = 0,
    purpose: str = "",
) -> tuple[np.ndarray, Meeting]:
    """The plan of a kernel in which the ranks of the host ``arrive``, and what watches that they come with the same calls.

    The meeting must live as long as the plan. ``purpose`` is what is summed in a step of a training, such as "gradients": with one,
    the step counts, too, in which ``group.clock`` is. Collective over the group. The other parameters are those of ``encode_plan``.
    """
    plan = encode_plan(
        *(group, control, addresses, scratch, start, stop), operation, groups, piece_bytes
    )
    plan[kernels.STEP_AT] = plan.ctypes.data + 8 * kernels.NO_STEP
    if purpose:
        plan[kernels.STEP_AT] = group.clock.row.ctypes.data
    text = f"{operation} of {purpose or 'vectors'} [{start}, {stop}) of {scratch.dtype}"
    return plan, meet_by(group, control, plan, text)


def waited_seconds(plan: np.ndarray) -> float:
    """Time that this rank waited for others, over all calls of a plan, but for the first polls of each wait."""
    return float(plan[kernels.WAITED]) * 1e-9


def slots_of(groups) -> int:
    """Scratch slots that the folds of ``groups`` need: all but the last fold of a group fill one."""
    return max((len(folds) - 1 for folds in groups if folds), default=0)


def scratch_for(groups, dtype: np.dtype) -> np.ndarray:
    """One rank's own memory for what the folds of ``groups`` leave to each other."""
    return np.empty((max(1, slots_of(groups)), kernels.BLOCK_BYTES // dtype.itemsize), dtype)


def row_addresses(table: np.ndarray) -> list[int]:
    """Of the rows of a matrix."""
    return [table.ctypes.data + row * table.strides[0] for row in range(len(table))]


def control_block(group: Group, count: int = 0) -> np.ndarray:
    """Words through which the ranks of a host meet; zero but for the longest sleep. Collective over the host."""
    needed = kernels.TICKETS + kernels.LINE_WORDS * (workers_of(group) + group.local_size)
    words = group.host_array((count or needed,), np.int64, "control", are_awaited=True)
    words[TIMEOUT + 1] = LONGEST_SLEEP_NANOSECONDS
    group.host_barrier()
    return words


def compiled(kernel: Kernel, dtype: np.dtype) -> Kernel:
    """``kernel``, of a typed plan, ready for ``dtype``: no rank should wait in it while another one compiles."""
    kind = {"float32": "f4", "float64": "f8", "int32": "i4", "int64": "i8"}[dtype.name]
    kernel.compile(f"void({kind}[::1])")
    return kernel
