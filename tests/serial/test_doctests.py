"""Examples in docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
# Importing these starts MPI; their examples are tested on ranks.
_NEED_MPI = {"lepton_mpi.world.mpi", "lepton_mpi.collectives.choosing.measuring"}


def _modules_with_examples() -> list[str]:
    names = []
    for folder in ("lepton_mpi", "benchmarks"):
        for path in sorted((_ROOT / folder).rglob("*.py")):
            if ">>>" in path.read_text("utf-8"):
                parts = path.relative_to(_ROOT).with_suffix("").parts
                names.append(".".join(part for part in parts if part != "__init__"))
    return [name for name in names if name not in _NEED_MPI]


@pytest.mark.parametrize("name", _modules_with_examples())
def test_examples(name):
    """Every ``>>>`` gives what stands below it."""
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
