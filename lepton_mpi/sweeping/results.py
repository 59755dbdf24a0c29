"""What came of the runs: one table, sorted by the validation score, on screen and as CSV and JSON. Imports no NumPy."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_mpi.durable import replacing
from lepton_mpi.reporting.metrics import RunRecord
from lepton_mpi.sweeping.runs import Score, SweepRun
from lepton_mpi.sweeping.search import value_text
from lepton_mpi.wording import one_line

_ERROR_LETTERS = 60


@dataclass(frozen=True)
class Result:
    """A run's line.

    Attributes
    ----------
    score : Score or None
        None unless it is finished.
    mean : float or None
        Of the scores of its setting, over the seeds that are finished.
    """

    run: SweepRun
    state: str
    score: Score | None
    record: RunRecord | None
    mean: float | None = None

    @property
    def seconds(self) -> float | None:
        """Of all its parts."""
        outcome = self.run.outcome()
        return outcome.seconds if outcome else None

    @property
    def error(self) -> str:
        """Why it failed."""
        outcome = self.run.outcome()
        return outcome.error if outcome and self.state == "failed" else ""


def results(runs: Sequence[SweepRun]) -> list[Result]:
    """Of all runs: finished ones from the best to the worst, then the others in the plan's order."""
    found = [_result(run) for run in runs]
    of_setting: dict[int, list[float]] = {}
    for each in found:
        if each.score:
            of_setting.setdefault(each.run.planned.setting, []).append(each.score.value)
    means = {setting: math.fsum(values) / len(values) for setting, values in of_setting.items()}
    found = [
        Result(each.run, each.state, each.score, each.record, means[each.run.planned.setting])
        if each.score
        else each
        for each in found
    ]
    return sorted(found, key=_order)


def _result(run: SweepRun) -> Result:
    state = run.state
    record = run.record()
    return Result(run, state, Score.of(record) if state == "finished" else None, record)


def _order(result: Result) -> tuple[float, ...]:
    """Of several seeds the settings by their mean, then the runs by their own score."""
    if result.score is None or result.mean is None:
        return (1.0, 0.0, 0.0, 0.0)
    sign = 1.0 if result.score.is_lower else -1.0
    return (0.0, sign * result.mean, float(result.run.planned.setting), sign * result.score.value)


def table(found: Sequence[Result]) -> list[str]:
    """Lines for a terminal."""
    if not found:
        return []
    name = next((each.score.name for each in found if each.score), "score")
    has_seeds = len({each.run.planned.setting for each in found}) < len(found)
    keys = list(found[0].run.planned.chosen)
    head = [f"val {name}", *(["mean"] if has_seeds else []), "epoch", *keys, "time", "run", ""]
    rows = [head]
    for each in found:
        score = [f"{each.score.value:.4f}"] if each.score else ["-"]
        mean = ([f"{each.mean:.4f}"] if each.mean is not None else ["-"]) if has_seeds else []
        epoch = [str(each.score.epoch)] if each.score else ["-"]
        values = [value_text(each.run.planned.chosen[key]) for key in keys]
        seconds = "-" if each.seconds is None else f"{each.seconds:.1f} s"
        note = "" if each.state == "finished" else each.state
        if each.error:
            note += f": {_short(each.error)}"
        rows.append([*score, *mean, *epoch, *values, seconds, each.run.planned.name, note])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _short(text: str) -> str:
    text = text.removeprefix("lepton_mpi: ")
    return text if len(text) <= _ERROR_LETTERS else f"{text[: _ERROR_LETTERS - 1]}…"


def write(found: Sequence[Result], folder: Path) -> None:
    """``results.csv`` and ``results.json``, each in full or as it was. Raises OSError."""
    keys = list(dict.fromkeys(key for each in found for key in each.run.planned.chosen))
    lines = [_as_dict(each) for each in found]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    plain = [key for key in lines[0] if key not in ("options", "test")] if lines else []
    writer.writerow([*plain, *keys])
    for each, line in zip(found, lines, strict=True):
        chosen = each.run.planned.chosen
        values = [value_text(chosen[key]) if key in chosen else "" for key in keys]
        writer.writerow(["" if line[key] is None else line[key] for key in plain] + values)
    _replace(folder / "results.csv", text.getvalue())
    _replace(folder / "results.json", json.dumps(lines, indent=1) + "\n")


def _as_dict(each: Result) -> dict[str, Any]:
    end = each.record.end if each.record and each.state == "finished" else {}
    return {
        "run": each.run.planned.name,
        "state": each.state,
        "score": each.score.name if each.score else None,
        "value": each.score.value if each.score else None,
        "mean": each.mean,
        "epoch": each.score.epoch if each.score else None,
        "seconds": each.seconds,
        "error": one_line(each.error),
        "checkpoint": str(each.run.checkpoint) if each.run.checkpoint.is_dir() else None,
        "options": each.run.planned.options,
        "test": {key: value for key, value in end.items() if key.startswith("test_")},
    }


def _replace(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


def remove_others(found: Sequence[Result], keep: int) -> None:
    """Remove the checkpoints of finished runs that are not among the best ``keep``. Raises OSError."""
    finished = [each for each in found if each.score]
    for each in finished[keep:]:
        each.run.remove_checkpoints()
