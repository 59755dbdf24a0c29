"""Collectives: an algorithm is data (a schedule), and executors carry it out.

Reading order::

    chunks.py      pure: how a vector is cut into chunks and segments
    schedule.py    what a schedule is, and the promises that every one keeps
    ring.py        the ring, in twenty lines of arithmetic
    program.py     pure: a schedule for one rank and one length, as a list of instructions
    messages.py    runs a program over a transport
    threads.py     transport between threads of one process, for tests and doctests
    mpi.py         transport over MPI; MPI's own Allreduce as one more algorithm

Nothing in this folder knows what a gradient is. Lengths are in elements unless a name says bytes.
"""
