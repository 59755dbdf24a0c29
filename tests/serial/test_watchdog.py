"""The watchdog notices the death of a neighbour, on new kernels and on old ones."""

import os
import queue
import subprocess
import sys

import numpy as np
import pytest

from lepton_mpi.watchdog import PHASES, PhaseClock, Watchdog


def _fail(*_):
    raise OSError("no such call")


@pytest.mark.parametrize("kernel", ["new", "old"])
@pytest.mark.parametrize("phase", ["compute", "over"])
def test_a_death_before_the_end_is_noticed(monkeypatch, kernel, phase):
    """With process descriptors, and without them, as before Linux 5.3; a rank in phase over may go."""
    if kernel == "old":
        monkeypatch.setattr(os, "pidfd_open", _fail, raising=False)
    rows = np.zeros((2, 3))
    clock = PhaseClock(rows, 0)
    clock.enter("communication", 1)
    rows[1] = 1, PHASES.index(phase), 0
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as neighbour:
        deaths = queue.SimpleQueue()
        watchdog = Watchdog(clock, 2.0, [os.getpid(), neighbour.pid], lambda: None, deaths.put)
        try:
            neighbour.kill()  # not waited for: a zombie has ended too
            if phase == "compute":
                assert deaths.get(timeout=20) == 1
            else:
                with pytest.raises(queue.Empty):
                    deaths.get(timeout=1.5)
        finally:
            watchdog.stop()
