"""A trace as a picture (SVG): rows are ranks, columns are the states between two steps. Pure.

    rank 0   [a|b|c] ---a---.      [a|b|c]        a cell is one chunk on one rank, cut into a bar for every
                             \\                    rank: it is filled where that rank's contribution is in
    rank 1   [a|b|c]          '--> [a|b|c]

Columns that do not fit side by side go on below, as lines of text do, with the last state repeated.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from lepton_mpi.collectives.explaining.cost import cost, lower_bound
from lepton_mpi.collectives.explaining.trace import Trace, TracedStep
from lepton_mpi.collectives.explaining.trace_text import chunk_letters, chunks_text
from lepton_mpi.collectives.schedules.schedule import SUMS, Action, Collective

_WIDTH_MAX = 1500
_MARGIN, _RANK_LABEL, _GAP = 28, 64, 128
_CELL_HEIGHT, _ROW = 26, 60
_TOP, _BAND_HEAD, _LEGEND = 84, 40, 64
_INK, _FAINT, _PAPER = "#1f2430", "#6b7280", "#ffffff"
_DASHES = {Action.ADD: "", Action.COPY: "7 4", Action.HOLD: "1.5 4"}


@dataclass(frozen=True)
class _Layout:
    """Where things are, in pixels."""

    ranks: int
    chunks: int
    states: int

    @property
    def cell(self) -> float:
        return min(30.0, max(11.0, 150 / self.chunks))

    @property
    def strip(self) -> float:
        return self.cell * self.chunks

    @property
    def steps_per_band(self) -> int:
        room = _WIDTH_MAX - 2 * _MARGIN - _RANK_LABEL - self.strip
        fitting = max(1, int(room // (self.strip + _GAP)))
        bands = -(-(self.states - 1) // fitting)
        return -(-(self.states - 1) // max(1, bands)) or 1

    @property
    def bands(self) -> int:
        return max(1, -(-(self.states - 1) // self.steps_per_band))

    @property
    def width(self) -> float:
        steps = min(self.steps_per_band, self.states - 1)
        return max(640.0, 2 * _MARGIN + _RANK_LABEL + self.strip + steps * (self.strip + _GAP))

    @property
    def height(self) -> float:
        return _TOP + self.bands * (_BAND_HEAD + self.ranks * _ROW) + _LEGEND

    def left(self, column: int) -> float:
        """Left edge of the strips of a band's column."""
        return _MARGIN + _RANK_LABEL + column * (self.strip + _GAP)

    def middle(self, band: int, rank: int) -> float:
        """Height of the middle of a rank's strips."""
        return _TOP + band * (_BAND_HEAD + self.ranks * _ROW) + _BAND_HEAD + rank * _ROW + _ROW / 2


def svg(trace: Trace) -> str:
    """The picture of a trace, as the text of an SVG file."""
    layout = _Layout(trace.world_size, trace.chunk_count, len(trace.steps))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {layout.width:.0f} {layout.height:.0f}" '
        f'width="{layout.width:.0f}" height="{layout.height:.0f}" '
        'font-family="DejaVu Sans, Verdana, Helvetica, Arial, sans-serif">',
        f'<rect width="100%" height="100%" fill="{_PAPER}"/>',
        *_head(trace),
    ]
    for band in range(layout.bands):
        first = band * layout.steps_per_band
        last = min(first + layout.steps_per_band, layout.states - 1)
        for column, number in enumerate(range(first, last + 1)):
            parts += _state(trace, trace.steps[number], layout, band, column)
            if number > first:
                parts += _arrows(trace, trace.steps[number], layout, band, column, number)
    return "\n".join([*parts, *_legend(trace, layout), "</svg>", ""])


def _head(trace: Trace) -> Iterator[str]:
    algorithm, ranks = trace.algorithm, trace.world_size
    found, least = cost(algorithm, ranks), lower_bound(algorithm.collective, ranks)
    title = f"{algorithm.name.replace('_', ' ')}: {algorithm.collective.value} on {ranks} rank{'s' * (ranks > 1)}"
    yield f"<title>{escape(title)}</title>"
    yield _text(_MARGIN, 40, title, 20, weight="bold")
    line = f"{found.steps} steps (at least {least.steps})"
    if algorithm.collective is not Collective.BARRIER:
        line += f", the busiest rank sends {float(found.sent):.3g} N (at least {float(least.sent):.3g} N)"
    yield _text(_MARGIN, 64, line, 13, _FAINT)


def _state(
    trace: Trace, step: TracedStep, layout: _Layout, band: int, column: int
) -> Iterator[str]:
    """The strips of all ranks."""
    letters = _letters(trace)
    left = layout.left(column)
    for rank in range(layout.ranks):
        middle = layout.middle(band, rank)
        if column == 0:
            yield _text(_MARGIN, middle + 5, f"rank {rank}", 14)
        for chunk in range(layout.chunks):
            x, y = left + chunk * layout.cell, middle - _CELL_HEIGHT / 2
            if len(letters[chunk]) == 1:
                yield _text(
                    x + layout.cell / 2,
                    y - 4,
                    letters[chunk],
                    11,
                    _colour(chunk, layout.chunks),
                    "middle",
                )
            yield from _cell(trace, step, rank, chunk, x, y, layout)


