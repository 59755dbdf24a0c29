"""What a file from elsewhere may hold, that good ones are taken, and a process that may die of the others."""

import ast
import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t, h5z
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lepton_mpi
from lepton_mpi.data.files import hdf5, layouts, probe, stored, trust
from lepton_mpi.errors import DataError, LauncherError
from lepton_mpi.prepare import inspection
from lepton_mpi.wording import one_line
from tests.serial import hostile_files, hostile_outcomes
from tests.serial.data_files import load, read_all, table, write

X, Y = table(40, (4,))


def _look(
    path: Path, arrays: probe.Arrays | None = None, unpack: list[str] | None = None
) -> str | None:
    """What is wrong with a file, without its beginning, the path."""
    try:
        probe.check(path, arrays, unpack)
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


# -- good files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", hostile_files.GOOD)
def test_good_files_are_taken(tmp_path, good):
    """Both formats, all storage that h5py chooses, user blocks, texts and attributes."""
    hostile_files.write_good(tmp_path / "a.h5", **hostile_files.GOOD[good])
    assert _look(tmp_path / "a.h5") is None
    assert load(tmp_path / "a.h5").splits["train"].row_count == 40


def test_embedded_sets_would_be_taken():
    """They are not looked at, and could be."""
    for path in hdf5.EMBEDDED.glob("*.h5"):
        assert _look(path) is None


def test_embedded_sets_are_not_looked_at(monkeypatch):
    """The start without any file of one's own costs no process."""
    monkeypatch.setattr(probe, "check", None)
    assert load("digits").class_count == 10


def test_a_data_set_may_have_two_names(tmp_path):
    """Validation on the test rows, say; it is one data set all the same."""
    path = write(tmp_path / "a.h5", {"train/x": X, "train/y": Y, "test/x": X + 1, "test/y": Y})
    with h5py.File(path, "r+") as file:
        for name in "xy":
            file[f"validation/{name}"] = file[f"test/{name}"]
    data = load(path, np.float64)
    np.testing.assert_array_equal(read_all(data, "validation")[0], X + 1)


def test_a_small_data_set_may_stand_in_its_description(tmp_path):
    """HDF5 calls it compact."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        made = h5p.create(h5p.DATASET_CREATE)
        made.set_layout(h5d.COMPACT)
        data_set = h5d.create(file.id, b"x", h5t.IEEE_F64LE, h5s.create_simple(X.shape), made)
        data_set.write(h5s.ALL, h5s.ALL, X)
        file["y"] = Y
    assert load(path).splits["train"].x.max() == X.max()


FILTERS = {
    "gzip": h5z.FILTER_DEFLATE,
    "shuffle": h5z.FILTER_SHUFFLE,
    "fletcher32": h5z.FILTER_FLETCHER32,
}


@pytest.mark.slow(but_every=5)
@pytest.mark.parametrize(
    "order",
    [
        ("gzip",),
        ("shuffle",),
        ("fletcher32",),
        ("shuffle", "gzip"),
        ("gzip", "fletcher32"),
        ("fletcher32", "gzip"),
        ("fletcher32", "shuffle"),
        ("shuffle", "gzip", "fletcher32"),
        ("fletcher32", "shuffle", "gzip"),
    ],
    ids="-".join,
)
@pytest.mark.parametrize("dtype", ["u1", ">f4", "f8"])
@pytest.mark.parametrize("noise", [False, True], ids=["smooth", "noise"])
def test_filters_may_come_in_any_order(tmp_path, order, dtype, noise):
    """A checksum may be of the rows or of the packed bytes, and what gzip would not shrink is left as it is."""
    numbers = np.random.default_rng(0).integers(0, 256, (50, 7)) if noise else np.ones((50, 7))
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        made = h5p.create(h5p.DATASET_CREATE)
        made.set_chunk((16, 5))
        for name in order:
            made.set_filter(FILTERS[name], h5z.FLAG_OPTIONAL, (9,) if name == "gzip" else ())
        kind = h5t.py_create(np.dtype(dtype))
        data_set = h5d.create(file.id, b"x", kind, h5s.create_simple((50, 7)), made)
        data_set.write(h5s.ALL, h5s.ALL, numbers.astype(dtype))
        file["y"] = np.arange(50) % 3
    assert _look(path) is None
    assert _look(path, unpack=[]) is None


def test_texts_and_lists_of_texts_may_be_attributes(tmp_path):
    """Of fixed and of variable length, in UTF-8, empty, and numbers of any shape."""
    path = write(
        tmp_path / "a.h5",
        {
            "x": X,
            "y": Y,
            "about/columns": ["Größe", "length"],
            "about/fixed": np.array([b"a", b""]),
        },
        classes=["a", "b", "c"],
        none=h5py.Empty("S4"),
        note="ΔT, 温度",
        table=np.zeros((3, 4)),
        yes=True,
        bytes=np.array([b"x", b"yy"]),
    )
    assert _look(path) is None


# -- files of which only a part is wanted ------------------------------------------------------------


@pytest.fixture
def instrument(tmp_path) -> Path:
    """A file as instruments write them: links, records and references all around the rows."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["entry/data/x"], file["entry/data/y"] = X, np.array([b"a", b"b"] * 20)
        file["entry/data/x"].attrs["scales"] = np.array([file.ref], h5py.ref_dtype)
        file["entry/default"] = h5py.SoftLink("/entry/data")
        file["entry/log"] = np.zeros(3, "f4,f4")
        file["raw"] = h5py.ExternalLink("other.h5", "/")
        file["entry/later"] = np.zeros(1, "V8")
    return path


