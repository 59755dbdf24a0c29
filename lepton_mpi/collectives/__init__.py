"""Collectives: an algorithm is data (a schedule), and executors carry it out.

Reading order::

    group.py           what a collective asks of some ranks
    chunks.py          pure: how a vector is cut into chunks and segments
    summation_tree.py  pure: the order of additions that does not depend on who adds (reproducible reduction)
    schedules/         schedule.py: what a schedule is, and what every one guarantees; ring.py: the ring, in twenty lines of
                       arithmetic; then recursive_doubling, rabenseifner, circulant, double_binary_tree, pairwise,
                       two_level, broadcast, rooted, alltoall, barrier; algorithms.py names them all
    messages/          a schedule as a program, run over messages between ranks, or between threads for tests
    within_host/       ranks that share memory: atomics and flags, meetings, folds, vectors, and the plans that sum them;
                       staging.py and its kernels: every verb on arrays that peers cannot read; call_kernels.py: how a call
                       begins, short_kernels.py: short ones, quick_kernels.py: called by Python without a detour,
                       staged_kernels.py: the others
    between_hosts/     lanes, each of which completes its slice; sums in the background, bucket by bucket;
                       staged_hosts.py: every verb over hosts, agreement.py: how hosts agree on a call
    compressing/       codecs with error feedback, and the lanes of compressed slices
    choosing/          online autotuner, timing, tables of what was measured
    explaining/        cost model, trace in words and pictures
    allreduce.py       make_plan, the door to all of it for one vector that is summed again and again
    communicator.py    Communicator, the door to every verb on any arrays; calls.py: what a call is, as ranks tell it to each other
    shared_arrays.py   arrays in memory that the ranks of a host can map, reduced where they lie
    sliced_sum.py      the same for gradients where every rank gets a sum of its own

Nothing in this folder knows what a gradient is. Lengths are in elements unless a name says bytes.
"""
