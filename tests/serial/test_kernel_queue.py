"""Kernels that several processes need: each compiled once, side by side, by no more processes than there are cores."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import lepton_mpi
from lepton_mpi.kernels import cache, locks, queue
from lepton_mpi.kernels.compiling import MADE, Kernel, inner, kernel
from lepton_mpi.kernels.sources import Key
from lepton_mpi.run.cold_start import ColdStart
from lepton_mpi.world.watchdog import PhaseClock

_ROOT = Path(lepton_mpi.__file__).parent.parent
_COUNT = 6
_KERNELS = """
from lepton_mpi.kernels.compiling import kernel
"""
_KERNEL = """
@kernel("f8(V)")
def kernel_{number}(vector):
    total = 0.0
    for i in range(vector.size):
        total += vector[i] * {number}
    return total
"""
# Prints when each was compiled here, and that all give what they should.
_PROCESS = """
import json, sys, time
import numpy as np
from lepton_mpi.kernels import compiling, queue
import made_up
kernels = [getattr(made_up, f"kernel_{number}") for number in range(COUNT)]
compiled, original = [], compiling.Kernel._compile_anew
def compile_anew(self, signature):
    began = time.monotonic()
    if self.__name__ in HANGING:
        print("hangs", flush=True)
        time.sleep(1000)
    original(self, signature)
    compiled.append((self.__name__, began, time.monotonic()))
