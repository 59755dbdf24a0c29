"""Compiled kernels are kept while no file of the package changes, and given up when one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lepton_mpi
from lepton_mpi.kernels.cache import forget_stale_kernels


@pytest.fixture
def package(tmp_path) -> Path:
    """Two folders with a kernel each."""
    for folder in (tmp_path, tmp_path / "inner"):
        (folder / "__pycache__").mkdir(parents=True)
        (folder / "kernels.py").write_text("one\n")
        (folder / "__pycache__" / "kernels.f-1.py311.nbi").write_text("index")
        (folder / "__pycache__" / "kernels.f-1.py311.1.nbc").write_text("code")
        (folder / "__pycache__" / "kernels.cpython-311.pyc").write_text("Python")
    return tmp_path


def _kernels(package: Path) -> int:
    return len(list(package.rglob("*.nb[ic]")))


def _compile(package: Path) -> None:
    (package / "__pycache__" / "kernels.f-1.py311.nbi").write_text("index")


def test_kernels_of_unknown_age_are_given_up(package):
    """Where no stamp says what they were compiled from; other files stay."""
    forget_stale_kernels(package)
    assert _kernels(package) == 0
    assert len(list(package.rglob("*.pyc"))) == len(list(package.rglob("*.py"))) == 2


@pytest.mark.parametrize("change", ["written", "touched", "added", "removed", "renamed"])
def test_a_change_anywhere_gives_up_all(package, change):
    """Not without one, and once for each."""
    forget_stale_kernels(package)
    _compile(package)
    forget_stale_kernels(package)
    assert _kernels(package) == 1
    source = package / "inner" / "kernels.py"
    if change == "written":
        source.write_text("other\n")
    elif change == "touched":
        os.utime(source, ns=(1, 1))
    elif change == "added":
        (package / "inner" / "more.py").write_text("")
    elif change == "removed":
        source.unlink()
    else:
        source.rename(source.with_name("renamed.py"))
    forget_stale_kernels(package)
    assert _kernels(package) == 0
    _compile(package)
    forget_stale_kernels(package)
    assert _kernels(package) == 1


def test_a_folder_that_cannot_be_written_to_is_left_alone(package):
    """Nor need there be a folder for what is compiled."""
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    package.chmod(0o500)
    (package / "__pycache__").chmod(0o500)
    forget_stale_kernels(package)


def test_importing_the_package_looks_after_its_kernels():
    """Before any kernel is loaded."""
    folder = Path(lepton_mpi.__file__).parent / "__pycache__"
    found = subprocess.run(
        [sys.executable, "-c", "import sys, lepton_mpi; print('numba' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "False\n"
    assert (folder / "kernels.stamp").exists() or not os.access(folder, os.W_OK)
