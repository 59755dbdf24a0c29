"""What the READMEs of torch and JAX show is carried out, on two ranks."""

import pytest

from lepton_mpi import launcher
from tests import pages
from tests.faults import jobs

_ALONE = pytest.mark.skipif(
    launcher.launched_size() > 1, reason="starts jobs, which ranks of a job cannot"
)


@_ALONE
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_programs_of_the_pages_run(tmp_path, library):
    """Every ``mpirun`` line, with the programs that the page shows."""
    pytest.importorskip(library, reason=f"needs {library}, which is not installed")
    page = pages.ROOT / "lepton_mpi" / library / "README.md"
    for name, text in pages.programs(page, "python").items():
        (tmp_path / name).write_text(text)
    shown = [each for each in pages.console(page) if "mpirun" in each.words]
    assert shown
    for each in shown:
        words = each.words[each.words.index("python") + 1 :]
        job = jobs.run(2, *words, cwd=tmp_path)
        assert job.code == 0, job.text
        if "my_jax.py" in words:
            assert "loss below 1e-6: True" in job.out and "[ 1.  -2.   0.5]" in job.out, job.text
