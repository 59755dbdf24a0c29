"""Which module may import what, and what a module may be called."""

import ast
import subprocess
import sys
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

import lepton_mpi

_PACKAGE = Path(lepton_mpi.__file__).parent
MODULES = sorted(path.relative_to(_PACKAGE) for path in _PACKAGE.rglob("*.py"))

# Who may import a library; patterns of paths in the package.
ALLOWED = {
    "mpi4py": ["world.py", "collectives/mpi.py"],
    "h5py": [
        "data/hdf5.py",
        "data/trust.py",
        "data/stored.py",
        "data/stored_rows.py",
        "data/probe.py",
        "data/embedded/make.py",
        "checkpoint.py",
        "prepare/readers/hdf5_files.py",
        "prepare/writing.py",
        "prepare/inspection.py",
    ],
    "numba": ["*kernels.py", "intrinsics.py", "collectives/atomics.py"],
    "llvmlite": ["*kernels.py", "models/vector_code.py", "intrinsics.py", "collectives/atomics.py"],
    "sklearn": ["data/embedded/make.py"],
    "PIL": ["prepare/readers/image_folders.py"],
    "pyarrow": ["prepare/readers/parquet.py"],
    "matplotlib": [],
    "torch": [],
}
APART = ["data", "models", "collectives"]
NO_IDEA = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "manager", "handler"}


def _imported(module: Path) -> set[str]:
    """Absolute names of all modules that a file imports, wherever in it, packages of them included."""
    names = set()
    for node in ast.walk(ast.parse((_PACKAGE / module).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = ["lepton_mpi", *module.parent.parts][
                : 1 + len(module.parent.parts) - (node.level - 1)
            ]
            base = ".".join([*start, *filter(None, [node.module])]) if node.level else node.module
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_libraries_are_imported_only_where_they_belong(module):
    """MPI, HDF5 and Numba each have their few places."""
    for name in _imported(module):
        library = name.split(".")[0]
        if library in ALLOWED:
            assert any(fnmatch(module.as_posix(), pattern) for pattern in ALLOWED[library]), library


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_data_models_and_collectives_know_nothing_of_each_other(module):
    """None of the three imports another, nor the modules above them."""
    folder = module.parts[0]
    if folder not in APART:
        return
    above = {
        "train",
        "world",
        "evaluation",
        "strategies",
        "report",
        "checkpoint",
        "prepare",
        "explain",
        "watchdog",
    }
    forbidden = {*APART, *above} - {folder}
    for name in _imported(module):
        parts = name.split(".")
        assert not (parts[0] == "lepton_mpi" and len(parts) > 1 and parts[1] in forbidden), name


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_names_are_ideas(module):
    """No module is called after the fact that its author did not know where to put things."""
    assert not NO_IDEA.intersection(part.removesuffix(".py") for part in module.parts)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_says_what_it_is(module):
    """Each begins with a docstring."""
    assert ast.get_docstring(ast.parse((_PACKAGE / module).read_text("utf-8")))


def test_modules_that_compute_start_no_mpi():
    """Data, models, schedules, optimizers and checkpoints can be used without MPI."""
    modules = [
        module.with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for module in MODULES
        if module.parts[0] in APART
        and module.as_posix() not in ("collectives/mpi.py", "data/embedded/make.py")
    ]
    imports = "; ".join(f"import lepton_mpi.{name}" for name in modules if not _needs_mpi(name))
    code = f"import sys, lepton_mpi.optimizers.optimizer, lepton_mpi.run.checkpoint; {imports}; print('mpi4py' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100
    )
    assert ended.stdout == "False\n", ended.stderr


@cache
def _needs_mpi(name: str) -> bool:
    """Whether a module of the package, or one that it imports, imports ``collectives.mpi``."""
    module = Path(name.replace(".", "/") + ".py")
    if module not in MODULES:
        return False
    own = {found for found in _imported(module) if found.startswith("lepton_mpi.")} - {
        f"lepton_mpi.{name}"
    }
    return "lepton_mpi.collectives.messages.mpi" in own or any(
        _needs_mpi(found.removeprefix("lepton_mpi.")) for found in own
    )


def test_these_tests_have_not_started_mpi():
    """The serial floor runs without MPI: a process that MPI has not started leaves files in /dev/shm."""
    assert "mpi4py.MPI" not in sys.modules