def test_an_instruments_file_is_refused_as_a_whole(instrument):
    """By the first thing that is no plain data."""
    assert "/raw: expected data in the file itself, got a link to another file" in _look(instrument)


@pytest.mark.parametrize(
    "names", [("entry/data/x", ""), ("/entry/data/x", "entry/data/y")], ids=str
)
def test_what_is_not_wanted_of_a_file_may_be_anything(instrument, names):
    """Data sets of numbers and texts beside it, with whatever attributes."""
    assert _look(instrument, names) is None
    with h5py.File(instrument) as file:
        found = hdf5.check_structure(file, instrument, names)
    assert found.names == tuple(name.strip("/") for name in names if name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("entry/default/x", "/entry/default: expected data in the file itself, got a soft link"),
        ("entry/log", "/entry/log: expected numbers, got records"),
        ("raw/x", "/raw: expected data in the file itself, got a link to another file"),
    ],
)
def test_what_is_wanted_of_a_file_must_be_good(instrument, name, words):
    """Also the groups on the way to it."""
    assert _look(instrument, (name, "")) == words


# -- chunks ------------------------------------------------------------------------------------------


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(st.binary(max_size=300), st.integers(0, 5000).map(bytes)),
    level=st.integers(0, 9),
    more=st.integers(-3, 3),
    cut=st.integers(0, 3),
    piece=st.sampled_from([1, 2, 7, 64, 1 << 20]),
)
def test_the_length_of_what_is_packed_is_found_out(
    tmp_path, monkeypatch, content, level, more, cut, piece
):
    """Whatever the pieces are: true for the whole stream and its length, false for any other."""
    packed = zlib.compress(content, level)
    packed = packed[: len(packed) - cut]
    path = tmp_path / "packed"
    path.write_bytes(b"before" + packed + b"after")
    monkeypatch.setattr(stored, "_PIECE_BYTES", piece)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        is_right = stored._unpacks_to(len(content) + more, descriptor, 6, len(packed))
    finally:
        os.close(descriptor)
    assert is_right == (more == 0 and cut == 0)


