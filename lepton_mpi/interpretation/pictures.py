"""Pictures of explanations, as PNG files in memory. matplotlib is an extra, and nothing else of the package imports it.

Signed attributions are red where they speak for the output and blue where they speak against it; sizes are dark where they are large.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.extras import pip_install
from lepton_mpi.layers.layer import Array
from lepton_mpi.wording import printable

_INCHES, _DPI = 2.2, 110
_SIGNED, _SIZES, _OVER = "RdBu_r", "viridis", "autumn"
# Letters of a name, and cells of a line of a text.
_LETTERS, _CELLS = 34, 16
# Of pictures that have no names: the largest number of channels that are drawn as lines.
LINES_MAX = 4


@dataclass(frozen=True)
class Panel:
    """A picture of a row.

    Attributes
    ----------
    title : str
    values : float64, shape (height, width) or, of an image, (height, width, 3)
    kind : {"image", "signed", "sizes", "over"}
        over: sizes, laid over the first panel of the line.
    """

    title: str
    values: Array
    kind: str


def load() -> Any:
    """matplotlib. Raises ConfigurationError without it."""
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError:
        raise ConfigurationError(
            f"pictures: expected matplotlib, got none; {pip_install('report')}"
        ) from None
    return matplotlib


def grid(
    lines: Sequence[tuple[str, Sequence[Panel]]], axes: tuple[str, str] | None = None
) -> bytes:
    """A line of panels for each row, with its title; ``axes`` names the horizontal and the vertical one, or has none drawn."""

    def draw(figure: Any) -> None:
        columns = max(len(panels) for _, panels in lines)
        spaces = figure.subplots(len(lines), columns, squeeze=False)
        for (title, panels), row in zip(lines, spaces, strict=True):
            for space in row:
                space.set_axis_off()
            for panel, space in zip(panels, row, strict=False):
                _panel(space, panel, panels[0], axes)
            row[0].set_title(f"{_short(title, 60)}\n{panels[0].title}", fontsize=8, loc="left")

    columns = max(len(panels) for _, panels in lines)
    shape = lines[0][1][0].values.shape
    tall = min(2.0, max(0.5, shape[0] / shape[1]))
    size = max(columns * _INCHES * 1.15, 5.0), len(lines) * (_INCHES * tall + 0.45)
    return _png(draw, size)


def _panel(space: Any, panel: Panel, first: Panel, axes: tuple[str, str] | None) -> None:
    values, origin = panel.values, "lower" if axes else "upper"
    how: dict[str, Any] = {"origin": origin, "aspect": "auto" if axes else "equal"}
    high = float(np.abs(values).max(initial=0)) or 1.0
    if panel.kind == "image":
        space.imshow(_visible(values), cmap="gray", **how)
    elif panel.kind == "signed":
        space.imshow(values, cmap=_SIGNED, vmin=-high, vmax=high, **how)
    elif panel.kind == "sizes":
        space.imshow(values, cmap=_SIZES, vmin=0, vmax=high, **how)
    else:
        space.imshow(_visible(first.values), cmap="gray", **how)
        # Opaque where the map is high, so that the image is seen elsewhere.
        opaque = 0.85 * values / high
        space.imshow(values, cmap=_OVER, vmin=0, vmax=high, alpha=opaque, **how)
    space.set_title(panel.title + _range(panel), fontsize=8, loc="left")
    if axes:
        space.set_axis_on()
        space.set_xlabel(axes[0], fontsize=7)
        space.set_ylabel(axes[1], fontsize=7)
        space.tick_params(labelsize=6)


def signals(lines: Sequence[tuple[str, Array, Sequence[Panel]]]) -> bytes:
    """A signal (length, channels) for each row, and below it strips (1, length), one for each panel."""

    def draw(figure: Any) -> None:
        each = 1 + max(len(panels) for _, _, panels in lines)
        heights = [3, *[1] * (each - 1)] * len(lines)
        spaces = figure.subplots(each * len(lines), 1, height_ratios=heights, squeeze=False)[:, 0]
        for number, (title, values, panels) in enumerate(lines):
            own = spaces[number * each : (number + 1) * each]
            own[0].plot(values, linewidth=1)
            own[0].set_xlim(-0.5, len(values) - 0.5)
            own[0].set_title(_short(title, 90), fontsize=8, loc="left")
            own[0].tick_params(labelsize=6)
            for panel, space in zip(panels, own[1:], strict=True):
                high = float(np.abs(panel.values).max(initial=0)) or 1.0
                low, colours = (-high, _SIGNED) if panel.kind == "signed" else (0.0, _SIZES)
                space.imshow(panel.values, cmap=colours, vmin=low, vmax=high, aspect="auto")
                space.set_yticks([])
                space.tick_params(labelsize=6)
                space.set_ylabel(
                    panel.title + _range(panel), fontsize=7, rotation=0, ha="right", va="center"
                )

    strips = max(len(panels) for _, _, panels in lines)
    return _png(draw, (8.0, len(lines) * (1.7 + 0.45 * strips)))


def bars(
    title: str,
    names: Sequence[str],
    groups: Sequence[tuple[str, Array, Array | None]],
) -> bytes:
    """Horizontal bars, the first name on top: groups beside each other of (what they are, values, deviations)."""

    def draw(figure: Any) -> None:
        spaces = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
        places = np.arange(len(names))[::-1]
        for (what, values, deviations), space in zip(groups, spaces, strict=True):
            colours = ["#b2182b" if value >= 0 else "#2166ac" for value in values]
            space.barh(places, values, xerr=deviations, color=colours, height=0.7, capsize=2)
            space.axvline(0, color="black", linewidth=0.6)
            space.set_xlabel(what, fontsize=8)
            space.tick_params(labelsize=7)
            space.margins(y=0.02)
        spaces[0].set_yticks(places, [_short(name, _LETTERS) for name in names], fontsize=8)
        figure.suptitle(_short(title, 100), fontsize=9, x=0.02, ha="left")

    return _png(draw, (2.6 + 3.2 * len(groups), 1.1 + 0.24 * len(names)))


def texts(lines: Sequence[tuple[str, Sequence[str], Sequence[Panel]]]) -> bytes:
    """Tokens in cells, coloured: for each row its title, its tokens, and panels of shape (1, tokens)."""
    blocks = [(title, panel, tokens) for title, tokens, panels in lines for panel in panels]
    heights = [-(-len(tokens) // _CELLS) for _, _, tokens in blocks]

    def draw(figure: Any) -> None:
        spaces = figure.subplots(len(blocks), 1, height_ratios=heights, squeeze=False)[:, 0]
        for (title, panel, tokens), height, space in zip(blocks, heights, spaces, strict=True):
            values = np.full(height * _CELLS, np.nan)
            values[: len(tokens)] = panel.values[0]
            high = float(np.abs(panel.values).max(initial=0)) or 1.0
            low, colours = (-high, _SIGNED) if panel.kind == "signed" else (0.0, "Reds")
            table = values.reshape(height, _CELLS)
            space.imshow(table, cmap=colours, vmin=low, vmax=high, aspect="auto")
            for number, token in enumerate(tokens):
                is_dark = (
                    panel.values[0, number] > 0.6 * high or panel.values[0, number] < -0.6 * high
                )
                colour = "white" if is_dark else "black"
                place = number % _CELLS, number // _CELLS
                space.text(
                    *place, _short(token, 9), ha="center", va="center", fontsize=8, color=colour
                )
            space.set_xticks([])
            space.set_yticks([])
            about = panel.title + _range(panel)
            space.set_title(f"{_short(title, 70)}: {about}", fontsize=8, loc="left")

    return _png(draw, (9.0, sum(0.32 * height + 0.42 for height in heights)))


def attention(title: str, maps: Sequence[tuple[str, Array]], tokens: Sequence[str]) -> bytes:
    """A line for each layer, (its name, maps (heads, length, length)), a square for each head."""

    def draw(figure: Any) -> None:
        spaces = figure.subplots(len(maps), len(maps[0][1]), squeeze=False)
        ticks = np.arange(len(tokens))
        labels = [_short(token, 8) for token in tokens]
        for (name, heads), row in zip(maps, spaces, strict=True):
            for number, (head, space) in enumerate(zip(heads, row, strict=True)):
                space.imshow(head, cmap="Blues", vmin=0, vmax=1)
                space.set_title(f"{_short(name, 24)}, head {number}", fontsize=8)
                space.set_xticks(ticks, labels, rotation=90, fontsize=7)
                space.set_yticks(ticks, labels, fontsize=7)
        figure.suptitle(_short(title, 100), fontsize=9, x=0.02, ha="left")

    side = max(2.6, 0.8 + 0.115 * len(tokens))
    return _png(draw, (side * len(maps[0][1]), side * len(maps) + 0.3))


def _png(draw: Callable[[Any], None], size: tuple[float, float]) -> bytes:
    matplotlib, memory = load(), io.BytesIO()
    with matplotlib.rc_context({"text.parse_math": False, "font.family": "DejaVu Sans"}):
        figure = matplotlib.figure.Figure(figsize=size, dpi=_DPI, layout="constrained")
        with warnings.catch_warnings():
            # Of letters that the font lacks, which are drawn as boxes.
            warnings.filterwarnings("ignore", "Glyph", UserWarning)
            draw(figure)
            # No name of a version, so that the same explanation is the same file.
            figure.savefig(memory, format="png", metadata={"Software": None})
    return memory.getvalue()


def _range(panel: Panel) -> str:
    """What the strongest colour stands for."""
    high = float(np.abs(panel.values).max(initial=0))
    return {"signed": f", ±{high:.2g}", "sizes": f", to {high:.2g}"}.get(panel.kind, "")


def _visible(values: Array) -> Array:
    """Numbers of an image from 0 to 1."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / ((high - low) or 1.0)


def _short(text: str, letters: int) -> str:
    plain = printable(text)
    return plain if len(plain) <= letters else f"{plain[: letters - 1]}…"
