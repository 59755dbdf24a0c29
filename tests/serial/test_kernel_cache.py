"""Compiled kernels on disk: found again, given up when what they are made of changes and only then, never trusted when damaged."""

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import lepton_mpi
from lepton_mpi.kernels import cache
from lepton_mpi.kernels.compiling import MADE, Kernel, kernel
from lepton_mpi.kernels.sources import modules_behind
from lepton_mpi.layers import dense_stack_kernels

PACKAGE = Path(lepton_mpi.__file__).parent
_NOBODY = 65534


def _double(vector):
    for i in range(vector.size):
        vector[i] += vector[i]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder for compiled kernels."""
    monkeypatch.setenv("LEPTON_CACHE_DIR", str(tmp_path / "cache"))
    cache.folder.cache_clear()
    yield tmp_path / "cache" / "kernels"
    cache.folder.cache_clear()


def _is_compiled() -> bool:
    """Use a kernel as a new process would; returns whether it was compiled, and not found."""
    made = kernel("void(V)")(_double)
    vector = np.arange(3, dtype=np.float32)
    made(vector)
    assert vector.tolist() == [0, 2, 4]
    assert made.ready(made.signatures_for(vector.dtype)[0])
    assert MADE[-1].kernel is made
    return MADE[-1].is_compiled


def test_a_kernel_is_compiled_once(folder):
    """And loaded from then on; one file each, that nobody else may read or write."""
    assert _is_compiled()
    assert not _is_compiled()
    (file,) = folder.glob("*.kernel")
    assert file.stat().st_mode & 0o077 == 0
    assert not list(folder.glob("*.part"))


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _foreign(file: Path) -> None:
    file.write_bytes(b"\x7fELF" + bytes(5000))


def _pickle(file: Path) -> None:
    """Another object, under the right checksum."""
    name, _, digest = file.stem.rpartition("-")
    content = pickle.dumps("not a kernel")
    file.write_bytes(cache._head(cache.Key(name, digest), content) + content)


def _of_another_kernel(file: Path) -> None:
    """Whole, but stored under another name."""
    kernel("void(V, V)")(_add).compile("void(f4[::1], f4[::1])")
    (other,) = file.parent.glob("_add-*")
    other.replace(file)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _add(target, source):
    for i in range(target.size):
        target[i] += source[i]


@pytest.mark.parametrize(
    "damage", [_cut, _flip, _empty, _foreign, _pickle, _of_another_kernel, _folder]
)
def test_a_file_that_is_not_whole_is_compiled_anew(folder, damage):
    """And replaced, unless a folder is in its place."""
    assert _is_compiled()
    (file,) = folder.glob("_double-*")
    damage(file)
    assert _is_compiled()
    assert _is_compiled() == (damage is _folder)


def test_another_users_file_is_not_run(folder, monkeypatch):
    """It is code."""
    assert _is_compiled()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert _is_compiled()


# -- keys ----------------------------------------------------------------------------------------

_SOURCES = {
    "__init__.py": "",
    "kernels.py": """
        from lepton_mpi.kernels.compiling import kernel
        from made_up.constants import WIDTH
        from . import parts
        @kernel("i8(i8)")
        def scaled(number):
            return parts.twice(number) * WIDTH
        """,
    "constants.py": "WIDTH = 3",
    "parts.py": """
        from lepton_mpi.kernels.compiling import inner
        from .deeper.base import FACTOR
        @inner
        def twice(number):
            return number * FACTOR
        """,
    "deeper/__init__.py": "",
    "deeper/base.py": "FACTOR = 2",
    "other.py": "OTHER = 1",
}
_RUN = """
from lepton_mpi.kernels.compiling import MADE
from made_up.kernels import scaled
print(scaled(5), sum(made.is_compiled for made in MADE))
"""


@pytest.fixture
def package(tmp_path) -> Path:
    """A package whose kernel takes a constant and a function from other modules."""
    for name, text in _SOURCES.items():
        path = tmp_path / "made_up" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").splitlines()
        path.write_text("\n".join(line.removeprefix(" " * 8) for line in lines) + "\n")
    return tmp_path / "made_up"


def _run(package: Path, **environment: str) -> tuple[int, int]:
    """What the kernel returns in a process of its own, and how many were compiled."""
    given = {"PYTHONPATH": f"{package.parent}:{PACKAGE.parent}", "PYTHONDONTWRITEBYTECODE": "1"}
    cache_dir = {"LEPTON_CACHE_DIR": str(package.parent / "cache")}
    ended = subprocess.run(
        [sys.executable, "-c", _RUN],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | given | cache_dir | environment,
    )
    result, compiled = map(int, ended.stdout.split())
    return result, compiled


@pytest.mark.slow
def test_a_kernel_is_given_up_when_what_it_is_made_of_changes(package):
    """Its own module, and those behind it, however they are imported; nothing else, and not for new times of files."""
    assert _run(package) == (30, 1)
    assert _run(package) == (30, 0)
    (package / "other.py").write_text("OTHER = 2\n")
    os.utime(package / "kernels.py")
    assert _run(package) == (30, 0)
    (package / "constants.py").write_text("WIDTH = 4\n")
    assert _run(package) == (40, 1)
    (package / "deeper" / "base.py").write_text("FACTOR = 3\n")
    assert _run(package) == (60, 1)
    (package / "constants.py").write_text("WIDTH = 3\n")
    (package / "deeper" / "base.py").write_text("FACTOR = 2\n")
    assert _run(package) == (30, 0)
    assert _run(package, NUMBA_OPT="1") == (30, 1)


def test_a_kernel_depends_on_no_more_than_it_needs():
    """An edit of a loop in Python, or of the decorator's module, compiles nothing anew."""
    behind = set(modules_behind(dense_stack_kernels.__name__))
    assert {"lepton_mpi.kernels.product_kernels", "lepton_mpi.kernels.vector_code"} <= behind
    kernels = {name for name in behind if name.startswith("lepton_mpi.kernels.")}
    assert all(name.startswith("lepton_mpi.layers.") for name in behind - kernels)
    assert not {"lepton_mpi.kernels.compiling", "lepton_mpi.kernels.cache"} & behind