def test_unpacking_takes_no_memory(tmp_path):
    """100 MB of zeros are unpacked in pieces, and given up once they are too many."""
    packed = zlib.compress(bytes(100_000_000), 9)
    path = tmp_path / "packed"
    path.write_bytes(packed)
    code = (
        "import os, resource, sys; from lepton_mpi.data.files import stored\n"
        f"descriptor, length = os.open({str(path)!r}, os.O_RDONLY), {len(packed)}\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert stored._unpacks_to(100_000_000, descriptor, 0, length)\n"
        "assert not stored._unpacks_to(1000, descriptor, 0, length)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100
    )
    assert int(ended.stdout) < 20_000, ended.stderr  # KiB


def test_packed_chunks_need_not_be_unpacked_first(tmp_path):
    """With ``unpack`` off, only the last chunk of a data set is."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        x = file.create_dataset("x", data=X, chunks=(10, 4), compression="gzip")
        x.id.write_direct_chunk((0, 0), zlib.compress(bytes(10)))
        file["y"] = Y
    assert "/x: chunk at [0, 0]: damaged: expected gzip of 320 bytes" in _look(path)
    assert _look(path, unpack=[]) is None


def test_chunks_are_found_without_the_function_of_newer_libraries(tmp_path):
    """HDF5 before 1.12.3 has another one."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data_set = file.create_dataset("x", data=X, chunks=(7, 3), compression="gzip").id

        class Old:
            get_num_chunks, get_chunk_info = data_set.get_num_chunks, data_set.get_chunk_info

        found: list[list] = [[], []]
        stored._for_each_chunk(data_set, found[0].append)
        stored._for_each_chunk(Old(), found[1].append)
        assert len(found[0]) == 12 and found[0] == found[1]
        assert stored._for_each_chunk(Old(), lambda info: True) is None


# -- the other process -------------------------------------------------------------------------------


def _reply(look: str) -> str | None:
    """What is replied where the look at a file does this."""
    code = (
        "import ctypes, json, os, signal; from pathlib import Path; from lepton_mpi.data.files import probe\n"
        "def look(path, *_):\n"
        "    probe._limit(0)\n"
        f"    {look}\n"
        "probe.look = look; probe._CPU_SECONDS, probe._WALL_SECONDS = 1, 2\n"
        "print(json.dumps(probe._forked_look(Path('a.h5'))))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100
    )
    assert ended.stderr == ""
    return json.loads(ended.stdout)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL"])
def test_a_crash_is_a_line(name):
    """Of the process that looks, and of nobody else."""
    expected = f"a.h5: damaged: the HDF5 library crashes on it ({name})"
    assert _reply(f"os.kill(os.getpid(), signal.{name})") == expected


@pytest.mark.parametrize(
    "look",
    ["sum(iter(int, 1))", "signal.pause()", "ctypes.CDLL(None).pause()"],
    ids=["busy", "asleep", "in C"],
)
def test_no_end_is_a_line(look):
    """A look that takes too much time is ended, whether it computes or waits, in Python or outside."""
    assert _reply(look) == "a.h5: damaged: the HDF5 library comes to no end in it"


@pytest.mark.parametrize("signals", ["SIGALRM", "SIGXCPU"])
def test_a_machine_that_stood_still_damages_no_file(tmp_path, signals):
    """Whoever took too much time is looked at once more; what comes to no end comes to none then, too."""
    once = tmp_path / "once"
    look = (
        f"os.path.exists({str(once)!r}) or open({str(once)!r}, 'w').close() or "
        f"os.kill(os.getpid(), signal.{signals})"
    )
    assert _reply(look) is None
    assert once.exists()


