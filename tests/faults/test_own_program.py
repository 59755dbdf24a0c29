"""The program that the docstring of ``lepton_mpi.world`` shows runs as it stands there."""

import textwrap

import lepton_mpi.world
from tests.faults import jobs


def _shown_program() -> str:
    """The indented lines behind the first ``::``."""
    lines = lepton_mpi.world.__doc__.split("::\n", 1)[1].splitlines()
    stop = next(i for i, line in enumerate(lines) if line and not line.startswith(" "))
    return textwrap.dedent("\n".join(lines[:stop]))


def test_the_program_of_the_docstring(tmp_path):
    """Sums over all ranks and over every other one."""
    (tmp_path / "sums.py").write_text(_shown_program())
    job = jobs.run(4, str(tmp_path / "sums.py"), cwd=tmp_path)
    assert job.code == 0, job.text
    assert job.lines("all ranks:") == ["all ranks: 6.0"] * 4
    halves = [f"half of rank {rank}: {2 + rank % 2}.0" for rank in range(4)]
    assert sorted(job.lines("half of rank")) == halves
