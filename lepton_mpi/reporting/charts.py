"""Charts as SVG inside of the page: axes and words in the page's own colour, so that they are seen on light and on dark."""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_mpi.interpretation import pictures
from lepton_mpi.markup.elements import Markup, element, png

# Seen on white and on black; of colours that most people tell apart.
COLOURS = ("#3b8bd6", "#e0702c", "#2ca25f", "#b05bc4", "#c9a227", "#7f8c8d", "#d6456b", "#3fb8af")
# Inches, 96 pixels each in a browser: the width of a telephone.
_SIZE = (3.7, 2.75)
# Becomes ``currentColor``.
_INK = "#010203"
_MARKED_MAX = 12
_numbers = itertools.count()


@dataclass(frozen=True)
class Line:
    """A line of a chart: points (x, y), a colour, whether it is dashed; ``marked`` is the x of a point to point out."""

    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool = False
    marked: float | None = None


def lines(
    title: str,
    x: str,
    given: Sequence[Line],
    *,
    unit: bool = False,
    log: bool = False,
    from_0: bool = False,
) -> Markup:
    """Lines over ``x``; ``unit``: both axes from 0 to 1; ``log``: of values above 0 that span decades;
    ``from_0``: the height of a line is its value."""

    def draw(space: Any) -> None:
        for line in given:
            if not line.points:
                continue
            xs, ys = zip(*line.points, strict=True)
            marker = "." if len(xs) <= _MARKED_MAX and not unit else None
            style = (0, (4, 2)) if line.dashed else "solid"
            space.plot(xs, ys, color=line.colour, linestyle=style, linewidth=1.5, marker=marker)
            for point in line.points:
                if point[0] == line.marked:
                    space.plot(
                        *point, marker="o", markersize=8, color=line.colour, markerfacecolor="none"
                    )
        values = [y for line in given for _, y in line.points]
        if log and values and min(values) > 0 and max(values) > 20 * min(values):
            space.set_yscale("log")
        if from_0 and values and min(values) >= 0:
            space.set_ylim(0, 1.08 * max(values) or 1)
        if unit:
            space.set_xlim(-0.02, 1.02)
            space.set_ylim(-0.02, 1.02)
        elif values and len({x for line in given for x, _ in line.points}) < _MARKED_MAX:
            space.xaxis.get_major_locator().set_params(integer=True)
        space.set_xlabel(x)

    return _chart(title, draw)


def scatter(title: str, x: str, y: str, points: np.ndarray) -> Markup:
    """Points (rows, 2), and the line where both are equal."""

    def draw(space: Any) -> None:
        space.scatter(*points.T, s=6, alpha=0.5, color=COLOURS[0], linewidths=0, rasterized=True)
        ends = [float(points.min()), float(points.max())]
        space.plot(ends, ends, color=_INK, linewidth=0.7)
        space.set_xlabel(x)
        space.set_ylabel(y)

    return _chart(title, draw)


def histogram(title: str, x: str, values: np.ndarray) -> Markup:
    """Of numbers (rows,)."""

    def draw(space: Any) -> None:
        space.hist(values, bins=min(40, max(5, len(values) // 8)), color=COLOURS[0])
        space.axvline(0, color=_INK, linewidth=0.7)
        space.set_xlabel(x)
        space.set_ylabel("rows")

    return _chart(title, draw)


def heat_map(title: str, values: np.ndarray) -> Markup:
    """Numbers from 0 to 1, (rows, columns)."""

    def draw(space: Any) -> None:
        space.grid(visible=False)
        space.imshow(values, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        space.set_xlabel("predicted class, by number")
        space.set_ylabel("true class")

    return _chart(title, draw, (3.7, 3.7))


def image(values: np.ndarray, title: str) -> Markup:
    """Numbers (height, width) or (height, width, 3) as a picture."""
    matplotlib, memory = pictures.load(), io.BytesIO()
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / ((high - low) or 1.0)
    matplotlib.image.imsave(memory, scaled, format="png", cmap="gray", vmin=0, vmax=1)
    return png(memory.getvalue(), title)


def _chart(title: str, draw: Callable[[Any], None], size: tuple[float, float] = _SIZE) -> Markup:
    matplotlib, memory = pictures.load(), io.StringIO()
    ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    settings = dict.fromkeys(ink, _INK) | {
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "lepton_mpi",
        "font.family": "sans-serif",
        "font.size": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.linewidth": 0.5,
        "grid.alpha": 0.25,
        "grid.color": _INK,
        "axes.grid": True,
        "axes.axisbelow": True,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # Of letters that the font lacks: the browser has them.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        figure.savefig(
            memory,
            format="svg",
            transparent=True,
            dpi=150,
            metadata={"Date": None, "Creator": None},
        )
    svg = memory.getvalue()
    caption = element("figcaption", title)
    return element("figure", caption, _inline(svg[svg.index("<svg") :]), class_="chart")


def _inline(svg: str) -> Markup:
    """With names of its own, since charts of one page must not share them, and in the page's colour."""
    own = f"c{next(_numbers)}-"
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id=")', rf"\g<1>{own}", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{own}", svg)
    return Markup(svg.replace(_INK, "currentColor"))