def test_the_time_of_a_look_grows_with_the_chunks():
    """Of one row each there may be millions: a whole file is never called damaged for them."""
    code = (
        "import resource; from lepton_mpi.data.files import probe\n"
        "probe._limit(0, 0); few = resource.getrlimit(resource.RLIMIT_CPU)[0]\n"
        "probe._limit(0, 1_000_000); print(resource.getrlimit(resource.RLIMIT_CPU)[0] - few)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=99)
    assert int(ended.stdout) >= 9, ended.stderr


def test_a_chunk_a_row_is_taken_and_told(tmp_path, monkeypatch):
    """With the command that makes larger ones; too many are refused by their number, with another."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=X, chunks=(1, 4), maxshape=(None, 4))
        file.create_dataset("y", data=Y, chunks=(1,), maxshape=(None,))
    monkeypatch.setattr(layouts, "_MANY_CHUNKS", 39)
    data = load(tmp_path / "a.h5", np.float64, {"validation": 0, "test": 0})
    assert np.array_equal(read_all(data, "train")[0], X)
    assert data.notes[0].startswith(
        "/x: 40 chunks of 1 rows, slow to start: python -m lepton_mpi prepare"
    )
    monkeypatch.setattr(stored, "CHUNKS_MAX", 39)
    with pytest.raises(
        DataError, match=r"/x: expected at most 39 chunks, got 40 .* h5repack -l /x:CHUNK=40x4"
    ):
        load(tmp_path / "a.h5")


@pytest.mark.parametrize("before", [0, 512, 4096])
def test_addresses_of_chunks_count_from_the_user_block_or_not(tmp_path, monkeypatch, before):
    """HDF5 before 1.14.4 leaves it out; what this one does is found out, not guessed."""
    user_block = {"userblock_size": before} if before else {}
    with h5py.File(tmp_path / "a.h5", "w", **user_block) as file:
        made = file.create_dataset("x", data=X, chunks=(10, 4), fletcher32=True)
        file["y"] = Y
        file.flush()
        told = made.id.get_chunk_info(0).byte_offset
    true = (tmp_path / "a.h5").read_bytes().index(X[:10].tobytes())
    assert true == told + before * stored._leaves_out_user_block()
    data = load(tmp_path / "a.h5", np.float64, {"validation": 0, "test": 0})
    assert np.array_equal(read_all(data, "train")[0], X)


def test_too_much_memory_is_refused():
    """A look is not given all that it asks for."""
    assert "MemoryError" in _reply(
        "\n    try: bytes(3 << 30)\n    except MemoryError as error: raise probe.DataError(repr(error))"
    )


def test_leaving_is_a_line():
    """A library may end the program by itself; what it prints goes nowhere."""
    expected = "a.h5: damaged: the HDF5 library ends the program over it"
    assert _reply("print('words', flush=True); os._exit(7)") == expected


def test_one_process_looks_at_many_files(tmp_path):
    """Also after one that crashed the look."""
    good = write(tmp_path / "good.h5", {"x": X, "y": Y})
    bad = tmp_path / "bad.h5"
    crash = next(
        case
        for case in hostile_files.cases(tmp_path / "secret0.h5")
        if case.name == "last chunk is taken as it is at train/x"
    )
    crash.write(bad)
    with probe.Probe() as kept:
        for _ in range(2):
            kept.check(good)
            with pytest.raises(DataError, match=r"bad\.h5: "):
                kept.check(bad)


def test_odd_paths_reach_the_other_process(tmp_path):
    """Spaces, quotes, line ends and bytes that are no UTF-8."""
    for name in ("a b'\"c.h5", "two\nlines.h5", os.fsdecode(b"\xff.h5")):
        path = write(tmp_path / "good.h5", {"x": X, "y": Y}).rename(tmp_path / name)
        assert _look(path) is None


def test_what_is_no_file_is_not_opened(tmp_path):
    """A pipe would never answer, a device never end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        assert "expected a file" in _look(path)
        with pytest.raises(DataError, match="expected a file"), hdf5.open_file(path):
            pass


def test_the_other_process_finds_the_package(tmp_path, monkeypatch):
    """Also where it is not found by the path, as with some editable installs."""
    path = write(tmp_path / "a.h5", {"x": X, "y": Y})
    others = [part for part in sys.path if not (Path(part) / "lepton_mpi").exists()]
    monkeypatch.setattr(sys, "path", others)
    with probe.Probe() as started:
        started.check(path)


def test_without_a_process_there_is_no_looking(tmp_path, monkeypatch):
    """Neither one that cannot start nor one that ends at once lets a file through."""
    path = write(tmp_path / "a.h5", {"x": X, "y": Y})
    for program in (str(tmp_path / "none"), "/bin/true"):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", program)
            with pytest.raises(LauncherError, match="process"), probe.Probe() as started:
                started.check(path)


# -- the rest of the package -------------------------------------------------------------------------


def test_no_module_can_run_what_a_file_holds():
    """No pickle in any form, no evaluation of texts, and NumPy only loads with pickles forbidden.

    Compiled kernels, and functions for ranks, are programs by nature: both are taken from a folder that nobody but the user can write to.
    """
    forbidden = {"pickle", "cPickle", "dill", "marshal", "shelve", "joblib", "cloudpickle"}
    package = Path(lepton_mpi.__file__).parent
    programs = {package / "kernels" / "cache.py", package / "starting" / "task.py"}
    # Digests of what ranks hold: it reads nothing.
    programs |= {package / "world" / "rank_group.py"}
    for path in set(package.rglob("*.py")) - programs:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names}
                names.add((getattr(node, "module", None) or "").split(".")[0])
                assert not names & forbidden, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "compile"), (path, node.lineno)
                if called in ("np.load", "numpy.load", "np.lib.format.read_array"):
                    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                    assert given.get("allow_pickle") == "False", (path, node.lineno)


