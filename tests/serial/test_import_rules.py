"""Which module may import what, and what a module may be called."""

import ast
import re
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
    "mpi4py": ["world/*.py", "collectives/messages/mpi.py", "collectives/messages/mail.py"],
    "h5py": [
        "data/files/*.py",
        "data/embedded/make.py",
        "data/embedded/make_words.py",
        "run/checkpoint.py",
        "run/vector_digests.py",
        "prepare/readers/hdf5_arrays.py",
        "prepare/readers/hdf5*.py",
        "prepare/readers/label_files.py",
        "prepare/writing.py",
        "prepare/inspection.py",
        "prediction/files/hdf5_file.py",
        "doctor/folder_trial.py",
    ],
    "numba": ["*kernels.py", "kernels/*.py", "collectives/within_host/atomics.py"],
    "llvmlite": ["*kernels.py", "kernels/*.py", "collectives/within_host/atomics.py"],
    "sklearn": ["data/embedded/make.py", "estimators/*.py"],
    "cloudpickle": ["starting/task.py"],
    "PIL": ["prepare/readers/image_folders.py"],
    "pyarrow": ["prepare/readers/parquet.py", "prediction/files/parquet_file.py"],
    "matplotlib": ["interpretation/pictures.py"],
    "tensorboardX": ["run/tensorboard.py"],
    "tokenizers": ["data/byte_pairs.py"],
    "onnx": ["exporting/onnx_*.py"],
    "torch": ["torch/*.py"],
    "safetensors": ["data/files/parameter_files.py"],
    "jax": ["jax/*.py"],
}
# Modules at the top of the package that know nothing of the rest.
GROUND = {
    "chunks",
    "early_signals",
    "errors",
    "extras",
    "fault_points",
    "wording",
    "launcher",
    "durable",
    "vectors",
    "batch",
    "sync",
    "registry",
}
# Which folders a folder may import, beside itself and the ground; the doors at the top of the package are not listed.
MAY_IMPORT = {
    "kernels": set(),
    "layers": {"kernels"},
    "models": {"layers", "kernels", "options"},
    "data": {"kernels"},
    "tasks": {"data", "options"},
    "optimizers": {"kernels", "options"},
    "world": set(),
    "collectives": {"kernels"},
    "strategies": {"collectives", "optimizers", "kernels", "options"},
    "options": {"data"},
    "prepare": {"data", "kernels", "options"},
    "run": {
        *("collectives", "data", "kernels", "layers", "models", "optimizers", "options"),
        *("strategies", "tasks", "world", "batch_systems"),
    },
    "torch": {"collectives", "data", "kernels", "layers", "models", "run", "tasks", "world"},
    "jax": {"collectives", "models", "run", "world"},
    "markup": set(),
    "interpretation": {
        *("data", "kernels", "layers", "markup", "models", "run", "tasks", "world"),
    },
    "prediction": {
        *("data", "interpretation", "layers", "models", "prepare", "run", "world"),
    },
    "starting": {"world"},
    "estimators": {
        *("data", "options", "prediction", "prepare", "run", "starting", "world"),
    },
    "reporting": {
        *("data", "interpretation", "markup", "options", "prediction", "run", "tasks", "world"),
    },
    "exporting": {"data", "layers", "models", "options", "run"},
    "doctor": {"collectives", "kernels", "world"},
    "batch_systems": {"options"},
    "chaos": {"run", "starting"},
    "sweeping": {"options", "reporting", "starting"},
    "commands": {
        *(
            "batch_systems",
            "chaos",
            "sweeping",
            "starting",
            "doctor",
            "exporting",
            "interpretation",
            "markup",
            "prediction",
            "reporting",
            "run",
            "prepare",
            "options",
            "collectives",
            "world",
            "data",
            "models",
            "tasks",
        ),
        "optimizers",
    },
}
DOORS = {"__init__", "__main__", "train"}
NO_IDEA = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "manager", "handler"}


