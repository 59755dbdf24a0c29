"""Ranks started from a program or a notebook: ``lepton_mpi.launch(function, ranks=4)``.

    mpirun.py   which launcher, with which flags and variables
    task.py     function and arguments as a file, results and errors as files
    start.py    START HERE: what the calling process does
    rank.py     what each rank does
    foreground.py    beside all that: a launcher at a terminal, for run_local.sh; launcher_noise.py: what of its words is left out
    parents.py       a process that ends with its parent

The calling process makes a private folder, writes ``task`` (function, arguments, sys.path, pickled) and starts
``mpirun -n N python -m lepton_mpi.starting.rank FOLDER``. Order of what follows, and who writes what:

    rank r   writes its process id to ``pid.r``; starts MPI; calls the function
    rank 0   writes ``result``, under another name until it is whole
    rank r   whose function raises writes ``error.r`` and then ends the job by MPI's abort
    rank r   that is through writes ``done.r``; then MPI's end, where it waits for the others
    caller   reads ``result`` or the first ``error.r``, and removes the folder

When a rank dies, the launcher ends the others; the caller holds a process descriptor of each rank and ends the launcher itself where it
has not in some seconds. The ranks hold one of the caller, and end when it dies.
Ctrl-C reaches the caller alone, since the launcher has a session of its own: the caller ends the launcher, and it the ranks; these
also die with it (``launcher.die_with_launcher``). Only a function that waits for ever keeps the caller waiting, until ``timeout``.
"""
