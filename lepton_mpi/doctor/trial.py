"""Another process that tries something, and may be stuck in it, or die of it."""

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

# For a killed process to end; one that waits for a file system does not, and is left behind.
_REAP_SECONDS = 1.0


class Ended(NamedTuple):
    """Exit code, standard output, and the last line of standard error; or what ended it, if there is none."""

    code: int
    out: str
    reason: str


def run(words: Sequence[str], limit_seconds: float) -> Ended:
    """Run a program to its end. Raises OSError if it cannot be started, TimeoutError if it has not ended in time."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        out, err = process.communicate(timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_REAP_SECONDS)
        raise TimeoutError from None
    lines = err.strip().splitlines() or [f"it ended with {process.returncode}"]
    return Ended(process.returncode, out, lines[-1])
