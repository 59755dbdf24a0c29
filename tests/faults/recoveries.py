"""What the tests of ``--elastic`` share: where they can run, and how long those that are left took to go on."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from statistics import median

import pytest

# The words before the number of ranks.
LAUNCH = "mpirun --with-ft ulfm --oversubscribe --bind-to none --allow-run-as-root -n"


def has_ulfm() -> bool:
    if not (mpirun := shutil.which("mpirun")):
        return False
    said = subprocess.run([mpirun, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"Open MPI\) (\d+)\.(\d+)\.(\d+)", said)
    return found is not None and tuple(map(int, found.groups())) >= (5, 0, 4)


needs_ulfm = pytest.mark.skipif(not has_ulfm(), reason="needs mpirun of Open MPI 5.0.4 or newer")


def seconds_in(lines: Iterable[str]) -> list[float]:
    """From each loss to the first step behind it, by the lines ``elastic`` that say so."""
    seconds = []
    for line in lines:
        if "died" in line:
            found = re.search(r"made ([\d.e+-]+) s later", line)
            assert found, line
            seconds.append(float(found[1]))
    return seconds


@contextmanager
def told_at_the_end() -> Iterator[list[float]]:
    """Seconds that the tests of a module add."""
    found: list[float] = []
    yield found
    if found:
        print(
            f"\n{len(found)} recoveries: median {median(found):.3f} s, longest {max(found):.3f} s"
        )
