"""Tasks by name."""

from lepton_mpi.data.dataset import DataSet
from lepton_mpi.options import names
from lepton_mpi.registry import Registry
from lepton_mpi.tasks.task import Task

TASKS = Registry("--task", names.TASKS)


def make_task(name: str, data: DataSet) -> Task:
    """The task that ``name`` stands for, or ``FILE.py:NAME``, called as ``NAME(data)``. Raises ConfigurationError."""
    return TASKS.find(name)(data)
