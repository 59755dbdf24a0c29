"""A mapped row that cannot be read ends the process with a line that names it; other faults go where they went before."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from lepton_mpi import report_word

_PROGRAM = """
import mmap, os, sys
import numpy as np
from lepton_mpi import report_word
from lepton_mpi.data.files.mapped_rows import name_rows

def mapped(name):
    with open(name, "w+b") as file:
        file.write(bytes(10 * 4096))
        file.flush()
        return mmap.mmap(file.fileno(), 10 * 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)

def named(name, **more):
    memory = mapped(name)
    rows = np.frombuffer(memory, np.uint8, offset=96, **more)
    name_rows(memory, rows, 1000, name + ": /train/x")
    return rows

before, rows, other, behind = named("before"), named("rows"), mapped("other"), named("behind", count=1000)
word = np.zeros(1, np.int64)
report_word.set_address(word.ctypes.data)
{action}
print("went on")
"""
_LINE = "{who}{name}: /train/x: row {row}: the file has become shorter, or cannot be read any more, while the row was in use\n"


def _ended(folder, action, **variables):
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(action=action)],
        cwd=folder, capture_output=True, text=True, env=os.environ | variables, timeout=100,
    )  # fmt: skip
    return ended.returncode, ended.stderr, ended.stdout


def test_a_row_that_is_gone(tmp_path):
    """Row 0 begins at byte 96, and the first page that is gone at 8192."""
    found = _ended(tmp_path, "os.truncate('rows', 8000); rows.sum()")
    assert found == (3, "lepton_mpi: " + _LINE.format(who="", name="rows", row=8), "")


def test_it_names_the_rank(tmp_path):
    variables = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2"}
    found = _ended(tmp_path, "os.truncate('rows', 0); rows[5000:].max()", **variables)
    assert found == (3, "lepton_mpi: " + _LINE.format(who="rank 2 of 4: ", name="rows", row=5), "")


@pytest.mark.parametrize("code", [3, 5])
def test_one_process_of_a_host_speaks(tmp_path, code):
    """The others see that in the word, leave it, and end with its code."""
    np.zeros(1, np.int64).tofile(tmp_path / "word")
    found = _ended(
        tmp_path,
        "word = np.memmap('word', np.int64, 'r+'); report_word.set_address(word.ctypes.data)\n"
        f"word[0] = report_word.reported_with({code}); os.truncate('rows', 0); rows.sum()",
    )
    assert found == (code, "", "")
    assert report_word.code_of(int(np.fromfile(tmp_path / "word", np.int64)[0])) == code


def test_the_first_process_says_its_code(tmp_path):
    np.zeros(1, np.int64).tofile(tmp_path / "word")
    code, said, _ = _ended(
        tmp_path,
        "word = np.memmap('word', np.int64, 'r+'); report_word.set_address(word.ctypes.data)\n"
        "os.truncate('rows', 0); rows.sum()",
    )
    assert code == 3 and "rows: /train/x: row" in said
    assert report_word.code_of(int(np.fromfile(tmp_path / "word", np.int64)[0])) == 3


@pytest.mark.parametrize(
    "action",
    [
        "os.truncate('other', 0); other[5000]",
        "os.truncate('behind', 0); os.truncate('other', 0); other[9000]",
        "os.kill(os.getpid(), 7)",
        "mine = mapped('mine'); named('mine'); os.truncate('mine', 0); mine[0]",
    ],
)
def test_other_faults_are_not_ours(tmp_path, action):
    code, said, _ = _ended(tmp_path, action)
    assert code == -signal.SIGBUS
    assert "lepton_mpi" not in said


def test_what_is_given_back_is_forgotten(tmp_path):
    """More mappings than the table has room for, one after the other."""
    action = (
        "for number in range(600): named(f'a{number % 3}')\n"
        "again = named('again'); os.truncate('again', 0); again.sum()"
    )
    code, said, _ = _ended(tmp_path, action)
    assert (code, said) == (3, "lepton_mpi: " + _LINE.format(who="", name="again", row=0))


# What ``World`` does at its begin and its end; a memfd in place of its file of stacks.
_WORLDS = """
from lepton_mpi.world.deaths import CrashStacks
def world():
    file = os.memfd_create("stacks")
    return CrashStacks([os.getpid()] * 2, [file] * 2, 0)
"""


@pytest.mark.parametrize(
    "action",
    [
        "world().close(); rows = named('rows'); world()",
        "first = world(); rows = named('rows'); first.close(); second = world()",
        "first = world(); rows = named('rows'); first.close()",
        "first = world(); first.close(); second = world(); rows = named('rows')",
    ],
)
def test_a_row_that_is_gone_after_another_world(tmp_path, action):
    """``faulthandler`` handles SIGBUS, too, and of a world that has ended it must not take ours with it."""
    program = f"{_WORLDS}{action}; os.truncate('rows', 8000); rows.sum()"
    found = _ended(tmp_path, program)
    assert found == (3, "lepton_mpi: " + _LINE.format(who="", name="rows", row=8), "")


def test_other_faults_end_between_two_handlers_that_know_each_other(tmp_path):
    """Ours, ``faulthandler``'s above it, ours again: each puts the one below back."""
    action = "first = world(); again = named('again'); os.truncate('other', 0); other[5000]"
    code, said, _ = _ended(tmp_path, _WORLDS + action)
    assert code == -signal.SIGBUS
    assert "lepton_mpi" not in said
