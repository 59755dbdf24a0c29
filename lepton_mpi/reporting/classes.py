"""The confusion matrix of the test rows, and figures of each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lepton_mpi.markup.elements import Markup, element, joined, paragraph, section, table, wide
from lepton_mpi.reporting import charts
from lepton_mpi.reporting.metrics import RunRecord, listed, mapping, number
from lepton_mpi.tasks.classes import scores

# With counts in cells; a larger one is drawn, and its largest errors are listed.
_CELLS_MAX, _CONFUSED = 30, 20
_NAME_LETTERS, _UPRIGHT_LETTERS = 18, 3
_RIGHT, _WRONG = "59,139,214", "224,112,44"


def classes(runs: Sequence[RunRecord]) -> Markup:
    """Of each run that has classes."""
    return section("Classes, test rows", *(_of_run(run, len(runs) > 1) for run in runs))


def _of_run(run: RunRecord, is_named: bool) -> Markup:
    per_class = [mapping(record) for record in listed(run.end.get("test_classes"))]
    names = [str(record.get("name", "")) for record in per_class]
    matrix = _matrix(run.end.get("test_confusion"), len(names))
    if not names:
        return Markup()
    parts: list[Markup] = [element("h3", run.name)] if is_named else []
    if matrix is not None:
        parts.append(_heat_map(matrix, names))
    elif len(names) <= 100:
        parts.append(paragraph("No confusion matrix: the run is of an earlier version."))
    rows = []
    for place, record in enumerate(per_class):
        figures = [number(record.get(name)) for name in ("precision", "recall", "f1")]
        count = f"{matrix[place].sum()}" if matrix is not None else "–"
        rows.append([names[place], count, *("–" if f is None else f"{f:.4f}" for f in figures)])
    parts.append(table(["class", "rows", "precision", "recall", "F1"], rows))
    return joined(parts)


def _matrix(value: object, count: int) -> np.ndarray | None:
    """int64 (classes, classes), if that is what there is and it agrees with the names."""
    lines = [[number(cell) for cell in listed(line)] for line in listed(value)]
    if not count or len(lines) != count or any(len(line) != count for line in lines):
        return None
    if any(cell is None or not 0 <= cell < 2**53 for line in lines for cell in line):
        return None
    return np.array(lines, np.float64).astype(np.int64)


def _heat_map(matrix: np.ndarray, names: Sequence[str]) -> Markup:
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    found = scores(matrix)
    about = paragraph(
        f"Confusion matrix: rows are true classes, columns predicted ones; {int(np.trace(matrix))} of {int(matrix.sum())} right, "
        f"accuracy {found.accuracy:.4f}. Colours are shares of a true class"
        + (": blue is right, orange wrong." if len(names) <= _CELLS_MAX else ".")
    )
    if len(names) > _CELLS_MAX:
        return joined(
            [about, charts.heat_map("shares of true classes", shares), _confused(matrix, names)]
        )
    is_upright = all(len(name) <= _UPRIGHT_LETTERS for name in names)
    head = element("tr", element("th", ""), *(_column(name, is_upright) for name in names))
    body = []
    for true, name in enumerate(names):
        cells = [_cell(matrix[true, k], shares[true, k], k == true) for k in range(len(names))]
        body.append(element("tr", element("th", _short(name), title=name), *cells))
    whole = element("table", element("thead", head), element("tbody", *body), class_="confusion")
    return joined([about, wide(whole)])


def _column(name: str, is_upright: bool) -> Markup:
    return element("th", name if is_upright else element("span", _short(name)), title=name)


def _cell(count: int, share: float, is_right: bool) -> Markup:
    if not count:
        return element("td", "·", class_="none")
    # The colour of a rare error must be seen, too.
    strength = 0.12 + 0.78 * share
    colour = f"background:rgba({_RIGHT if is_right else _WRONG},{strength:.2f})"
    return element("td", str(count), style=colour + (";color:#fff" if strength > 0.6 else ""))


def _confused(matrix: np.ndarray, names: Sequence[str]) -> Markup:
    """The pairs of classes that are most often taken for each other."""
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:_CONFUSED]
    pairs = [divmod(int(place), len(names)) for place in order]
    rows = [[names[t], names[p], str(errors[t, p])] for t, p in pairs if errors[t, p]]
    if not rows:
        return Markup()
    return joined(
        [element("h3", "Most often confused"), table(["true", "predicted", "rows"], rows)]
    )


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LETTERS else f"{name[: _NAME_LETTERS - 1]}…"