# -- folders -------------------------------------------------------------------------------------


def _choose(monkeypatch, *places: Path) -> None:
    monkeypatch.setattr(cache, "candidates", lambda: iter(places))
    cache.folder.cache_clear()
    cache._complain_once.cache_clear()


def test_places_for_kernels(tmp_path, monkeypatch):
    """What the user has named, else the user's cache; and a temporary folder of the user's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("LEPTON_CACHE_DIR", "/named")
    temporary = Path(tempfile.gettempdir(), f"lepton_mpi-kernels-{os.geteuid()}")
    assert list(cache.candidates()) == [Path("/named/kernels"), temporary]
    monkeypatch.delenv("LEPTON_CACHE_DIR")
    monkeypatch.setattr(cache.config, "CACHE_DIR", "/numba")
    assert list(cache.candidates()) == [Path("/numba/lepton_mpi"), temporary]
    monkeypatch.setattr(cache.config, "CACHE_DIR", "")
    assert list(cache.candidates()) == [Path("/xdg/lepton_mpi/kernels"), temporary]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert list(cache.candidates()) == [Path("/home/me/.cache/lepton_mpi/kernels"), temporary]


def test_a_folder_that_cannot_be_made_is_replaced(folder, tmp_path, monkeypatch, capfd):
    """By the next one, with one line; by none if there is none."""
    (tmp_path / "file").touch()
    _choose(monkeypatch, tmp_path / "file" / "kernels", tmp_path / "fallback")
    assert _is_compiled()
    assert not _is_compiled()
    (line,) = capfd.readouterr().err.splitlines()
    assert line == (
        f"lepton_mpi: warning: cannot keep compiled kernels in {tmp_path}/file/kernels: Not a directory; "
        f"they are in {tmp_path}/fallback"
    )
    assert (tmp_path / "fallback").stat().st_mode & 0o077 == 0
    _choose(monkeypatch, tmp_path / "file" / "kernels")
    assert _is_compiled()
    assert _is_compiled()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith("Not a directory; every process compiles its own")


def test_a_read_only_folder_is_replaced():
    """Of a user who is not root, whom nothing keeps from writing."""
    place, was_root = Path(tempfile.mkdtemp()), os.geteuid() == 0
    try:
        place.chmod(0o500)
        if was_root:
            os.chown(place, _NOBODY, -1)
            os.seteuid(_NOBODY)
        assert cache.unusable(place) == "Permission denied"
        place.chmod(0o700)
        assert cache.unusable(place) == ""
    finally:
        if was_root:
            os.seteuid(0)
        place.rmdir()


def test_a_folder_that_others_may_write_to_is_replaced(folder, tmp_path, monkeypatch, capfd):
    """What they put there would be run."""
    assert _is_compiled()
    folder.chmod(0o777)
    _choose(monkeypatch, folder, tmp_path / "fallback")
    assert _is_compiled()
    assert "others may write to it" in capfd.readouterr().err


def test_a_disk_without_room_costs_a_line(folder, monkeypatch, capfd):
    """The kernel runs all the same."""
    cache._complain_once.cache_clear()
    monkeypatch.setattr(cache.os, "replace", _no_room)
    assert _is_compiled()
    assert _is_compiled()
    (line,) = capfd.readouterr().err.splitlines()
    assert (
        line
        == f"lepton_mpi: warning: cannot store compiled kernels in {folder}: No space left on device"
    )
    assert not [path for path in folder.iterdir() if path.suffix in (".kernel", ".part")]


def _no_room(source: str, target: Path) -> None:
    raise OSError(28, "No space left on device")


def test_what_nobody_has_used_for_long_is_removed(folder):
    """Once a day, when something is stored."""
    assert _is_compiled()
    old, new, theirs = folder / "old-1.kernel", folder / "new-1.kernel", folder / "theirs"
    for path in (old, new, theirs):
        path.touch()
    for path in (old, theirs):
        os.utime(path, (1, 1))
    kernel("void(V, V)")(_add).compile("void(f4[::1], f4[::1])")
    assert old.exists()
    os.utime(folder / "cleaned", (1, 1))
    kernel("void(V, V)")(_add).compile("void(f8[::1], f8[::1])")
    assert (old.exists(), new.exists(), theirs.exists()) == (False, True, True)


def test_a_removed_package_leaves_nothing_behind(tmp_path):
    """No kernel lies in it: pip removes the files that it has put there, and folders that are empty then."""
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "lepton_mpi", ignore=shutil.ignore_patterns("__pycache__"))
    before = {path for path in site.rglob("*") if path.is_file()}
    code = "from lepton_mpi.data.files.checksum_kernels import fletcher32; import numpy as np; "
    code += (
        "import lepton_mpi; print(lepton_mpi.__path__[0], fletcher32(np.zeros(3, np.uint16), -1))"
    )
    own = {"PYTHONPATH": str(site), "HOME": str(tmp_path), "XDG_CACHE_HOME": ""}
    unset = ("LEPTON_CACHE_DIR", "NUMBA_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in unset} | own
    command = [sys.executable, "-c", code]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    )
    assert ended.stdout == f"{site}/lepton_mpi 0\n"
    assert list((tmp_path / ".cache" / "lepton_mpi" / "kernels").glob("fletcher32-*.kernel"))
    after = {path for path in site.rglob("*") if path.is_file()}
    assert {path.suffix for path in after - before} <= {".pyc"}


# -- kernels -------------------------------------------------------------------------------------


def test_importing_compiles_nothing():
    """Not even what a run will need."""
    modules = [
        "lepton_mpi." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in sorted(PACKAGE.rglob("*kernels.py"))
    ]
    code = (
        f"import {', '.join(modules)}; from lepton_mpi.kernels.compiling import *; import gc; "
        "kernels = [each for each in gc.get_objects() if isinstance(each, Kernel)]; "
        "print(len(kernels) > 40, any(each.overloads for each in kernels))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "True False\n"


def test_only_declared_types_are_compiled(folder):
    """Others are refused with what is declared, or converted as Numba converts numbers."""
    made: Kernel = kernel("f8(V, f8)")(_scaled_sum)
    vector = np.ones(4, np.float32)
    assert made(vector, 2) == 8
    assert len(made.overloads) == 1
    assert made(vector.astype(np.float64), np.float32(0.5)) == 2
    assert len(made.overloads) == 2
    for wrong in (vector[::2], vector.astype(np.int32), vector[None]):
        with pytest.raises(TypeError, match=r"_scaled_sum: no matching .* declared: f8\(V, f8\)"):
            made(wrong, 2.0)
    with pytest.raises(TypeError, match="is not declared"):
        made.compile("f8(i4[::1], f8)")
    assert len(made.overloads) == 2


def _scaled_sum(vector, factor):
    total = 0.0
    for i in range(vector.size):
        total += vector[i]
    return total * factor


def test_signatures_that_differ_in_numbers_alone_are_refused():
    """What is compiled for float32 would round a float64 that comes first."""
    with pytest.raises(AssertionError, match="differ in numbers"):
        kernel("F(F)")(_half).compile("f4(f4)")


def _half(number):
    return number / 2
