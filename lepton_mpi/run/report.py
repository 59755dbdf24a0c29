"""What the user sees: on screen by rank 0, and the same numbers in the metrics file."""

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.run.screen import Screen, find_terminal
from lepton_mpi.wording import clock_text, grouped, printable, size_text

if TYPE_CHECKING:
    from lepton_mpi.run.progress import SoFar

_BAR_CELLS, _BAR_CELLS_MIN = 30, 10


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
        self._screen: Screen | None = None
        if speaks and progress != "none":
            terminal = "" if progress == "plain" else find_terminal()
            self._screen = Screen(terminal or ("/proc/self/fd/1" if progress == "bar" else ""))
        self._file: TextIO | None = None
        if speaks and metrics:
            self._file = _open_metrics(Path(metrics), append)

    @property
    def progress_seconds(self) -> float:
        """How often ``epoch_goes_on`` is worth a call; 0 where it does nothing."""
        if self._screen is None:
            return 0.0
        return 0.1 if self._screen.is_terminal else 10.0

    def say(self, title: str, text: str) -> None:
        """One line of the head or of the end; names of files in it may have any characters."""
        if self._screen:
            self._screen.line(printable(f"{title:<9} {text}"))

    def record(self, event: str, **values: Any) -> None:
        """One line of the metrics file, on disk at once."""
        if self._file:
            try:
                self._file.write(json.dumps({"event": event, **values}) + "\n")
                self._file.flush()
            except OSError as error:
                name, self._file = self._file.name, None
                raise LauncherError(f"cannot write {name}: {error.strerror}") from None

    def epoch_goes_on(self, now: "SoFar") -> None:
        """Show how far an epoch has come: in place on a terminal, else as a line."""
        if self._screen and self._screen.is_terminal:
            columns = self._screen.columns
            self._screen.status(_status_fields(now, columns), least=3)
        elif self._screen:
            where = f"{now.step}/{now.steps} of epoch {now.epoch}/{now.epochs}"
            self.say("step", "  ".join([where, *_measured(now)]))

    def epoch_ends(
        self, epoch: int, epochs: int, values: dict[str, float], **recorded: float
    ) -> None:
        """Print the epoch's line and write its record; ``values`` in the order to print, ``recorded`` for the file alone."""
        if self._screen:
            fields = [_formatted(name, value) for name, value in values.items()]
            line = "  ".join([_epoch_text(epoch, epochs), *fields])
            if self._screen.is_terminal and len(line) >= self._screen.columns:
                line = "  ".join([_epoch_text(epoch, epochs), *_short_fields(values)])
            self._screen.line(line)
        self.record("epoch", epoch=epoch, **values, **recorded)

    def close(self) -> None:
        """End what is shown in place, and the file."""
        if self._screen:
            self._screen.clear()
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


def _epoch_text(epoch: int, epochs: int) -> str:
    return f"epoch {epoch:>{len(str(epochs))}}/{epochs}"


def _measured(now: "SoFar") -> list[str]:
    """Fields behind the steps, in the order of their importance."""
    left = [] if now.seconds_left is None else [f"{clock_text(now.seconds_left)} left"]
    figures = [_formatted(name, value) for name, value in now.figures.items()]
    before = [_formatted(name, value) for name, value in now.before.items()]
    speed = f"{grouped(now.samples_per_second)} samples/s"
    rest = [speed, f"waiting {now.waiting:.0%}"]
    return [*left, *figures[:1], *rest, *before[:1], *figures[1:], *before[1:]]


def _status_fields(now: "SoFar", columns: int) -> list[str]:
    """Of the line in place, with a bar where there is room for one beside all that was measured."""
    steps = f"{now.step:>{len(str(now.steps))}}/{now.steps}"
    fields = [_epoch_text(now.epoch, now.epochs), steps, f"{now.step / now.steps:>4.0%}"]
    fields += _measured(now)
    cells = min(_BAR_CELLS, columns - 1 - len("  ".join(fields)) - 2)
    if cells >= _BAR_CELLS_MIN:
        done = cells * now.step // now.steps
        fields.insert(1, "#" * done + "." * (cells - done))
    return fields


def _short_fields(values: dict[str, float]) -> list[str]:
    """Of an epoch's line, for a narrow terminal: figures of validation behind those of training, and no speed."""
    fields = []
    for name, value in values.items():
        if name == "samples_per_second" or name.removeprefix("val_") in values.keys() - {name}:
            continue
        field = _formatted(name, value)
        if f"val_{name}" in values:
            field += f" val {values[f'val_{name}']:.4f}"
        fields.append(field.replace(" ", "\xa0"))
    return fields


def _formatted(name: str, value: float) -> str:
    if name == "seconds":
        return f"{value:.2f} s" if value >= 1 else f"{value:.3f} s"
    if name == "samples_per_second":
        return f"{grouped(value)} samples/s"
    return f"{name} {value:.4f}"