def test_what_moves_a_cursor_is_not_printed():
    """Names in files may hold anything; messages hold one line of letters."""
    assert one_line("a\n b\x1b[2J\u2028c\x00") == "a b\\x1b[2J c\\x00"
    assert one_line("Größe 温度") == "Größe 温度"


@pytest.mark.parametrize(
    "report", [b"[" * 100_000, b'{"a": ' * 100_000, b"{}", b"\xff", b"[1e999]"]
)
def test_reports_of_another_kind_are_refused(tmp_path, report):
    """``inspect`` reads what ``prepare`` wrote, or somebody else."""
    path = write(tmp_path / "a.h5", {"x": X, "y": Y, "about/report": np.frombuffer(report, "u1")})
    with pytest.raises(DataError, match="about/report: expected the JSON of a report: "):
        inspection.text(path, 3)


def test_inspect_looks_first_and_prints_letters(tmp_path):
    """Names of classes and columns may hold anything, and so may the file."""
    path = write(tmp_path / "a.h5", {"x": X, "y": Y, "about/columns": np.array([b"\x1b[2J"] * 4)})
    assert "\x1b" not in inspection.text(path, 4)
    with h5py.File(path, "r+") as file:
        file["more"] = h5py.SoftLink("/x")
    with pytest.raises(DataError, match="got a soft link"):
        inspection.text(path, 4)


def test_the_watch_over_the_secret_sees_a_read(tmp_path):
    """Or the tests that nobody reads it would prove nothing."""
    secret = hostile_files.make_secret(tmp_path)
    with hostile_outcomes.watched(secret) as events:
        assert events() == 0
        secret.read_bytes()
        assert events() > 0


def test_every_attribute_that_is_read_was_looked_at():
    """Attributes of other names may be what they like, since nobody reads them."""
    reading = re.compile(r"(?:attrs|attributes)(?:\.get\(|\[)\"([^\"]+)\"")
    found = set()
    for path in (Path(lepton_mpi.__file__).parent / "data").rglob("*.py"):
        if path.name != "make.py":
            found |= set(reading.findall(path.read_text("utf-8")))
    assert {"classes", "kind", "values", "context"} <= found <= trust.ATTRIBUTES_READ
