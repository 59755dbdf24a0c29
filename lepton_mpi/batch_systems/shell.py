"""The part of a batch script that all batch systems share: environment, the ranks, signals, the exit code. Imports no NumPy.

Bash carries out a trap only when the command before it has ended, so the launcher runs in the background and the script
waits for it; ``wait`` ends early when a trap was carried out, and is called again until it did not.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from lepton_mpi.batch_systems.job import Job, lines_of_options

# By which such a script is known again.
MARK = "# Written by:"


@dataclass(frozen=True)
class System:
    """What differs from one batch system to the next.

    Attributes
    ----------
    name : str
    directives : list of str
        Lines of the head.
    submit : str
        The command that submits the script ``job.sh``.
    enter : str
        Lines of the shell that come first.
    launch : str
        Words of the launcher.
    task : str
        A word of the shell: the number from 0 of this job of an array.
    before : str
        Words in front of the launcher.
    again : str
        Lines of the shell that have the job started again.
    """

    name: str
    directives: list[str]
    submit: str
    enter: str
    launch: str
    task: str
    before: str
    again: str


def script(job: Job, system: System) -> str:
    """The whole script."""
    head = [
        "#!/bin/bash",
        f"{MARK} {job.written_by}",
        f"# Submit it with: {system.submit}",
        *system.directives,
    ]
    return "\n".join([*head, "", _settings(job, system), _environment(job), _body(job, system)])


def _settings(job: Job, system: System) -> str:
    modules = shlex.join(job.modules)
    options = "\n".join(f"    {line}" for line in lines_of_options(job.options))
    return f"""# ---- what differs from cluster to cluster and from run to run
modules=({modules})
environment={_path(job.environment)}
launch=({system.launch})
options=(
{options}
)
{system.enter}"""


def _environment(job: Job) -> str:
    return f"""# ---- the environment
if [[ ${{#modules[@]}} -gt 0 ]]; then
    module load "${{modules[@]}}" || exit 4
fi
if [[ -n $environment ]]; then
    # shellcheck source=/dev/null
    source "$environment/bin/activate" || exit 4
fi
export OMP_NUM_THREADS={job.cores_per_rank}
"""


def _body(job: Job, system: System) -> str:
    if job.run_count:
        program = f'python -m lepton_mpi sweep "${{options[@]}}" --task {system.task} --launcher "${{launch[*]}}"'
    else:
        program = '"${launch[@]}" python -m lepton_mpi.train "${options[@]}"'
    first, traps, again = 'child="" signals=0', "trap pass_on USR1 TERM", ""
    if job.is_requeued:
        first, traps = f"{first} terminated=0", _TRAPS
        again = system.again
    return f"""# ---- the ranks: SIGUSR1 makes them finish a step, save, and exit with 75
{first}
# shellcheck disable=SC2329  # the traps call it
pass_on() {{
    signals=$((signals + 1))
    [[ -z $child ]] || kill -USR1 "$child" 2>/dev/null
}}
{traps}

{system.before}{program} &
child=$!
[[ $signals -eq 0 ]] || kill -USR1 "$child"
while
    before=$signals code=0
    wait "$child" || code=$?
    [[ $signals -ne $before ]]
do :; done
# Told before they had begun, the ranks were ended by the signal: there is nothing to save yet.
[[ $code -ne 138 || $signals -eq 0 ]] || code=75
{again}
exit "$code"
"""


_TRAPS = """trap pass_on USR1
trap 'terminated=1; pass_on' TERM"""


def _path(path: str) -> str:
    """A word of the shell, in which a leading ``~`` is the home of whoever runs it."""
    if path.startswith("~/"):
        return f'"$HOME"/{shlex.quote(path[2:])}'
    return shlex.quote(path) if path else ""


def started_again(condition: str, command: str, system: str) -> str:
    """Lines that start the job again after exit code 75, unless it was cancelled or ``condition`` fails."""
    return f"""
if [[ $code -eq 75 && $terminated -eq 0 ]]; then
    if {condition} {command}; then
        echo "lepton_mpi: {system} starts this job again, where it was stopped" >&2
    else
        echo "lepton_mpi: this job is not started again: submit it once more, and it goes on" >&2
    fi
fi"""
