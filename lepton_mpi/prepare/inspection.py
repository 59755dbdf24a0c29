"""``python -m lepton_mpi inspect FILE.h5``: what is in a data file, made by ``prepare`` or not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lepton_mpi.data.files import hdf5
from lepton_mpi.data.files.layouts import OpenFile
from lepton_mpi.errors import DataError
from lepton_mpi.prepare import summary
from lepton_mpi.wording import grouped, one_line, printable

_BINS = 32
_BARS = " ▁▂▃▄▅▆▇█"
_BLOCK_BYTES = 8 << 20
_REPORT_BYTES_MAX = 1 << 28


def text(path: Path, columns_max: int) -> str:
    """The table that ``prepare`` printed, or the same as far as it can be seen, and a histogram of each unit.

    Raises DataError.
    """
    path = hdf5.locate(str(path))
    hdf5.probe_file(path)
    with hdf5.open_file(path) as file:
        with h5py.File(path, "r", locking=False) as raw:
            facts, names = _facts(raw, path), _names(raw)
        lines = [summary.text(facts)] if facts else _plain_lines(file)
        for name, data_set in next(iter(file.sources.values())).inputs.items():
            if file.inputs[name].kind == "numbers":
                lines += _histograms(name, data_set, columns_max, names)
    return "\n".join(map(printable, "\n".join(lines).split("\n")))


def _facts(file: h5py.File, path: Path) -> dict[str, Any] | None:
    """The report in a file of ``prepare``; None in others."""
    report = file.get("about/report")
    if not isinstance(report, h5py.Dataset):
        return None
    if report.dtype != np.uint8 or report.ndim != 1 or report.size > _REPORT_BYTES_MAX:
        raise DataError(
            f"{path}: about/report: expected bytes of JSON, got {report.dtype} {report.shape}"
        )
    try:
        facts = json.loads(report[()].tobytes())
        summary.text(facts)
        return facts
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise DataError(
            f"{path}: about/report: expected the JSON of a report: {one_line(error)}"
        ) from None


def _names(file: h5py.File) -> list[str]:
    columns = file.get("about/columns")
    if not isinstance(columns, h5py.Dataset):
        return []
    return [bytes(name).decode("utf-8", "replace") for name in columns[()]]


def _plain_lines(file: OpenFile) -> list[str]:
    train = next(iter(file.sources.values()))
    counts = ", ".join(f"{grouped(s.row_count)} {name}" for name, s in file.sources.items())
    lines = [
        summary.line("source", f"{file.path.name}, not made by prepare"),
        *(
            summary.line("format" * (number == 0), text)
            for number, text in enumerate(_input_texts(file, train.inputs))
        ),
        summary.line("splits", counts),
    ]
    if file.class_names:
        lines.append(
            summary.line("classes", f"{len(file.class_names)}: {', '.join(file.class_names[:40])}")
        )
    for name, (shift, scale) in file.normalisation.items():
        given = "as in the file" if np.unique(shift).size + np.unique(scale).size > 2 else (
            f"({name} - {shift[0]:g}) * {scale[0]:g}"
        )  # fmt: skip
        lines.append(summary.line("normalise", given))
    return lines


def _input_texts(file: OpenFile, stored: dict[str, h5py.Dataset]) -> Iterator[str]:
    """``rows of shape 8x8, stored as uint8``, of every input, with its name and kind where it is not x."""
    for name, spec in file.inputs.items():
        shape = "x".join(map(str, spec.shape)) or "1"
        kind = "" if name == "x" else f"{name}, {spec.kind}: "
        what = f"{kind}rows of shape {shape}"
        if file.y_kind == "tokens":
            what = f"text in one piece, {spec.values} different tokens"
        yield f"{what}, stored as {stored[name].dtype}"


def _unit_count(row_shape: tuple[int, ...]) -> int:
    """Histograms: one a feature of a flat row, one a channel of an image."""
    if len(row_shape) <= 1:
        return int(np.prod(row_shape))
    return row_shape[-1] if len(row_shape) == 3 else 1


def _histograms(name: str, x: h5py.Dataset, columns_max: int, names: list[str]) -> list[str]:
    """A line for each of the first units of an input: range, and how often numbers fall into each 32nd of it."""
    units = _unit_count(x.shape[1:])
    shown = min(units, columns_max)
    low, high = np.full(shown, np.inf), np.full(shown, -np.inf)
    for values in _blocks(x, units, shown):
        low = np.minimum(low, values.min(axis=0))
        high = np.maximum(high, values.max(axis=0))
    counts = np.zeros((shown, _BINS), np.int64)
    width = np.where(high > low, high - low, 1.0)
    for values in _blocks(x, units, shown):
        places = np.minimum(((values - low) / width * _BINS).astype(np.int64), _BINS - 1)
        for unit in range(shown):
            counts[unit] += np.bincount(places[:, unit], minlength=_BINS)
    of = "" if name == "x" else f"{name}, "
    lines = [summary.line("histograms", f"{of}of the training rows as stored")]
    kind = "feature" if len(x.shape) <= 2 else "channel"
    for unit in range(shown):
        title = names[unit] if len(names) == units else f"{kind} {unit}"
        lines.append(
            summary.line(
                "", f"{title[:20]:<20} {low[unit]:>11.5g} {bars(counts[unit])} {high[unit]:<.5g}"
            )
        )
    if shown < units:
        lines.append(summary.line("", f"and {units - shown} more; --columns {units} shows all"))
    return lines


def _blocks(x: h5py.Dataset, units: int, shown: int) -> Iterator[np.ndarray]:
    """Training rows as float64 (rows, shown units). Raises DataError for what is not finite."""
    row_bytes = int(np.prod(x.shape[1:], dtype=np.int64)) * 8
    rows = max(1, _BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, x.shape[0], rows):
        values = x[start : start + rows].reshape(-1, units)[:, :shown].astype(np.float64)
        if not np.isfinite(values).all():
            raise DataError(
                f"{x.file.filename}: {x.name}: rows {start} up: expected finite numbers"
            )
        yield values


def bars(counts: np.ndarray) -> str:
    """A character a number, the highest full; a number above 0 is never blank.

    >>> bars(np.array([0, 1, 100, 50]))
    ' ▁█▄'
    """
    most = max(1, int(counts.max(initial=0)))
    heights = np.ceil(counts / most * (len(_BARS) - 1)).astype(int)
    return "".join(_BARS[height] for height in heights)
