"""The page of ``train --find-learning-rate --find-out FILE.html``: the loss by the learning rate, and what follows of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_mpi.interpretation import pictures
from lepton_mpi.markup.elements import element, paragraph, section, shown, table
from lepton_mpi.markup.page import Page, write
from lepton_mpi.reporting import charts
from lepton_mpi.reporting.charts import COLOURS, Line

_STYLE = ".chart svg { width: 640px; max-width: 100%; height: auto; display: block; }\n"
PAGE = Page("train --find-learning-rate", _STYLE)
_TITLE = "Learning rate range test"


def check(path: Path) -> None:
    """Before the test. Raises ConfigurationError for a file that is another, and without matplotlib."""
    PAGE.check_target(path, "--find-out")
    pictures.load()


def write_page(path: Path, found: Mapping[str, Any]) -> None:
    """Of what ``rate_search.search`` returns. Raises LauncherError for a disk that takes none."""
    write(path, html_of(found))


def html_of(found: Mapping[str, Any]) -> str:
    """The whole page."""
    names = ("losses", "smoothed")
    curves = [
        [
            (math.log10(rate), loss)
            for rate, loss in zip(found["rates"], found[name], strict=True)
            if loss is not None
        ]
        for name in names
    ]
    rate = found["learning_rate"]
    marked = None if rate is None else math.log10(rate)
    # The last steps of a test that diverged would leave no room for the others.
    top = 1.5 * max((loss for _, loss in curves[1][:10]), default=1.0)
    lines = [
        Line([point for point in curves[0] if point[1] <= top], COLOURS[5], dashed=True),
        Line([point for point in curves[1] if point[1] <= top], COLOURS[0], marked=marked),
    ]
    chart = charts.lines("loss, dashed, and smoothed; the circle is steepest", "log10 rate", lines)
    rows: list[list[object]] = [
        ["steepest descent", shown(rate)],
        ["a tenth of the least loss's rate", shown(found["tenth_of_minimum"])],
        ["steps", len(found["rates"])],
    ]
    return PAGE.html(
        _TITLE,
        element("h1", _TITLE),
        section("Suggested --learning-rate", table(["rule", "rate"], rows)),
        section("Loss by the rate", chart, paragraph(_ABOUT)),
    )


_ABOUT = (
    "The rate rose from one step to the next, by the same factor each time (Smith, 2017). Losses are of the steps' own rows, before the step. "
    "Smoothed: mean over the steps before, a tenth of the weight for the last."
)
