"""Signals that come before the ranks can agree: none is lost, and none ends a program that is still loading."""

import signal
import subprocess
import sys

_BEGIN = """
import os, signal, sys
from lepton_mpi import early_signals
early_signals.remember()
"""


def _ended(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", _BEGIN + code], capture_output=True, text=True, timeout=60
    )


def test_they_are_passed_on_and_later_signals_are_handled_as_ever():
    ended = _ended("""
for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
    os.kill(os.getpid(), number)
from lepton_mpi.world.stopping import SIGNALS, caught_signals
read, write = os.pipe2(os.O_NONBLOCK)
with caught_signals(write):
    print([signal.Signals(number).name for number in os.read(read, 9)])
    os.kill(os.getpid(), signal.SIGUSR2)
    print([signal.Signals(number).name for number in os.read(read, 9)])
usual = [signal.getsignal(number) for number in SIGNALS]
print(usual == 3 * [signal.SIG_DFL] + [signal.default_int_handler])
""")
    assert ended.stdout == "['SIGUSR1', 'SIGTERM']\n['SIGUSR2']\nTrue\n", ended.stderr


def test_they_are_remembered_while_ranks_go_on_without_others():
    """From the error that ends the block, Ctrl-C among them, to the next block; behind that as ever."""
    ended = _ended("""
from lepton_mpi.world.stopping import SIGNALS, caught_signals
read, write = os.pipe2(os.O_NONBLOCK)
try:
    with caught_signals(write, goes_on=True):
        raise ValueError
except ValueError:
    os.kill(os.getpid(), signal.SIGTERM)
early_signals.remember(with_interrupts=True)
for number in SIGNALS:
    os.kill(os.getpid(), number)
with caught_signals(write, goes_on=True):
    print(sorted(os.read(read, 9)) == sorted(SIGNALS))
usual = [signal.getsignal(number) for number in SIGNALS]
print(usual == 3 * [signal.SIG_DFL] + [signal.default_int_handler])
""")
    assert ended.stdout == "True\nTrue\n", ended.stderr


def test_where_nobody_takes_them_over_they_do_what_they_always_do():
    """As on hosts that cannot connect."""
    ended = _ended("""
os.kill(os.getpid(), signal.SIGUSR2)
print("goes on", flush=True)
early_signals.give_up()
print("does not")
""")
    assert (ended.returncode, ended.stdout) == (-signal.SIGUSR2, "goes on\n")


def test_what_a_program_handles_itself_stays():
    ended = _ended("""
signal.signal(signal.SIGUSR1, lambda *_: print("mine"))
early_signals.remember()
early_signals.give_up()
os.kill(os.getpid(), signal.SIGUSR1)
""")
    assert (ended.returncode, ended.stdout) == (0, "mine\n")


def test_ctrl_c_ends_a_program_that_has_nothing_to_save():
    """By one line, without a traceback."""
    ended = _ended("os.kill(os.getpid(), signal.SIGINT); print('goes on')")
    assert ended.returncode == 130 and not ended.stdout
    assert ended.stderr == "lepton_mpi: interrupted before training began\n"
