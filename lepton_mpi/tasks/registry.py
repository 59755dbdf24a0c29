"""Tasks by name."""

from lepton_mpi.data.dataset import DataSet
from lepton_mpi.registry import Registry
from lepton_mpi.tasks.task import Task

TASKS = Registry(
    "--task",
    {
        name: f"lepton_mpi.tasks.{name}:make"
        for name in ("classes", "targets", "tokens")
    },
)  # fmt: skip


def make_task(name: str, data: DataSet) -> Task:
    """The task that ``name`` stands for, or ``FILE.py:NAME``, called as ``NAME(data)``. Raises ConfigurationError."""
    return TASKS.find(name)(data)
