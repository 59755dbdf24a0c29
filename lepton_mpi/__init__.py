"""Data-parallel training on CPU clusters: MPI ranks, Numba kernels, HDF5 data, no parameter server.

The map, in the order the data flows::

    train.py        the door of python -m lepton_mpi.train; __main__.py of python -m lepton_mpi COMMAND
    commands/       one file a command: train, prepare, inspect, evaluate, predict, generate, explain-model, compress, checkpoints, export, tune, explain, report, doctor, chaos, sweep, slurm, pbs, lsf
    options/        every option, checked once; command line, TOML files, recipes
    run/            START in loop.py: the training loop; run.py what a run holds, build.py how it is made, hooks.py
                    evaluation, checkpoints and progress; resume, report
    prediction/     what a trained model says of rows: the command predict, and lepton_mpi.load
    estimators/     scikit-learn's protocol, and fit of arrays and frames; START in its __init__.py
    starting/       ranks started from a program or a notebook: launch(function, ranks=4)
    exporting/      a trained model as a file of another program: ONNX, safetensors, Keras weights; START in export.py
    torch/ jax/     modules and functions of other libraries as models; sums of their arrays; backend lepton of torch.distributed
    interpretation/ what a trained model goes by: gradients by its input, attention, importance of columns
    reporting/      metrics files and a checkpoint as one HTML page: the command report; START in its __init__.py
    markup/         pages of HTML: their elements, style and file
    doctor/         whether a machine or a job is set up well; START in examination.py
    sweeping/       many runs with other options each, and one table: the command sweep; START in search.py
    batch_systems/  scripts for Slurm, PBS and LSF, and the time that is left in a job; START in shell.py
    prepare/        from raw files to a data file; START in its __init__.py
    data/           from data file to batches; files/ has what reads HDF5
    tasks/          what a target is, and the figures made of summed counts
    models/         from batch to loss and gradient; model.py is the protocol
    layers/         formula and kernels of each layer; layer.py is the protocol
    kernels/        how kernels are declared, compiled and kept; matrix products, vector code, counter-based random numbers
    strategies/     how gradients become new parameters; strategy.py is the protocol
    optimizers/     update rules and the learning rate by step
    collectives/    schedules as data, and what carries them out; knows nothing of gradients
    torch/          backend lepton of torch.distributed; torch modules as models
    world/          ranks, hosts, memory shared by a host; agreement; watchdog; the end of a failing job

    batch.py        what the loader hands to a model           vectors.py   flat vectors with named views, buckets, digest
    sync.py         what a model tells while it computes       registry.py  what an option's name stands for
    errors.py       what a user can cause, with exit codes     wording.py   how values are written for people
    durable.py      a file in full or not at all               launcher.py  what the launcher says before MPI is loaded
    early_signals.py  signals that come before there are ranks processes.py what Linux tells of a process
    own_folders.py  temporary folders, and those of processes that were killed

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
    "LeptonClassifier": "estimators.estimator",
    "LeptonRegressor": "estimators.estimator",
    "QuietHook": "run.hook",
    "broadcast": "run.own_loop",
    "fit": "estimators.arrays_fit",
    "launch": "starting.start",
    "load": "prediction.model",
    "mean": "run.own_loop",
    "rank": "run.own_loop",
    "world_size": "run.own_loop",
}
__all__ = [
    *("Batch", "Config", "LeptonClassifier", "LeptonRegressor", "QuietHook", "__version__"),
    *("broadcast", "fit", "launch", "load", "mean", "rank", "world_size"),
]


def __getattr__(name: str):
    """Load a public name on first use, so that ``--help`` starts neither NumPy nor MPI."""
    from importlib import import_module

    if name not in _PUBLIC:
        raise AttributeError(f"module 'lepton_mpi' has no attribute {name!r}")
    return getattr(import_module(f"lepton_mpi.{_PUBLIC[name]}"), name)
