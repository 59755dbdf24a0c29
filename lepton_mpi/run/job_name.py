"""``{job}`` in the paths of a run: the number that the batch system gave to the job, else the process and the time."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lepton_mpi.options.config import Config
    from lepton_mpi.world.rank_group import RankGroup

PATTERN = "{job}"
# Slurm, PBS, LSF; a job that is requeued keeps its number, so it finds its folder again.
_NUMBERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
_OPTIONS = ("checkpoint", "resume", "metrics", "csv", "tensorboard", "trace")


def job_name(environment: Mapping[str, str] = os.environ) -> str:
    """Of letters, digits, dots, dashes and underscores.

    >>> job_name({"PBS_JOBID": "17[3].server"}), job_name({"LSB_JOBID": "8", "LSB_JOBINDEX": "2"})
    ('17_3_.server', '8-2')
    """
    for name in _NUMBERS:
        if number := environment.get(name):
            # Jobs of an array have one number in LSF.
            index = environment.get("LSB_JOBINDEX", "0") if name.startswith("LSB") else "0"
            number += "" if index == "0" else f"-{index}"
            return re.sub(r"[^A-Za-z0-9._-]", "_", number)
    return f"{os.getpid()}-{time.strftime('%Y%m%dT%H%M%S')}"


def with_job(config: Config, world: RankGroup) -> Config:
    """The configuration with rank 0's job in place of ``{job}``. Collective if there is any."""
    found = {name: getattr(config, name) for name in _OPTIONS}
    found = {name: path for name, path in found.items() if path and PATTERN in path}
    if not found:
        return config
    job = world.broadcast(job_name() if world.rank == 0 else "")
    return dataclasses.replace(
        config, **{name: path.replace(PATTERN, job) for name, path in found.items()}
    )
