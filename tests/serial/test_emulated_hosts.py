"""What a command finds in an emulated host."""

import subprocess
import sys

import pytest

from benchmarks.emulated_hosts import EmulatedHosts, why_not

_KILLS_ITSELF = "import os, signal; os.kill(os.getpid(), signal.SIGKILL); print('lives')"


def test_a_command_can_be_killed_from_within():
    """As a launcher that does not end by itself is (``world/launchers.py``), and the host ends with it."""
    if reason := why_not():
        pytest.skip(reason)
    with EmulatedHosts([1, 1]) as hosts, pytest.raises(subprocess.CalledProcessError) as raised:
        hosts.run_in(0, [sys.executable, "-c", _KILLS_ITSELF], 20)
    assert not raised.value.output
