"""The commands as processes: what they load, what they print, how they end."""

import configparser
import dataclasses
import os
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lepton_mpi import __version__
from lepton_mpi.__main__ import COMMANDS, find
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.class_weights import ClassWeightsText

_ROOT = Path(__file__).parents[2]

HELP = [
    ["-m", "lepton_mpi", "--help"],
    ["-m", "lepton_mpi.train", "--help"],
    ["-m", "lepton_mpi", "train", "--help", "mlp"],
    *(["-m", "lepton_mpi", name, "--help"] for name in COMMANDS),
]
VERSION = [
    ["-m", "lepton_mpi", "--version"],
    ["-m", "lepton_mpi.train", "--version"],
    ["-m", "lepton_mpi", "inspect", "digits", "--version"],
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
    ["-m", "lepton_mpi", "doctor", "--timeout", "0"],
    ["-m", "lepton_mpi", "doctor", "--data", "/nowhere"],
    ["-m", "lepton_mpi", "inspect", "digits", "--columns", "-1"],
    ["-m", "lepton_mpi", "prepare", "one.h5"],
    ["-m", "lepton_mpi", "prepare", "a.csv", "b.h5", "--labell", "3"],
    ["-m", "lepton_mpi", "prepare", "a.csv", "b.h5", "--split", "1,1"],
    ["-m", "lepton_mpi", "inspect"],
    ["-m", "lepton_mpi", "inspect", "~nobody-such/x"],
    ["-m", "lepton_mpi", "train", "--help", "mpl"],
    ["-m", "lepton_mpi", "explain", "rnig"],
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


@pytest.mark.slow(but_every=4)
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


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize("words", WRONG, ids=_name)
def test_usage_errors_load_neither_numpy_nor_mpi(words):
    """A wrong command, option or value ends with 2 before anything heavy is imported, without a traceback."""
    ended = _run(words, "-X", "importtime")
    assert ended.returncode == 2
    own = [line for line in ended.stderr.splitlines() if not line.startswith("import time:")]
    assert len(own) == 1 or words == ["-m", "lepton_mpi"]
    assert own and "Traceback" not in ended.stderr
    assert not re.search(r"\| +(numpy|mpi4py)$", ended.stderr, re.MULTILINE)


def test_an_unknown_option_is_one_line():
    """Nothing but that line is printed."""
    ended = _run(["-m", "lepton_mpi.train", "--epoch", "3"])
    assert ended.stdout == ""
    assert (
        ended.stderr
        == "lepton_mpi train: unknown option --epoch, did you mean --epochs? (see --help)\n"
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


# -- what is declared --------------------------------------------------------------------------------

EVERY_OPTION = [
    pytest.param(option, id=f"{name} {option.flag}")
    for name in COMMANDS
    for option in find(name).options.values()
]


@pytest.mark.parametrize("option", EVERY_OPTION)
def test_every_option_has_a_help_text_a_default_and_a_check(option):
    """The default passes the check, and what is no value at all does not, in one line that names the option."""
    assert option.help and option.kind.word and option.expected
    if not option.is_position:
        assert option.default is not dataclasses.MISSING
    if option.default is not dataclasses.MISSING:
        assert option.read_value(option.default) == option.default
        assert option.shown_default()
    values = [object(), [object()]]
    values += [] if isinstance(option.kind, ClassWeightsText) else [{"a": 1}]
    for value in values:
        with pytest.raises(ConfigurationError) as raised:
            option.read_value(value)
        assert str(raised.value).startswith(f"{option.flag}: expected {option.expected}, got ")


@pytest.mark.parametrize("option", EVERY_OPTION)
def test_every_default_can_be_typed(option):
    """What ``--help`` shows as default gives it, where it is not none."""
    if option.is_position or option.default in (None, ()):
        return
    texts = (
        option.shown_default().split(" ")
        if option.takes_several_words
        else [option.shown_default()]
    )
    assert option.read_words(texts) == option.default


def test_a_program_by_console_command():
    """``lepton_mpi`` of setup.cfg is the same as ``python -m lepton_mpi``."""
    setup = configparser.ConfigParser()
    setup.read(_ROOT / "setup.cfg")
    name, _, where = setup["options.entry_points"]["console_scripts"].strip().partition(" = ")
    module, _, function = where.partition(":")
    code = f"import sys; from {module} import {function}; sys.exit({function}())"
    assert name == "lepton_mpi"
    ended = _run(["-c", code, "trian"])
    line = "lepton_mpi: unknown command 'trian', did you mean train? (see --help)\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", line)


@pytest.mark.parametrize("words", VERSION, ids=_name)
def test_versions(words):
    """Of everything that is used, a line each."""
    ended = _run(words)
    lines = dict(re.split(r"  +|(?<=library) ", line) for line in ended.stdout.splitlines())
    assert ended.returncode == 0 and ended.stderr == ""
    assert list(lines) == [
        "lepton_mpi",
        "Python",
        "NumPy",
        "Numba",
        "h5py",
        "mpi4py",
        "MPI library",
    ]
    assert lines["lepton_mpi"] == __version__
    assert lines["NumPy"] == np.__version__ and lines["Python"] == platform.python_version()


def test_values_that_begin_with_a_minus():
    """``prepare``'s label from the end, with and without ``=``, among inputs and output."""
    for words in (
        ["a.csv", "out.h5", "--label", "-2,-1", "--missing-words", "-999,-1"],
        ["--label=-2,-1", "--missing-words=-999,-1", "a.csv", "out.h5"],
        ["a.csv", "--label", "-2,-1", "--missing-words", "-999,-1", "--", "out.h5"],
    ):
        options = find("prepare").read(words)
        assert (options.label, options.missing_words) == (("-2", "-1"), ("-999", "-1"))
        assert (options.inputs, options.output) == (("a.csv",), "out.h5")
    assert find("prepare").read(["a.csv", "out.h5", "--label", "-1"]).label == ("-1",)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--label", "--force", "a", "b.h5"], "--label: expected a name or number, or several, got none"),
        (["a.csv"], "expected INPUT … OUTPUT, got only 'a.csv'"),
        ([], "expected INPUT … OUTPUT, got none"),
        (["a", "b.h5", "-force"], "unknown option -force, did you mean --force? (see --help)"),
        (["a", "b.h5", "--missing", "mode"], "--missing: expected error, drop, mean, median or constant=VALUE, got 'mode'"),
        (["a", "b.h5", "--outliers", "zscore=-1"], "--outliers: expected none, quantile=Q with Q between 0 and 0.5, or zscore=Z with Z above 0, got 'zscore=-1'"),
        (["a", "b.h5", "--header", "0"], "--header: expected auto, none or the number of a line from 1, got '0'"),
        (["a", "b.h5", "--delimiter", ""], "--delimiter: expected auto, tab, space or one character, got ''"),
        (["a", "b.h5", "--seed", "-1"], "--seed: expected a whole number of at least 0, got '-1'"),
        (["a", "b.h5", "--block", "63"], "--block: expected at least 64 bytes, such as 1M, got '63'"),
        (["a", "b.h5", "--image-size", "32"], "--image-size: expected HEIGHTxWIDTH such as 32x32, got '32'"),
        (["a", "b.h5", "--split", "0.5,0.6"], "--split: expected fractions for train,validation,test that add up to 1, such as 0.8,0.1,0.1, got '0.5,0.6'"),
        (["a", "b.h5", "--task", "regresion"], "--task: expected one of auto, classification, regression, got 'regresion', did you mean regression?"),
        (["a", "~nobody-such/b.h5"], "OUTPUT: ~nobody-such/b.h5: no home folder of ~nobody-such; a file of that name is ./~nobody-such"),
        (["test=~nobody-such/a", "b.h5"], "INPUT …: ~nobody-such/a: no home folder of ~nobody-such; a file of that name is ./~nobody-such"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_words_of_prepare(words, line):
    """Each is one line: what was expected, and what came."""
    with pytest.raises(ConfigurationError) as raised:
        find("prepare").read(words)
    assert str(raised.value) == line


def test_the_home_folder_in_every_command(monkeypatch, tmp_path):
    """Inputs with and without their split, outputs, checkpoints, pictures."""
    monkeypatch.setenv("HOME", str(tmp_path))
    options = find("prepare").read(["~/a.csv", "test=~/b.csv", "~/c.h5"])
    assert options.inputs == (f"{tmp_path}/a.csv", f"test={tmp_path}/b.csv")
    assert options.output == f"{tmp_path}/c.h5"
    options = find("evaluate").read(["~/runs", "--data=~/x.h5", "--model", "~/my.py:Net"])
    assert options.checkpoint == f"{tmp_path}/runs"
    assert (options.data, options.model) == (f"{tmp_path}/x.h5", f"{tmp_path}/my.py:Net")
    assert find("inspect").read(["~/x.h5"]).file == f"{tmp_path}/x.h5"
    assert find("explain").read(["ring", "--svg", "~/x.svg"]).svg == f"{tmp_path}/x.svg"


# -- ranks, and output -------------------------------------------------------------------------------


@pytest.mark.slow
def test_only_the_first_rank_prints():
    """On any other rank help and usage errors are silent, with the same exit code."""
    all_words = [*HELP, *WRONG, *VERSION]

    def run(words: list[str]) -> subprocess.CompletedProcess:
        return _run(words, OMPI_COMM_WORLD_RANK="3", OMPI_COMM_WORLD_SIZE="4")

    # Several at a time: a rank that has nothing to say waits for the one that has.
    with ThreadPoolExecutor(4) as pool:
        for words, ended in zip(all_words, pool.map(run, all_words), strict=True):
            assert (ended.stdout, ended.stderr) == ("", ""), words
            assert ended.returncode == (2 if words in WRONG else 0), words


def test_importing_the_package_loads_nothing():
    """``import lepton_mpi`` is free; its public names load what they need on first use."""
    code = "import sys, lepton_mpi; print('numpy' in sys.modules, 'mpi4py' in sys.modules, lepton_mpi.__version__)"
    assert _run(["-c", code]).stdout.split()[:2] == ["False", "False"]
    code = "import lepton_mpi; print(lepton_mpi.Config().micro_batch); lepton_mpi.nothing"
    ended = _run(["-c", code])
    assert ended.stdout == "0\n"
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
