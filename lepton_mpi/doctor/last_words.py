"""What is printed if this process is stuck with the interpreter lock, as ``MPI_Init`` may be: then no thread of it can report.

Another process has the text, and prints it when its time has come. ``faulthandler``, which needs no lock, ends this one.
"""

import subprocess
import sys
from types import TracebackType
from typing import Self

# Waits for the end of its input, which comes when this process goes on or dies.
_PROGRAM = (
    "import os, select, sys\n"
    "if not select.select([0], [], [], float(sys.argv[1]))[0]:\n"
    "    os.write(1, (sys.argv[2] + '\\n').encode())\n"
)


class LastWords:
    """A block after ``seconds`` of which ``text`` is printed, if it has not ended."""

    def __init__(self, text: str, seconds: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, str(seconds), text],
            stdin=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._process.communicate()