@cache
def _imported(module: Path, for_types: bool = True) -> set[str]:
    """Absolute names of all modules that a file imports, wherever in it, packages of them included."""
    names = set()
    tree = ast.parse((_PACKAGE / module).read_text("utf-8"))
    skipped = set()
    for node in ast.walk(tree):
        if not for_types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
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
    """MPI, HDF5 and Numba each have their few places. Imports for types alone do not count."""
    for name in _imported(module, for_types=False):
        library = name.split(".")[0]
        if library in ALLOWED:
            assert any(fnmatch(module.as_posix(), pattern) for pattern in ALLOWED[library]), library


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_folders_import_only_what_lies_below_them(module):
    """No arrow upwards, so no circle of folders; ``data``, ``models`` and ``collectives`` know nothing of each other.

    Imports for types alone do not count: a class may name the protocol that it keeps.
    """
    folder = module.parts[0].removesuffix(".py")
    if folder in DOORS:
        return
    allowed = {folder, *GROUND} if folder in MAY_IMPORT else GROUND
    allowed = allowed | MAY_IMPORT.get(folder, set())
    for name in _imported(module, for_types=False):
        parts = name.split(".")
        is_ours = parts[0] == "lepton_mpi" and len(parts) > 1 and parts[1] != "__version__"
        assert not is_ours or parts[1] in allowed, name


def test_every_folder_has_its_rule():
    """A new folder, or a new module at the top, says where it stands."""
    assert {module.parts[0].removesuffix(".py") for module in MODULES} == {
        *MAY_IMPORT,
        *GROUND,
        *DOORS,
    }


def test_modules_do_not_import_each_other_in_a_circle():
    """Also within a folder; imports in functions count, those for types alone do not."""
    names = {_name(module): module for module in MODULES}
    state: dict[str, str] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert state.get(name) != "open", " -> ".join([*path, name])
        if name in state:
            return
        state[name] = "open"
        for found in _imported(names[name], for_types=False) & names.keys() - {name}:
            if not name.startswith(found + "."):  # a package of it, which Python imports first
                visit(found, (*path, name))
        state[name] = "done"

    for name in names:
        visit(name, ())


def _name(module: Path) -> str:
    dotted = module.with_suffix("").as_posix().replace("/", ".")
    return f"lepton_mpi.{dotted}".removesuffix(".__init__")


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_names_are_ideas(module):
    """No module is called after the fact that its author did not know where to put things."""
    assert not NO_IDEA.intersection(part.removesuffix(".py") for part in module.parts)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_says_what_it_is(module):
    """Each begins with a docstring."""
    assert ast.get_docstring(ast.parse((_PACKAGE / module).read_text("utf-8")))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_functions_and_modules_are_short(module):
    """No function over 60 lines, no module over 400: past that it is two ideas."""
    text = (_PACKAGE / module).read_text("utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


ROOT = _PACKAGE.parent
_OURS = ("lepton_mpi", "benchmarks", "tests")
_FILES = sorted(
    path.relative_to(ROOT) for folder in _OURS for path in (ROOT / folder).rglob("*.py")
)


def _private_of_others(path: Path) -> list[str]:
    """Names with an underscore that a file takes from another of ours; what tests take from the package they test it by."""
    tree, modules, found = ast.parse((ROOT / path).read_text("utf-8")), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                found.append(f"{node.module}.{alias.name}")
    found += [
        f"{modules[node.value.id]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id in modules
    ]
    ours = _OURS if path.parts[0] != "tests" else ("tests",)
    return [
        name
        for name in found
        if name.split(".")[0] in ours
        and re.fullmatch("_[^_].*", name.split(".")[-1])
        and name.split(".")[-1] not in _OF_NAMED_TUPLES
    ]


# Public, and with an underscore to be no field.
_OF_NAMED_TUPLES = {"_fields", "_field_defaults", "_make", "_replace", "_asdict"}


@pytest.mark.parametrize("path", _FILES, ids=str)
def test_private_names_stay_in_their_module(path):
    """What another module needs is public."""
    assert _private_of_others(path) == []


def test_modules_that_compute_start_no_mpi():
    """Data, models, schedules, optimizers and checkpoints can be used without MPI."""
    modules = [
        module.with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for module in MODULES
        if module.parts[0] in ("data", "models", "collectives")
        and module.as_posix() not in ("collectives/messages/mpi.py", "data/embedded/make.py")
    ]
    imports = "; ".join(f"import lepton_mpi.{name}" for name in modules if not _needs_mpi(name))
    code = f"import sys, lepton_mpi.optimizers.optimizer, lepton_mpi.run.checkpoint; {imports}; print('mpi4py' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100
    )
    assert ended.stdout == "False\n", ended.stderr


@cache
def _needs_mpi(name: str) -> bool:
    """Whether a module of the package, or one that it imports, imports ``collectives.messages.mpi``."""
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
