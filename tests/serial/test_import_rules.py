"""Which module may import what, and what a module may be called."""

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

import lepton_mpi
from lepton_mpi import extras

_PACKAGE = Path(lepton_mpi.__file__).parent
MODULES = sorted(path.relative_to(_PACKAGE) for path in _PACKAGE.rglob("*.py"))

# Libraries that are imported by another name than they are installed by.
_NAMES = {"scikit-learn": "sklearn", "pillow": "PIL"}
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
    "control_groups",
    "early_signals",
    "errors",
    "extras",
    "fault_points",
    "wording",
    "launcher",
    "processes",
    "own_folders",
    "report_word",
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
        *("data", "interpretation", "kernels", "layers", "models", "prepare", "run", "world"),
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


def _tree(module: Path) -> tuple[str, ast.Module]:
    text = (_PACKAGE / module).read_text("utf-8")
    return text, ast.parse(text)


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


def _of_all(look: Callable[[Path], Iterable[object]]) -> dict[str, list[object]]:
    """What ``look`` finds in every module; one test for all, since each test of its own would take longer than its look."""
    found = {module.as_posix(): list(look(module)) for module in MODULES}
    return {name: wrong for name, wrong in found.items() if wrong}


@pytest.mark.slow
def test_libraries_are_imported_only_where_they_belong():
    """MPI, HDF5 and Numba each have their few places. Imports for types alone do not count."""

    def out_of_place(module):
        libraries = {name.split(".")[0] for name in _imported(module, for_types=False)}
        for library in libraries & ALLOWED.keys():
            if not any(fnmatch(module.as_posix(), pattern) for pattern in ALLOWED[library]):
                yield library

    assert _of_all(out_of_place) == {}


# Programs, too, which import files of their folder.
_BESIDE = {
    "world/heartbeats.py": {"launchers"},
    "world/witness.py": {"deaths", "heartbeats"},
    "starting/foreground.py": {"launcher_noise", "parents"},
}


# Runs a file but for its last block, and then what the functions that this block leads to import, and the paths that they append for it.
_REACH = """
import ast, runpy, sys
path = sys.argv[1]
names = runpy.run_path(path)
with open(path, encoding="utf-8") as file:
    tree = ast.parse(file.read())
functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
reached, last = [], [tree.body[-1]]
while last:
    for node in ast.walk(last.pop()):
        function = functions.get(node.id) if isinstance(node, ast.Name) else None
        if function and function not in reached:
            reached.append(function)
            last.append(function)
for function in reached:
    for node in ast.walk(function):
        is_path = isinstance(node, ast.Expr) and ast.unparse(node).startswith("sys.path.append(")
        if is_path or isinstance(node, ast.Import | ast.ImportFrom):
            print(ast.unparse(node))
            exec(compile(ast.Module([node], []), path, "exec"), names)
"""


def _is_started_as_file(module: Path) -> bool:
    """By a program: people are told in the docstring how they start one."""
    if '__name__ == "__main__"' not in (_PACKAGE / module).read_text("utf-8"):
        return False
    tree = _tree(module)[1]
    is_program = "__name__ == '__main__'" in ast.unparse(tree.body[-1])
    by_people = re.search(r"python (-m )?lepton_mpi", ast.get_docstring(tree) or "")
    return is_program and not by_people and module.stem not in DOORS


_STARTED = [module for module in MODULES if _is_started_as_file(module)]


def _reached(path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *flags, "-c", _REACH, str(path)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("module", _STARTED, ids=str)
def test_what_is_started_as_a_file_finds_its_imports(module):
    """Those in functions, too, by an interpreter without any folder to import from; with libraries where the file needs some."""
    libraries = {name.split(".")[0] for name in _imported(module)} - sys.stdlib_module_names
    needed = libraries - _BESIDE.get(module.as_posix(), set()) - {"lepton_mpi"}
    job = _reached(_PACKAGE / module, *(["-P"] if needed else ["-I", "-S"]))
    assert job.returncode == 0, job.stderr  # its standard error may be nobody's


def test_all_that_are_started_as_files_are_found():
    """Among them those that a module hands to an interpreter by its ``__file__``."""
    found = {module.stem for module in _STARTED}
    handed = set()
    for module in MODULES:
        text = (_PACKAGE / module).read_text("utf-8")
        for named in re.findall(r"sys\.executable,[^\]]*?(\w*)\.?\b__file__", text):
            handed.add(named or module.stem)
    assert handed <= found and "foreground" in found


def test_an_import_in_a_function_that_is_not_found_is_seen(tmp_path):
    """Two calls away from the last block."""
    path = tmp_path / "program.py"
    path.write_text(
        "def main():\n    inner()\ndef inner():\n    import not_there\n"
        "def other():\n    import nor_this\nif __name__ == '__main__':\n    main()\n"
    )
    job = _reached(path, "-I", "-S")
    assert job.returncode and "not_there" in job.stderr and "nor_this" not in job.stderr


def test_libraries_are_declared():
    """In setup.cfg, for every run or by an extra that a message names: what tests alone install is missing elsewhere."""
    read = configparser.ConfigParser()
    read.read(_PACKAGE.parent / "setup.cfg", "utf-8")
    lines = read["options"]["install_requires"].splitlines()
    lines += [line for libraries in extras.LIBRARIES.values() for line in libraries]
    names = {re.split("[>=<;]", line)[0].strip() for line in lines if line and line[0] != "#"}
    known = {_NAMES.get(name, name) for name in names} | {"lepton_mpi", "llvmlite", "jax"}

    def undeclared(module):
        libraries = {name.split(".")[0] for name in _imported(module, for_types=False)}
        beside = _BESIDE.get(module.as_posix(), set())
        return libraries - known - beside - sys.stdlib_module_names

    assert _of_all(undeclared) == {}


def test_folders_import_only_what_lies_below_them():
    """No arrow upwards, so no circle of folders; ``data``, ``models`` and ``collectives`` know nothing of each other.

    Imports for types alone do not count: a class may name the protocol that it keeps.
    """

    def upwards(module):
        folder = module.parts[0].removesuffix(".py")
        if folder in DOORS:
            return
        allowed = {folder, *GROUND, *MAY_IMPORT.get(folder, ())}
        for name in _imported(module, for_types=False):
            parts = name.split(".")
            is_ours = parts[0] == "lepton_mpi" and len(parts) > 1 and parts[1] != "__version__"
            if is_ours and parts[1] not in allowed:
                yield name

    assert _of_all(upwards) == {}


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


def test_names_are_ideas():
    """No module is called after the fact that its author did not know where to put things."""
    assert _of_all(lambda m: NO_IDEA.intersection(p.removesuffix(".py") for p in m.parts)) == {}


@pytest.mark.slow
def test_every_module_says_what_it_is():
    """Each begins with a docstring."""
    assert _of_all(lambda m: [] if ast.get_docstring(_tree(m)[1]) else ["no docstring"]) == {}


@pytest.mark.slow
def test_functions_and_modules_are_short():
    """No function over 60 lines, no module over 400: past that it is two ideas."""

    def too_long(module):
        text, tree = _tree(module)
        if text.count("\n") > 400:
            yield f"{text.count(chr(10))} lines"
        for node in ast.walk(tree):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and node.end_lineno - node.lineno >= 60:
                yield node.name

    assert _of_all(too_long) == {}


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


@pytest.mark.slow
def test_private_names_stay_in_their_module():
    """What another module needs is public."""
    found = {path.as_posix(): _private_of_others(path) for path in _FILES}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.slow
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
