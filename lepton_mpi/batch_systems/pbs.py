"""Scripts for qsub of OpenPBS and PBS Professional. Imports no NumPy.

PBS warns nobody: at the time limit it sends SIGTERM, and SIGKILL ten seconds later as a rule. So ``timeout`` of the script
sends SIGUSR1, and passes on what it gets itself.
A job cannot put itself back, since ``qrerun`` is for operators. The script submits itself once more instead, from the copy that PBS
runs (``$0``), with the number of restarts in LEPTON_RESTARTS; nodes must be allowed to submit. Of an array only the task that was
stopped starts again, as a job of its own with its number in LEPTON_TASK; a directive ``-J`` could not be taken back for
that, so the array stands in the command that submits it.
"""

from __future__ import annotations

import math

from lepton_mpi.batch_systems.job import Job, mpirun
from lepton_mpi.batch_systems.shell import System, script, started_again
from lepton_mpi.batch_systems.slurm import time_text

_RESTARTS_MAX = 100


def pbs_script(job: Job) -> str:
    """What qsub takes."""
    asked = [
        f"-N {job.name}",
        f"-l select={job.nodes}:ncpus={job.cores_per_node}:mpiprocs={job.ranks_per_node}:ompthreads={job.cores_per_rank}",
        "-l place=scatter",
        f"-l walltime={time_text(job.seconds)}",
        f"-r {'y' if job.is_requeued else 'n'}",
        "-j oe",
        *([f"-q {job.queue}"] if job.queue else []),
        *([f"-A {job.account}"] if job.account else []),
        *job.directives,
    ]
    warned_after = math.floor(job.seconds - job.warning_seconds)
    task = ",LEPTON_TASK=$task" if job.run_count else ""
    system = System(
        name="PBS",
        directives=[f"#PBS {each}" for each in asked],
        submit=_submit(job),
        enter=_ENTER + (_TASK if job.run_count else ""),
        launch=mpirun(job, '"$PBS_NODEFILE"'),
        task='"$task"',
        before=f"timeout --foreground --preserve-status --signal=USR1 {warned_after} ",
        again=started_again(
            f"[[ ${{LEPTON_RESTARTS:-0}} -lt {_RESTARTS_MAX} ]] &&",
            f'qsub -v "LEPTON_RESTARTS=$((${{LEPTON_RESTARTS:-0}} + 1)){task}" "$0"',
            "PBS",
        ),
    )
    return script(job, system)


_ENTER = """cd "${PBS_O_WORKDIR:-.}" || exit 4
"""
_TASK = """task=${PBS_ARRAY_INDEX:-${LEPTON_TASK:?expected qsub -J, or -v LEPTON_TASK=0}}
"""


def _submit(job: Job) -> str:
    if not job.run_count:
        return "qsub job.sh"
    if job.run_count == 1:
        return "qsub -v LEPTON_TASK=0 job.sh"
    return f"qsub -J 0-{job.run_count - 1}{f'%{job.at_once}' if job.at_once else ''} job.sh"
