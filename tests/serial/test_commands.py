"""The commands as processes: what they load, what they print, how they end."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]

HELP = [
    ["-m", "lepton_mpi", "--help"],
    ["-m", "lepton_mpi.train", "--help"],
    ["-m", "lepton_mpi", "train", "--help"],
    ["-m", "lepton_mpi", "evaluate", "--help"],
    ["-m", "lepton_mpi", "explain", "--help"],
    ["-m", "lepton_mpi", "prepare", "--help"],
    ["-m", "lepton_mpi", "inspect", "--help"],
]
WRONG = [
    ["-m", "lepton_mpi"],
    ["-m", "lepton_mpi", "trian"],
    ["-m", "lepton_mpi.train", "--epoch", "3"],
    ["-m", "lepton_mpi.train", "--epochs", "x"],
    ["-m", "lepton_mpi", "evaluate"],
    ["-m", "lepton_mpi", "evaluate", "a.h5", "--timeout", "0"],
    ["-m", "lepton_mpi", "tune", "--timeout", "nan"],
    ["-m", "lepton_mpi", "tune", "--seconds", "0"],
    ["-m", "lepton_mpi", "tune", "--max", "4"],
    ["-m", "lepton_mpi", "inspect", "digits", "--columns", "-1"],
    ["-m", "lepton_mpi", "prepare", "one.h5"],
    ["-m", "lepton_mpi", "prepare", "a.csv", "b.h5", "--labels", "3"],
    ["-m", "lepton_mpi", "prepare", "a.csv", "b.h5", "--split", "1,1"],
    ["-m", "lepton_mpi", "inspect"],
]


def _run(words: list[str], *flags: str, **variables: str) -> subprocess.CompletedProcess:
    """``python FLAGS WORDS`` in the root of the repository."""
    return subprocess.run(
        [sys.executable, *flags, *words],
        cwd=_ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=100,
    )


def _name(words: list[str]) -> str:
    return " ".join(words[1:])


@pytest.mark.parametrize("words", HELP, ids=_name)
def test_help_loads_neither_numpy_nor_mpi(words):
    """``--help`` of every command ends with 0, prints a usage, and imports no library that takes time."""
    ended = _run(words, "-X", "importtime")
    assert ended.returncode == 0
    assert "usage: " in ended.stdout
    imported = re.findall(r"^import time:.*\|\s*(\S+)$", ended.stderr, re.MULTILINE)
    assert "lepton_mpi" in imported
    heavy = {"numpy", "mpi4py", "mpi4py.MPI", "numba", "h5py", "scipy", "llvmlite"}
    assert not heavy.intersection(imported)


@pytest.mark.parametrize("words", WRONG, ids=_name)
def test_usage_errors_load_neither_numpy_nor_mpi(words):
    """A wrong command, option or value ends with 2 before anything heavy is imported, without a traceback."""
    ended = _run(words, "-X", "importtime")
    assert ended.returncode == 2
    own = [line for line in ended.stderr.splitlines() if not line.startswith("import time:")]
    assert own and "Traceback" not in ended.stderr
    assert not re.search(r"\| +(numpy|mpi4py)$", ended.stderr, re.MULTILINE)


def test_an_unknown_option_is_one_line():
    """Nothing but that line is printed."""
    ended = _run(["-m", "lepton_mpi.train", "--epoch", "3"])
    assert ended.stdout == ""
    assert (
        ended.stderr
        == "lepton_mpi.train: unknown option --epoch, did you mean --epochs? (see --help)\n"
    )


def test_a_number_out_of_its_range_is_named():
    """With what is expected of it."""
    ended = _run(["-m", "lepton_mpi", "evaluate", "a.h5", "--timeout", "0"])
    line = "lepton_mpi evaluate: --timeout: expected a number above 0, got '0'\n"
    assert (ended.returncode, ended.stderr) == (2, line)
    ended = _run(["-m", "lepton_mpi", "inspect", "digits", "--columns", "-1"])
    line = "lepton_mpi inspect: --columns: expected a whole number of at least 0, got '-1'\n"
    assert (ended.returncode, ended.stderr) == (2, line)
    ended = _run(["-m", "lepton_mpi", "inspect", "digits", "--columns", "0"])
    assert ended.returncode == 0 and "and 1 more; --columns 1" in ended.stdout


def test_only_the_first_rank_prints():
    """On any other rank help and usage errors are silent, with the same exit code."""
    all_words = [*HELP, *WRONG]

    def run(words: list[str]) -> subprocess.CompletedProcess:
        return _run(words, OMPI_COMM_WORLD_RANK="3", OMPI_COMM_WORLD_SIZE="4")

    # Several at a time: a rank that has nothing to say waits for the one that has.
    with ThreadPoolExecutor(4) as pool:
        for words, ended in zip(all_words, pool.map(run, all_words), strict=True):
            assert (ended.stdout, ended.stderr) == ("", ""), words
            assert ended.returncode == (0 if words in HELP else 2), words


def test_importing_the_package_loads_nothing():
    """``import lepton_mpi`` is free; its public names load what they need on first use."""
    code = "import sys, lepton_mpi; print('numpy' in sys.modules, 'mpi4py' in sys.modules, lepton_mpi.__version__)"
    assert _run(["-c", code]).stdout.split()[:2] == ["False", "False"]
    code = "import lepton_mpi; print(lepton_mpi.Config().global_batch); lepton_mpi.nothing"
    ended = _run(["-c", code])
    assert ended.stdout == "64\n"
    assert "module 'lepton_mpi' has no attribute 'nothing'" in ended.stderr


def test_output_that_cannot_be_written_is_one_line():
    """A disk that is full, or a pipe that nobody reads, is no traceback."""
    with Path("/dev/full").open("w") as full:
        job = subprocess.run(
            [sys.executable, "-m", "lepton_mpi", "inspect", "digits"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert job.returncode == 4
    assert (
        job.stderr
        == "lepton_mpi inspect: cannot write to standard output: No space left on device\n"
    )
