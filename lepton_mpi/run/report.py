"""What the user sees: on screen by rank 0, and the same numbers in the metrics file.

Plain lines are the default, since a rank cannot know whether its output ends on a terminal: under
``mpirun`` ``isatty`` is true on no rank or on all of them, also when the output goes to a file.
"""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any, TextIO

from lepton_mpi import launcher
from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.wording import grouped, print_line, size_text

_TERMINAL = "LEPTON_TERMINAL"  # set by run_local.sh, which can see its own terminal


class Report:
    """Prints and writes on the rank that is made with ``speaks=True``; silent on all others.

    Parameters
    ----------
    speaks : bool
    progress : {"auto", "bar", "plain", "none"}
    metrics : str or None
        File for one JSON object a line. Raises OSError if it cannot be written.
    append : bool
        Whether lines may be added to those that the file has; without it, one that has any raises ConfigurationError.
    """

    def __init__(
        self, speaks: bool, progress: str, metrics: str | None, append: bool = False
    ) -> None:
        self._prints = speaks and progress != "none"
        self._bar_wanted = self._prints and (
            progress == "bar" or (progress == "auto" and _on_terminal())
        )
        self._file: TextIO | None = None
        if speaks and metrics:
            self._file = _open_metrics(Path(metrics), append)
        self._bar: Any = None

    def say(self, title: str, text: str) -> None:
        """One line of the head or of the end."""
        if self._prints:
            print_line(f"{title:<9} {text}")

    def record(self, event: str, **values: Any) -> None:
        """One line of the metrics file, on disk at once."""
        if self._file:
            try:
                self._file.write(json.dumps({"event": event, **values}) + "\n")
                self._file.flush()
            except OSError as error:
                name, self._file = self._file.name, None
                raise LauncherError(f"cannot write {name}: {error.strerror}") from None

    def epoch_begins(self, epoch: int, epochs: int, steps: int) -> None:
        """Show a bar for the steps of epoch ``epoch``, counted from 1, if there is a terminal."""
        if self._bar_wanted:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            columns = (
                TextColumn(f"epoch {epoch}/{epochs}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(force_terminal=True), transient=True)
            self._task = self._bar.add_task("", total=steps)
            self._bar.start()

    def step_done(self) -> None:
        """Advance the bar."""
        if self._bar:
            self._bar.advance(self._task)

    def epoch_ends(
        self, epoch: int, epochs: int, values: dict[str, float], **recorded: float
    ) -> None:
        """Print the epoch's line and write its record; ``values`` in the order to print, ``recorded`` for the file alone."""
        if self._bar:
            self._bar.stop()
            self._bar = None
        if self._prints:
            number = f"epoch {epoch:>{len(str(epochs))}}/{epochs}"
            print_line(
                "  ".join([number, *(_formatted(name, value) for name, value in values.items())])
            )
        self.record("epoch", epoch=epoch, **values, **recorded)

    def close(self) -> None:
        """End bar and file."""
        if self._bar:
            self._bar.stop()
        if self._file:
            self._file.close()


def _open_metrics(path: Path, append: bool) -> TextIO:
    """The file, whose lines are never lost; pipes and devices keep none."""
    file = path.open("a", encoding="utf-8")
    found = os.fstat(file.fileno())
    if found.st_size and stat.S_ISREG(found.st_mode) and not append:
        file.close()
        raise ConfigurationError(
            f"--metrics: expected a file that is new or empty, got {path} with {size_text(found.st_size)}; "
            "take another name, or add to it with --metrics-append"
        )
    return file


def _on_terminal() -> bool:
    if os.environ.get(_TERMINAL) == "1":
        return True
    return (
        launcher.launched_size() == 1
        and "OMPI_COMM_WORLD_SIZE" not in os.environ
        and sys.stdout is not None
        and sys.stdout.isatty()
    )


def _formatted(name: str, value: float) -> str:
    if name == "seconds":
        return f"{value:.2f} s" if value >= 1 else f"{value:.3f} s"
    if name == "samples_per_second":
        return f"{grouped(value)} samples/s"
    return f"{name} {value:.4f}"
