"""Metrics files as runs: the lines ``start``, ``epoch`` and ``end``, of one run or of several one behind the other."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lepton_mpi.errors import DataError
from lepton_mpi.wording import one_line

_EVENT = '{"event"'
_NO_FIGURES = {"epoch", "event", "seconds", "samples_per_second", "evaluation_seconds"}
_NO_FIGURES |= {"learning_rate"}


@dataclass
class RunRecord:
    """One run, those that went on with it included.

    Attributes
    ----------
    name : str
        Of the file, with a number where the file has several runs.
    path : Path
    start, end : dict
        The last lines of their kind; empty where there are none.
    epochs : list of dict
        By epoch, each once: the one that was trained last.
    parts : int
        How many lines ``start`` it has.
    notes : list of str
        What the reader should know.
    """

    name: str
    path: Path
    start: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    parts: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def configuration(self) -> dict[str, Any]:
        """Options by name."""
        return mapping(self.start.get("configuration"))

    def curve(self, name: str) -> list[tuple[float, float]]:
        """(epoch, value) of the epochs that have the figure."""
        found = ((number(e.get("epoch")), number(e.get(name))) for e in self.epochs)
        return [(epoch, value) for epoch, value in found if epoch is not None and value is not None]

    def figure_names(self) -> list[str]:
        """Figures of epochs without ``val_``, in the order of the file, loss first."""
        keys = [key for epoch in self.epochs for key in epoch if key not in _NO_FIGURES]
        return list(dict.fromkeys(key.removeprefix("val_") for key in ["loss", *keys]))

    def best(self) -> tuple[int, str] | None:
        """The best epoch and the figure that says so; without ``--keep-best`` by the validation rows' accuracy, r2 or loss."""
        epoch = number(self.end.get("best_epoch"))
        if epoch is not None:
            return int(epoch), f"val_{one_line(self.end.get('best_score', 'score'))}"
        for name, choose in (("val_accuracy", max), ("val_r2", max), ("val_loss", min)):
            if points := self.curve(name):
                return int(choose(points, key=lambda point: point[1])[0]), name
        return None


def number(value: object) -> float | None:
    """A finite number, or None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        found = float(value) if is_number else math.nan  # type: ignore[arg-type]
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def mapping(value: object) -> dict[str, Any]:
    """A dict, or an empty one."""
    return value if isinstance(value, dict) else {}


def listed(value: object) -> list[Any]:
    """A list, or an empty one."""
    return value if isinstance(value, list) else []


def read(path: Path) -> list[RunRecord]:
    """All runs of a file. Raises DataError for a file without any."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    runs: list[RunRecord] = []
    notes: list[str] = []
    for record in _records(text, notes):
        event = record["event"]
        if event == "start" and (not runs or not _goes_on(record)):
            runs.append(RunRecord(path.name, path))
        if not runs:
            runs.append(RunRecord(path.name, path))
            notes.append("the file does not begin with a line start: what ran is not known")
        _add(runs[-1], event, record)
    if not any(run.start or run.epochs or run.end for run in runs):
        raise DataError(
            f"{path}: expected a file that train --metrics has written, a JSON object a line, got none with an event start, epoch or end"
        )
    for place, run in enumerate(runs, 1):
        run.name += f" #{place}" if len(runs) > 1 else ""
        run.notes += notes + _own_notes(run)
    return runs


def _records(text: str, notes: list[str]) -> Iterator[Mapping[str, Any]]:
    """Objects with an event; of a line that was cut, and went on with another run's, the second part."""
    lines = text.split("\n")
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        record = _parsed(line)
        if record is None:
            notes.append(
                f"line {place} is cut or no JSON: the run was killed while it wrote, or still writes"
            )
            record = _parsed(line[max(0, line.rfind(_EVENT)) :])
        if record is not None and isinstance(record.get("event"), str):
            yield record


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _goes_on(start: Mapping[str, Any]) -> bool:
    """Whether a run was to go on with the one before it in the file."""
    return mapping(start.get("configuration")).get("resume") is not None


def _add(run: RunRecord, event: str, record: Mapping[str, Any]) -> None:
    if event == "start":
        run.start, run.end, run.parts = dict(record), {}, run.parts + 1
    elif event == "end":
        run.end = dict(record)
    elif event == "epoch" and (epoch := number(record.get("epoch"))) is not None:
        # Epochs behind the checkpoint that was resumed are trained again.
        run.epochs = [e for e in run.epochs if (number(e["epoch"]) or 0) < epoch]
        run.epochs.append(dict(record))


def _own_notes(run: RunRecord) -> list[str]:
    notes = []
    if run.parts > 1:
        notes.append(
            f"{run.parts} parts, one resumed from the other, are joined; times and memory are of the last"
        )
    if not run.end:
        notes.append("no line end: the run was stopped, has failed, or is not over yet")
    elif "ranks" not in run.end:
        notes.append("written by an earlier version: without times and memory of single ranks")
    return notes
