"""Batch scripts for Slurm, PBS (OpenPBS, PBS Professional) and LSF, which end, save and start again by themselves.

    job.py                      what is asked for, whatever the batch system
    shell.py                    START HERE: the part that all scripts share
    slurm.py, pbs.py, lsf.py    directives, launcher, how a job starts again
    time_left.py                the other way round: what a job learns of its time limit, for ``run/time_limit.py``

Who does what before the time limit: the batch system, or in PBS ``timeout``, sends SIGUSR1; the script passes it on to the
launcher, and that to the ranks; these agree on a step, save and exit with 75; the script then has the job started again, and
``--resume`` goes on. A job that is cancelled gets SIGTERM, after which it saves, too, and is not started again.
"""
