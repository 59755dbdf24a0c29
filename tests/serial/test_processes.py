"""What is read of a process is what it is, whatever it calls itself."""

import os
import subprocess
import sys
import time

import pytest

from lepton_mpi.processes import look_at

_NAMED = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode("latin-1"), 0, 0, 0)
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("name", ["plain", "a) Z 1 (b", ") ) )", "\xff\xfe"])
def test_a_name_may_look_like_the_fields_behind_it(name):
    """Brackets, spaces, and bytes that are no text."""
    clock = time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
    child = subprocess.Popen(
        [sys.executable, "-c", _NAMED, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    child.stdout.readline()
    found = look_at(child.pid)
    child.communicate("")
    assert (found.parent, found.has_ended) == (os.getpid(), False)
    assert abs(found.began - clock) < 10 * os.sysconf("SC_CLK_TCK")
    assert look_at(child.pid) is None


def test_a_process_that_nobody_has_asked_for_has_ended():
    """Its number is still there."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    while not look_at(child.pid).has_ended:
        time.sleep(0.01)
    assert look_at(child.pid).parent == os.getpid()
    child.wait()


def test_this_process_is_itself():
    """By its number, and without."""
    assert look_at("self") == look_at(os.getpid())
    assert look_at("self").state == "R"