compiling.Kernel._compile_anew = compile_anew
progress = []
BODY
vector = np.ones(3, np.float32)
results = [each(vector) for each in kernels]
assert results == [3.0 * number for number in range(COUNT)], results
print(json.dumps([compiled, len(progress)]))
"""
_TOGETHER = """
left = queue.missing(kernels, np.dtype(np.float32))
queue.compile_together(left, CORES, lambda: progress.append(1))
assert all(each.ready(each.signatures_for(np.dtype(np.float32))[0]) for each in kernels)
"""

# Who comes late finds nothing left to do.
_BEGUN_TOGETHER = """
import os, pathlib
here = pathlib.Path(os.environ["LEPTON_CACHE_DIR"])
(here / f"up{os.getpid()}").touch()
while len(list(here.glob("up*"))) < 4:
    time.sleep(0.001)
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A module of kernels, and an empty folder for what they are compiled to."""
    kernels = [_KERNEL.format(number=number) for number in range(_COUNT)]
    (tmp_path / "made_up.py").write_text(_KERNELS + "\n".join(kernels))
    return tmp_path


def _start(folder: Path, body: str = _TOGETHER, hanging: str = "", cores: int = 2, **more: str):
    text = _PROCESS.replace("BODY", textwrap.dedent(body)).replace("HANGING", repr(hanging))
    text = text.replace("COUNT", str(_COUNT)).replace("CORES", str(cores))
    own = {
        "LEPTON_CACHE_DIR": str(folder),
        "PYTHONPATH": f"{folder}:{_ROOT}",
        "TMPDIR": str(folder),
    }
    return subprocess.Popen(
        [sys.executable, "-c", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | own | more,
    )


def _ended(process: subprocess.Popen) -> tuple[list[tuple[str, float, float]], int]:
    """What it compiled, with begin and end, and how often it was told of progress."""
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    compiled, progress = json.loads(out.splitlines()[-1])
    return compiled, progress


@pytest.mark.slow(but_every=3)
@pytest.mark.parametrize("cores", [2, 1, 3])
def test_each_kernel_is_compiled_by_one_process(folder, cores):
    """And by at most as many at once as there are cores; every process is told of progress."""
    ended = [
        _ended(process)
        for process in [_start(folder, _BEGUN_TOGETHER + _TOGETHER, cores=cores) for _ in range(4)]
    ]
    compiled = [each for of_process, _ in ended for each in of_process]
    names = sorted(name for name, _, _ in compiled)
    assert names == [f"kernel_{number}" for number in range(_COUNT)]
    for _, began, _ in compiled:
        assert sum(other <= began < end for _, other, end in compiled) <= cores
    assert all(1 <= progress <= _COUNT for _, progress in ended)
    assert len(list((folder / "kernels").iterdir())) == _COUNT + 1


@pytest.mark.slow
def test_first_calls_compile_once_too(folder):
    """Without a queue, as for a kernel that nobody has named."""
    ended = [_ended(process) for process in [_start(folder, body="pass") for _ in range(3)]]
    names = sorted(name for compiled, _ in ended for name, _, _ in compiled)
    assert names == [f"kernel_{number}" for number in range(_COUNT)]


def test_a_process_that_dies_while_it_compiles_holds_nobody_up(folder):
    """Its lock goes with it, and its place."""
    dying = _start(folder, hanging="kernel_0", cores=1)
    assert dying.stdout.readline() == "hangs\n"
    other = _start(folder, cores=1)
    time.sleep(0.5)
    assert other.poll() is None
    dying.send_signal(signal.SIGKILL)
    dying.communicate()
    compiled, _ = _ended(other)
    assert [name for name, _, _ in compiled] == [f"kernel_{number}" for number in range(_COUNT)]


@pytest.mark.slow
def test_a_process_that_is_suspended_while_it_compiles_is_not_waited_for_for_ever(folder):
    """It keeps its lock and its place; another job compiles all the same, once it has waited for long."""
    suspended = _start(folder, hanging="kernel_0", cores=1)
    try:
        assert suspended.stdout.readline() == "hangs\n"
        suspended.send_signal(signal.SIGSTOP)
        body = "from lepton_mpi.kernels import locks; locks.PATIENCE_SECONDS = 0.5\n" + _TOGETHER
        compiled, progress = _ended(_start(folder, body=body, cores=1))
        assert len(compiled) == progress == _COUNT
    finally:
        suspended.kill()
        suspended.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["nowhere", "no room"])
def test_where_nothing_can_be_stored_every_process_compiles(folder, place):
    """And the job goes on."""
    body = """
        from lepton_mpi.kernels import cache
        if PLACE == "nowhere":
            cache.candidates = lambda: iter(())
        else:
            def full(*arguments):
                raise OSError(28, "No space left on device")
            cache._write = full
    """.replace("PLACE", repr(place))
    processes = [_start(folder, body=textwrap.dedent(body) + _TOGETHER) for _ in range(2)]
    for process in processes:
        compiled, progress = _ended(process)
        assert len(compiled) == progress == _COUNT


@pytest.mark.slow
def test_a_file_that_was_damaged_meanwhile_is_replaced(folder):
    """By one process again."""
    _ended(_start(folder))
    (file,) = (folder / "kernels").glob("kernel_3-*")
    file.write_bytes(file.read_bytes()[:-7])
    ended = [_ended(process) for process in [_start(folder) for _ in range(2)]]
    assert [name for compiled, _ in ended for name, _, _ in compiled] == ["kernel_3"]


# -- within one process --------------------------------------------------------------------------


@inner
def _twice(number):
    return number + number


def _short(vector):
    vector[0] = _twice(vector[0])


def _long(vector):
    for i in range(vector.size):
        vector[i] = _twice(vector[i]) * vector[i] + vector[i] * vector[i] - vector[i]


@pytest.fixture
def empty(tmp_path, monkeypatch) -> None:
    """An empty folder for compiled kernels."""
    monkeypatch.setenv("LEPTON_CACHE_DIR", str(tmp_path))
    cache.folder.cache_clear()
    yield
    cache.folder.cache_clear()


def test_the_longest_comes_first(empty):
    """By what a kernel is made of, other functions included."""
    short, long = kernel("void(V)")(_short), kernel("void(V)")(_long)
    left = queue.missing([short, long, short], np.dtype(np.float64))
    assert [each.kernel for each in left] == [long, short]
    assert [each.signature.args[0].dtype.bitwidth for each in left] == [64, 64]
    assert queue.length(short) > len(_short.__code__.co_code) // 2
    queue.compile_together(left, 1, lambda: None)
    assert [made.kernel for made in MADE[-2:]] == [long, short]
    assert queue.missing([short, long], np.dtype(np.float64)) == []


def test_compiled_kernels_are_progress(empty, monkeypatch):
    """For the watchdog; and the user is told, once, of all that a run has to wait for."""
    clock, said, begun = PhaseClock(), [], []
    original = Kernel._compile_anew

    def compile_anew(self, signature):
        begun.append(clock.rows[0, 2])
        original(self, signature)

    monkeypatch.setattr(Kernel, "_compile_anew", compile_anew)
    world = SimpleNamespace(cores=1, clock=clock)
    report = SimpleNamespace(say=lambda *words: said.append(words))
    start = ColdStart(world, np.dtype(np.float32), report)
    for kernels in (
        [kernel("void(V)")(_short), kernel("void(V)")(_long)],
        [kernel("void(M)")(_fill)],
    ):
        start.compile(kernels)
    start.say_end()
    assert len(set(begun)) == 3
    assert begun == sorted(begun)
    assert clock.rows[0, 2] > begun[-1]
    assert [title for title, _ in said] == ["kernels", "kernels"]
    assert said[0][1] == "being compiled for this processor, only once"
    assert re.fullmatch(r"3 compiled in \d+\.\d s", said[1][1])
    said.clear()
    again = ColdStart(world, np.dtype(np.float32), report)
    again.compile([kernel("void(V)")(_short)])
    again.say_end()
    assert said == []


def _fill(matrix):
    for i in range(matrix.shape[0]):
        matrix[i] = i


def test_a_run_asks_for_its_own_type(empty):
    """What is declared for other types beside is left alone, unless nothing depends on the run's."""
    of_run = kernel("void(V)", "void(i4[::1])")(_short)
    fixed = kernel("void(i4[::1])", "void(i8[::1])")(_long)
    left = queue.missing([of_run, fixed], np.dtype(np.float32))
    assert sorted(str(each.signature.args[0].dtype) for each in left) == [
        "float32",
        "int32",
        "int64",
    ]


def test_locks_of_another_process_are_seen(empty, tmp_path, monkeypatch):
    """And only those of the same kernel in the same folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = """
import sys
from lepton_mpi.kernels import locks
from lepton_mpi.kernels.sources import Key
with locks.compiling(Key("name", "digest"), 9.0) as is_mine, locks.place_of(1) as take_place:
    print(is_mine, take_place(), flush=True)
    sys.stdin.readline()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "True True\n"
        monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))
        locks._file.cache_clear()
        try:
            with locks.compiling(Key("name", "digest"), 0.0) as is_mine:
                assert not is_mine
            with locks.compiling(Key("name", "other"), 0.0) as is_mine:
                assert is_mine
            with locks.place_of(1) as take_place:
                assert not take_place()
            with locks.place_of(2) as take_place:
                assert take_place()
                assert take_place()
            other.stdin.write("\n")
            other.stdin.flush()
            with locks.compiling(Key("name", "digest"), 9.0) as is_mine:
                assert is_mine
        finally:
            locks._file.cache_clear()
