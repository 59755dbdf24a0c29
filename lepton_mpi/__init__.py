"""Data-parallel training on CPU clusters: MPI ranks, Numba kernels, HDF5 data, no parameter server.

The map, in the order the data flows::

    train.py         START HERE: one training run, read top to bottom
    config.py        every option, checked once; config_parser.py reads them; recipes/ holds ready ones as TOML
    launch.py        what the launcher tells a process before NumPy and MPI are loaded
    world.py         ranks, hosts, memory shared by a host; agreement; the end of a failing job
    host_pages.py    how that memory is mapped, in large pages; memory.py counts it
    prepare/         from raw files to a data file; START in its __init__.py
    watchdog.py      phase clock, heartbeats and the time limit on a step
    vectors.py       flat vectors with named views, buckets, digest
    data/            from file to batches; knows nothing of models or messages
    models/          from batch to gradient; knows nothing of ranks
    collectives/     schedules as data, and what carries them out; knows nothing of gradients
    strategies/      how gradients become new parameters
    trial.py         in which of several ways something is done fastest
    optimizers.py    which update rule, with which numbers; optimizer_kernels.py holds the rules
    learning_rate.py the learning rate by step
    metrics.py       counts that add up over ranks: confusion matrix, loss
    evaluation.py    loss and scores on rows not trained on
    checkpoint.py    parameters, optimizer state and configuration in one HDF5 file; resume.py goes on from it
    report.py        what the user sees, on screen and in the metrics file; run_report.py a run's head and end
    explain.py       what a collective does, step by step, for a reader
    tune.py          which collective is fastest on these ranks
    command_line.py  command lines whose mistakes are one line
    kernels/         how kernels are declared (compiling.py) and kept on disk (cache.py); those that know no layer
    intrinsics.py    addresses, hints to the caches and stores past them, for kernels
    durable.py       a file in full or not at all
    batch.py         what the loader hands to a model
    errors.py        what a user can cause, each with the exit code of the job
    counter_random.py  random numbers that depend on seed and position alone; counter_random_kernels.py
                     draws the same ones inside of kernels; shuffle_kernels.py sorts by them

The words, one per idea:

=================  =============================================================================
rank, world_size   process number, number of processes
host, local_rank   machine; rank within it
lane               the ranks of equal local_rank on all hosts
shard              the rows of the data set that belong to one rank
batch              rows in one kernel call
target             a number to predict, where rows have no class
draw               random bits of one step, from which with a row's number all else random follows
micro_batch        the unit of the gradient sum
global_batch       rows of one optimizer step over all ranks
block, window      rows that lie together in a file; rows of several blocks that are shuffled together
bucket             part of the flat gradient, of one or several parameters, reduced together
chunk              one rank's part of a bucket in a schedule
segment            a piece of a chunk in flight, for pipelining
slice              the part of the flat vectors that one rank of a host owns and updates
step, ring_step    one optimizer update; one exchange of a schedule
algbw, busbw       bytes/time; the same times the collective's factor; 1 GB = 1e9 bytes
=================  =============================================================================
"""

__version__ = "0.1.0"

_PUBLIC = {
    "Batch": "batch",
    "Config": "options.config",
    "QuietHook": "run.hook",
    "fit": "run.fit",
}
__all__ = ["Batch", "Config", "QuietHook", "__version__", "fit"]


def __getattr__(name: str):
    """Load a public name on first use, so that ``--help`` starts neither NumPy nor MPI."""
    from importlib import import_module

    if name not in _PUBLIC:
        raise AttributeError(f"module 'lepton_mpi' has no attribute {name!r}")
    return getattr(import_module(f"lepton_mpi.{_PUBLIC[name]}"), name)
