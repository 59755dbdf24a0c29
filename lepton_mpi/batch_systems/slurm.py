"""Scripts for Slurm's sbatch. Imports no NumPy.

``--signal=B:USR1@300`` signals the shell of the script alone, up to a minute earlier than it says. Without ``B:`` the ranks
would get it and the script would not; what the script passes on to srun, srun passes on to the ranks.
``scontrol requeue`` puts the job back under the same number, with SLURM_RESTART_COUNT one higher; ``--requeue`` allows it, and
has Slurm do so itself when a node fails. scancel sends SIGTERM to the script, too, and then there is nothing to put back.
"""

from __future__ import annotations

import math

from lepton_mpi.batch_systems.job import Job
from lepton_mpi.batch_systems.shell import System, script, started_again

_PMI = {"openmpi": "pmix", "mpich": "pmi2", "intel": "pmi2"}
# A run that is stopped before it has made a step would be started again for ever.
_RESTARTS_MAX = 100


def slurm_script(job: Job) -> str:
    """What sbatch takes."""
    output = f"{job.name}-%A_%a.out" if job.run_count else f"{job.name}-%j.out"
    asked = [
        f"--job-name={job.name}",
        f"--nodes={job.nodes}",
        f"--ntasks-per-node={job.ranks_per_node}",
        f"--cpus-per-task={job.cores_per_rank}",
        f"--time={time_text(job.seconds)}",
        f"--signal=B:USR1@{math.ceil(job.warning_seconds)}",
        "--requeue" if job.is_requeued else "--no-requeue",
        "--open-mode=append",
        f"--output={output}",
        *([f"--partition={job.queue}"] if job.queue else []),
        *([f"--account={job.account}"] if job.account else []),
        *([_array(job)] if job.run_count else []),
        *job.directives,
    ]
    launch = f"srun --mpi={_PMI[job.mpi]} --cpu-bind=cores --cpus-per-task={job.cores_per_rank}"
    system = System(
        name="Slurm",
        directives=[f"#SBATCH {each}" for each in asked],
        submit="sbatch job.sh",
        enter="",
        launch=job.launcher or launch,
        task='"$SLURM_ARRAY_TASK_ID"',
        before="",
        again=started_again(
            f"[[ ${{SLURM_RESTART_COUNT:-0}} -lt {_RESTARTS_MAX} ]] &&",
            'scontrol requeue "$SLURM_JOB_ID"',
            "Slurm",
        ),
    )
    return script(job, system)


def _array(job: Job) -> str:
    return f"--array=0-{job.run_count - 1}" + (f"%{job.at_once}" if job.at_once else "")


def time_text(seconds: float) -> str:
    """``HH:MM:SS``, rounded up to whole seconds, as Slurm and PBS take it.

    >>> time_text(7200), time_text(129600.5)
    ('02:00:00', '36:00:01')
    """
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"
