"""Single test rows: ROC, precision and recall of classes, residuals of targets, the rows of the largest losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lepton_mpi.markup.elements import Markup, details, element, joined, paragraph, row_of, table
from lepton_mpi.reporting import charts
from lepton_mpi.reporting.charts import COLOURS, Line
from lepton_mpi.reporting.curves import Ranking, ranking
from lepton_mpi.reporting.tested import Tested, WorstRow

# Lines of a chart, points of a line, targets that are drawn, and classes that are listed.
_LINES_MAX, _POINTS, _TARGETS_MAX, _LISTED_MAX = 8, 200, 4, 100


def rows_of(tested: Tested) -> Markup:
    """All of it, of one run."""
    seen = len(tested.losses)
    some = "All" if seen == tested.row_count else f"{seen}, evenly spread,"
    about = paragraph(f"{some} of {tested.row_count} test rows, by {tested.path.name}.")
    charts_of = _of_classes if tested.class_names else _of_targets
    return joined([about, charts_of(tested), _worst(tested)])


def _of_classes(tested: Tested) -> Markup:
    assert tested.probabilities is not None
    names = list(enumerate(tested.class_names))
    # Of two classes the second is the one that is found or missed.
    chosen = names[1:] if len(names) == 2 else names
    found = [
        (name, ranked)
        for number, name in chosen
        if (ranked := ranking(tested.probabilities[:, number], tested.y == number))
    ]
    if not found:
        return paragraph("No ROC: the rows are of one class.")
    # The worst are what a reader looks for.
    drawn = sorted(found, key=lambda pair: pair[1].auc)[:_LINES_MAX]
    roc = [Line(_thinned(r.false_positive, r.recall), COLOURS[i]) for i, (_, r) in enumerate(drawn)]
    precise = [Line(_thinned(r.recall, r.precision), COLOURS[i]) for i, (_, r) in enumerate(drawn)]
    legend = [
        part
        for i, (name, _) in enumerate(drawn)
        for part in (element("span", class_="swatch", style=f"background:{COLOURS[i]}"), f"{name} ")
    ]
    some = f" (the {_LINES_MAX} of the least area)" if len(found) > _LINES_MAX else ""
    diagonal = Line([(0.0, 0.0), (1.0, 1.0)], "#7f8c8d", dashed=True)
    return joined(
        [
            element("p", f"One class against the rest{some}: ", *legend, class_="legend"),
            row_of(
                charts.lines(
                    "ROC: recall over false positive rate",
                    "false positive rate",
                    [*roc, diagonal],
                    unit=True,
                ),
                charts.lines("precision over recall", "recall", precise, unit=True),
            ),
            _areas(found),
        ]
    )


def _areas(found: Sequence[tuple[str, Ranking]]) -> Markup:
    rows = [[n, f"{r.auc:.4f}", f"{r.average_precision:.4f}"] for n, r in found[:_LISTED_MAX]]
    whole = table(["class", "area under ROC", "average precision"], rows)
    return whole if len(rows) <= _LINES_MAX else details("Areas of every class", whole)


def _thinned(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """Some of many points, the ends among them."""
    if len(x) > _POINTS:
        chosen = np.unique(np.linspace(0, len(x) - 1, _POINTS).astype(int))
        x, y = x[chosen], y[chosen]
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _of_targets(tested: Tested) -> Markup:
    drawn: list[Markup] = []
    for number, name in list(enumerate(tested.target_names))[:_TARGETS_MAX]:
        true, predicted = tested.y[:, number], tested.predicted[:, number]
        is_finite = np.isfinite(true) & np.isfinite(predicted)
        if not is_finite.any():
            continue
        true, predicted = true[is_finite], predicted[is_finite]
        points = np.stack([true, predicted], axis=1)
        drawn.append(charts.scatter(f"{name}: predicted over true", "true", "predicted", points))
        residuals = predicted - true
        drawn.append(charts.histogram(f"{name}: residuals", "predicted − true", residuals))
    return row_of(*drawn) if drawn else paragraph("No finite predictions.")


def _worst(tested: Tested) -> Markup:
    """Pictures where rows are images, else a table."""
    if not tested.worst:
        return Markup()
    title = element("h3", "Rows of the largest losses")
    if tested.worst[0].picture is not None:
        return joined([title, row_of(*(_card(tested, row) for row in tested.worst))])
    columns = [name for name, _ in tested.worst[0].cells]
    head = ["test row", "loss", *_said_names(tested), *columns]
    body = [
        [str(row.number), f"{tested.losses[row.place]:.4g}", *_said(tested, row.place)]
        + [cell for _, cell in row.cells]
        for row in tested.worst
    ]
    return joined([title, table(head, body)])


def _card(tested: Tested, row: WorstRow) -> Markup:
    assert row.picture is not None
    pairs = zip(_said_names(tested), _said(tested, row.place), strict=True)
    lines = [f"row {row.number}, loss {tested.losses[row.place]:.3g}"]
    lines += [f"{name} {value}" for name, value in pairs]
    caption = joined(element("span", line) for line in lines)
    picture = charts.image(row.picture, f"test row {row.number}")
    return element("figure", picture, element("figcaption", caption), class_="worst")


def _said_names(tested: Tested) -> list[str]:
    if tested.class_names:
        return ["true", "predicted", "p(true)"]
    names = tested.target_names[:_TARGETS_MAX]
    return [f"{what} {name}" for name in names for what in ("true", "predicted")]


def _said(tested: Tested, place: int) -> list[str]:
    if tested.class_names:
        assert tested.probabilities is not None
        true, predicted = int(tested.y[place]), int(tested.predicted[place])
        probability = float(tested.probabilities[place, true])
        return [tested.class_names[true], tested.class_names[predicted], f"{probability:.3g}"]
    pairs = zip(tested.y[place], tested.predicted[place], strict=True)
    return [f"{value:.5g}" for pair in list(pairs)[:_TARGETS_MAX] for value in pair]
