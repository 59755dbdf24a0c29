"""Scripts for LSF's bsub. Imports no NumPy.

``-wa USR1 -wt 5`` signals all processes of the job five minutes before the limit of ``-W``, both in minutes. ``-Q 75`` puts a job
back that has exited with 75. LSF drops what a job has printed that it puts back, so the script writes its output itself.
How often a job is put back is limited by MAX_JOB_REQUEUE of the queue.
"""

from __future__ import annotations

import math

from lepton_mpi.batch_systems.job import Job, mpirun
from lepton_mpi.batch_systems.shell import System, script


def lsf_script(job: Job) -> str:
    """What bsub takes from standard input."""
    minutes, warning = math.ceil(job.seconds / 60), max(1, math.ceil(job.warning_seconds / 60))
    name = job.name
    if job.run_count:
        name += f"[1-{job.run_count}]" + (f"%{job.at_once}" if job.at_once else "")
    asked = [
        f'-J "{name}"',
        f"-n {job.ranks}",
        f'-R "span[ptile={job.ranks_per_node}]"',
        *([f'-R "affinity[core({job.cores_per_rank})]"'] if job.cores_per_rank > 1 else []),
        f"-W {minutes // 60}:{minutes % 60:02}",
        f"-wt {warning}",
        "-wa USR1",
        *(["-r", '-Q "75"'] if job.is_requeued else []),
        "-o /dev/null",
        *([f"-q {job.queue}"] if job.queue else []),
        *([f"-P {job.account}"] if job.account else []),
        *job.directives,
    ]
    number = "$LSB_JOBID-$LSB_JOBINDEX" if job.run_count else "$LSB_JOBID"
    system = System(
        name="LSF",
        directives=[f"#BSUB {each}" for each in asked],
        submit="bsub < job.sh",
        enter=f'exec >>"{job.name}-{number}.out" 2>&1\n',
        launch=mpirun(job, '"$LSB_DJOB_HOSTFILE"'),
        task='"$((LSB_JOBINDEX - 1))"',
        before="",
        # One that was cancelled stays ended.
        again="\n[[ $terminated -eq 0 ]] || code=143",
    )
    return script(job, system)