def _cell(
    trace: Trace, step: TracedStep, rank: int, chunk: int, x: float, y: float, layout: _Layout
) -> Iterator[str]:
    width, bar = layout.cell - 2, (layout.cell - 2) / layout.ranks
    colour, value = _colour(chunk, layout.chunks), step.values[rank][chunk]
    changed = (rank, chunk) in step.changed
    if trace.algorithm.collective is Collective.BARRIER:
        inside, kept = step.heard_of[rank], set()
    elif trace.algorithm.collective not in SUMS:
        inside, kept = set(range(layout.ranks)) if value is not None else set(), set()
    else:
        inside = set(value.ranks)
        kept = {other for held in step.held.get((rank, chunk), {}).values() for other in held.ranks}
    yield _rect(x + 1, y, width, _CELL_HEIGHT, colour, opacity=0.13)
    for start, stop, opacity in [(*run, 1.0) for run in _runs(inside)] + [
        (*run, 0.45) for run in _runs(kept)
    ]:
        yield _rect(
            x + 1 + start * bar, y, (stop - start) * bar, _CELL_HEIGHT, colour, opacity=opacity
        )
    stroke, line = (_INK, 2.2) if changed else (colour, 0.8)
    yield (
        f'<rect x="{x + 1:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_CELL_HEIGHT}" rx="2" fill="none" '
        f'stroke="{stroke}" stroke-width="{line}"/>'
    )


def _runs(numbers: set[int] | frozenset[int]) -> list[tuple[int, int]]:
    """Half-open runs of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number:
            runs[-1] = runs[-1][0], number + 1
        else:
            runs.append((number, number + 1))
    return runs


def _arrows(
    trace: Trace, step: TracedStep, layout: _Layout, band: int, column: int, number: int
) -> Iterator[str]:
    """The transfers that lead from the column before to this one."""
    start, stop = layout.left(column - 1) + layout.strip + 4, layout.left(column) - 4
    title_height = layout.middle(band, 0) - _ROW / 2 - 12
    yield _text((start + stop) / 2, title_height, f"step {number}", 13, _FAINT, "middle")
    letters = _letters(trace)
    leaving, arriving = _places(step, 0), _places(step, 1)
    labels = []
    for place, (rank, receive) in enumerate(step.moves):
        y0 = layout.middle(band, receive.source) + leaving[place]
        y1 = layout.middle(band, rank) + arriving[place]
        single = receive.stop - receive.start == 1
        colour = _colour(receive.start, layout.chunks) if single else _INK
        reach = (stop - start) * 0.5
        dashes = f' stroke-dasharray="{_DASHES[receive.action]}"' if _DASHES[receive.action] else ""
        yield (
            f'<path d="M {start:.1f} {y0:.1f} C {start + reach:.1f} {y0:.1f} {stop - reach:.1f} {y1:.1f} '
            f'{stop - 7:.1f} {y1:.1f}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-linecap="round"{dashes}/>'
        )
        yield f'<path d="M {stop:.1f} {y1:.1f} l -9 -4.5 v 9 z" fill="{colour}"/>'
        word = chunks_text(receive.start, receive.stop, letters)
        if word:
            labels += _label(start + 16, y0, word, colour)
    yield from labels  # above all lines


def _places(step: TracedStep, end: int) -> dict[int, float]:
    """Where arrows that share an end leave or arrive, above or below the middle, so that they do not cross."""
    sharing = defaultdict(list)
    for index, (rank, receive) in enumerate(step.moves):
        ends = (receive.source, rank)
        sharing[ends[end]].append((ends[1 - end], receive.start, index))
    places = {}
    for group in sharing.values():
        distance = min(15.0, (_ROW - 14) / len(group))
        for position, (*_, index) in enumerate(sorted(group)):
            places[index] = (position - (len(group) - 1) / 2) * distance
    return places


def _label(x: float, y: float, word: str, colour: str) -> list[str]:
    width = 8 + 7.2 * len(word)
    return [
        f'<rect x="{x - width / 2:.1f}" y="{y - 7:.1f}" width="{width:.1f}" height="14" rx="7" fill="{colour}" '
        f'stroke="{_PAPER}" stroke-width="1.2"/>',
        _text(x, y + 3.8, word, 10.5, _PAPER, "middle", "bold"),
    ]


def _legend(trace: Trace, layout: _Layout) -> Iterator[str]:
    y = layout.height - 30
    x = float(_MARGIN)
    used = {receive.action for step in trace.steps for _, receive in step.moves}
    words = {Action.ADD: "added", Action.COPY: "copied", Action.HOLD: "kept, added later"}
    note = "a bar in a cell: one rank's contribution; dark frame: new in this step"
    if trace.algorithm.collective is Collective.BARRIER:
        words[Action.ADD] = "told"
        note = "a bar in a cell: a rank that was heard of; dark frame: new in this step"
    elif not {Action.ADD, Action.HOLD} & used:
        note = "filled: the rank has the chunk; dark frame: new in this step"
    for action, word in words.items():
        if action not in used:
            continue
        dashes = f' stroke-dasharray="{_DASHES[action]}"' if _DASHES[action] else ""
        yield (
            f'<path d="M {x:.0f} {y:.0f} h 34" stroke="{_INK}" stroke-width="1.8" stroke-linecap="round"{dashes}/>'
        )
        yield _text(x + 42, y + 4, word, 12, _FAINT)
        x += 62 + 7.2 * len(word)
    yield _text(x + 8, y + 4, note, 12, _FAINT)


def _letters(trace: Trace) -> list[str]:
    return (
        [""]
        if trace.algorithm.collective is Collective.BARRIER
        else chunk_letters(trace.chunk_count)
    )


def _colour(chunk: int, chunk_count: int) -> str:
    return f"hsl({(212 + 360 * chunk // chunk_count) % 360}, 62%, 42%)"


def _rect(x: float, y: float, width: float, height: float, colour: str, opacity: float) -> str:
    shown = f' fill-opacity="{opacity}"' if opacity < 1 else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"{shown}/>'


def _text(
    x: float,
    y: float,
    words: str,
    size: float,
    colour: str = _INK,
    anchor: str = "start",
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(words)}</text>'
    )
