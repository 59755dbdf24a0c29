"""Collectives: an algorithm is data (a schedule), and executors carry it out.

Reading order::

    chunks.py          pure: how a vector is cut into chunks and segments
    schedule.py        what a schedule is, and the promises that every one keeps
    ring.py            the ring, in twenty lines of arithmetic; then the other schedules:
                       recursive_doubling, rabenseifner, circulant, double_binary_tree, pairwise,
                       two_level, broadcast, barrier; algorithms.py names them all
    summation_tree.py  pure: the order of additions that does not depend on who adds
    program.py         pure: a schedule for one rank and one length, as instructions; scratch.py keeps its books
    messages.py        runs a program over a transport
    threads.py         transport between threads of one process, for tests and doctests
    mpi.py             transport over MPI; MPI's own Allreduce as one more algorithm
    atomics.py         words that processes share, and waiting for them, inside Numba; host_flags.py: without waiting,
                       or while messages go on
    folds.py           pure: a sum as passes over 2, 4 or 8 vectors; fold_kernels.py carries one out
    host_kernels.py    an allreduce inside a host, as one kernel; host_array_kernels.py for memory of one rank
    host_memory.py     vectors that a host's ranks share, and the plans that sum them in place
    lanes.py           between hosts: each lane completes its slice
    two_level_plan.py  the last two put together; overlapped_sum.py does it in the background, bucket by bucket
    allreduce.py       make_plan, the door to all of it
    sliced_sum.py      the same for gradients where every rank gets a sum of its own
    timing.py          how one call is timed and checked, the same way for every library
    tuning.py          tables of what was measured, the choice that auto stands for, the fitted cost model
    cost.py, trace*.py what a schedule costs and does, in figures, words and pictures

Nothing in this folder knows what a gradient is. Lengths are in elements unless a name says bytes.
"""
