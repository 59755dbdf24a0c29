"""How the attributions of rows are drawn: over images, along signals, by column of a table, by token of a text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import zoom

from lepton_mpi.interpretation import embedded, pictures
from lepton_mpi.interpretation.columns import Column, columns_of, has_columns, raw_numbers
from lepton_mpi.interpretation.gradients import Attribution
from lepton_mpi.interpretation.page import Picture
from lepton_mpi.interpretation.pictures import Panel
from lepton_mpi.interpretation.question import Question
from lepton_mpi.layers.layer import Array

# Rows of one picture, and columns of one row.
_ROWS, _COLUMNS = 8, 16
# Their rows are frames of bands.
_OF_SOUNDS = ("speech_cnn", "speech_gru")


@dataclass(frozen=True)
class Shown:
    """An attribution of all rows with its name, and its kind of ``pictures.Panel``.

    Grad-CAM, "over", has one map of each row under the name "".
    """

    name: str
    kind: str
    attribution: Attribution


def draw_rows(question: Question, shown: Sequence[Shown]) -> list[Picture]:
    """By what the rows are."""
    if question.length:
        return _texts(question, shown)
    is_flat = all(len(spec.shape) <= 1 for spec in question.network.inputs.values())
    if is_flat and has_columns(question.data):
        return _tables(question, shown)
    shape = _shape(question)
    if len(shape) == 1 or (len(shape) == 2 and shape[1] <= pictures.LINES_MAX):
        return _signals(question, shown, shape)
    return _images(question, shown, shape)


def _shape(question: Question) -> tuple[int, ...]:
    """Of a row of the first input of numbers, as the network reads it or, if that is flat, as the data have it."""
    specs = question.network.inputs.values()
    index = next(i for i, spec in enumerate(specs) if spec.kind == "numbers")
    name = question.names[index]
    shape = [*specs][index].shape
    return shape if len(shape) > 1 else question.data.inputs[name].shape


def _first_numbers(question: Question) -> tuple[str, str, Array]:
    """Of the first input of numbers the network's name, the data's, and its rows."""
    pairs = zip(question.network.inputs.items(), question.names, question.inputs, strict=True)
    return next((own, name, x) for (own, spec), name, x in pairs if spec.kind == "numbers")


def _images(question: Question, shown: Sequence[Shown], shape: tuple[int, ...]) -> list[Picture]:
    own, name, x = _first_numbers(question)
    is_sound = question.network.name in _OF_SOUNDS
    raw = raw_numbers(question.data, name, x).reshape(-1, *shape)
    lines = []
    for row, title in enumerate(question.titles):
        panels = [Panel("input", _flat_image(raw[row], "image"), "image")]
        for each in shown:
            values = each.attribution.numbers["" if each.kind == "over" else own][row]
            if each.kind == "over":
                values = _enlarged(values, panels[0].values.shape[:2])
            else:
                values = _flat_image(values.reshape(shape), each.kind)
            panels.append(Panel(each.name, values, each.kind))
        if is_sound:
            panels = [Panel(p.title, p.values.T, p.kind) for p in panels]
        lines.append((title, panels))
    axes = ("frame", "band") if is_sound else None
    found = []
    for first in range(0, len(lines), _ROWS):
        part = lines[first : first + _ROWS]
        caption = f"{', '.join(each.name for each in shown)} of {len(part)} rows"
        found.append(Picture(f"rows-{first}", caption, pictures.grid(part, axes)))
    return found


def _signals(question: Question, shown: Sequence[Shown], shape: tuple[int, ...]) -> list[Picture]:
    own, name, x = _first_numbers(question)
    length = shape[0]
    raw = raw_numbers(question.data, name, x).reshape(len(x), length, -1)
    lines = []
    for row, title in enumerate(question.titles):
        panels = []
        for each in shown:
            values = each.attribution.numbers["" if each.kind == "over" else own][row]
            if each.kind == "over":
                strip = _enlarged(values.reshape(1, -1), (1, length))
            else:
                strip = values.reshape(length, -1).sum(axis=1).reshape(1, -1)
            panels.append(Panel(each.name, strip, each.kind))
        lines.append((title, raw[row], panels))
    found = []
    for first in range(0, len(lines), _ROWS):
        part = lines[first : first + _ROWS]
        caption = f"{', '.join(each.name for each in shown)} along {len(part)} signals"
        found.append(Picture(f"rows-{first}", caption, pictures.signals(part)))
    return found


def _texts(question: Question, shown: Sequence[Shown]) -> list[Picture]:
    lines = []
    for row, title in enumerate(question.titles):
        panels = []
        for each in shown:
            (values,) = each.attribution.codes.values()
            panels.append(Panel(each.name, values[row : row + 1, : question.length], each.kind))
        lines.append((title, question.token_texts(row), panels))
    found = []
    for first in range(0, len(lines), _ROWS):
        part = lines[first : first + _ROWS]
        caption = f"{', '.join(each.name for each in shown)} of the tokens of {len(part)} rows"
        found.append(Picture(f"rows-{first}", caption, pictures.texts(part)))
    return found


def _tables(question: Question, shown: Sequence[Shown]) -> list[Picture]:
    """A picture for each row: the columns of the largest attributions."""
    columns = columns_of(question.data)
    entries = [by_column(question, columns, each) for each in shown]
    names, cells = list(entries[0]), _cells(question, columns)
    found = []
    for row, title in enumerate(question.titles):
        order = sorted(names, key=lambda n: -abs(entries[0][n][row]))[:_COLUMNS]
        labels = [f"{n} = {cells[n][row]}" if n in cells else n for n in order]
        groups = [
            (each.name, np.array([of[n][row] if n in of else 0.0 for n in order]), None)
            for each, of in zip(shown, entries, strict=True)
        ]
        caption = f"{title}: {', '.join(each.name for each in shown)}"
        found.append(Picture(f"row-{row}", caption, pictures.bars(title, labels, groups)))
    return found


def by_column(question: Question, columns: Sequence[Column], shown: Shown) -> dict[str, Array]:
    """Attributions of columns and crosses by name, each (rows,): sums of those of a column's features, or their length."""
    found: dict[str, Array] = {}
    names = dict(zip(question.network.inputs, question.names, strict=True))
    by_place = {(c.input, f): c.name for c in columns for f in c.features}
    for own, values in shown.attribution.numbers.items():
        flat = values.reshape(len(values), -1)
        for column in columns:
            if column.input == names[own]:
                part = flat[:, list(column.features)]
                is_size = shown.kind == "sizes"
                found[column.name] = np.linalg.norm(part, axis=1) if is_size else part.sum(axis=1)
    layers = {each.node.name: each for each in embedded.embedded_of(question.network)}
    for layer, values in shown.attribution.codes.items():
        each = layers[layer]
        for number, features in enumerate(each.features):
            name = "*".join(by_place[names[each.input], f] for f in features)
            found[name] = found.get(name, np.zeros(len(values))) + values[:, number]
    return found


def _cells(question: Question, columns: Sequence[Column]) -> dict[str, list[str]]:
    """What stands in the cells of each column."""
    rows = {}
    for spec, name, x in zip(
        question.network.inputs.values(), question.names, question.inputs, strict=True
    ):
        is_numbers = spec.kind == "numbers"
        rows[name] = raw_numbers(question.data, name, x) if is_numbers else x.reshape(len(x), -1)
    return {
        c.name: [c.text(row[list(c.features)]) for row in rows[c.input]]
        for c in columns
        if c.input in rows
    }


def _flat_image(values: Array, kind: str) -> Array:
    """(height, width), or an image of three colours: attributions of channels are added, of their sizes the largest counts."""
    if values.ndim == 2:
        return values
    if values.shape[-1] == 1:
        return values[..., 0]
    if kind == "image":
        return values if values.shape[-1] == 3 else values.mean(axis=-1)
    return values.max(axis=-1) if kind == "sizes" else values.sum(axis=-1)


def _enlarged(values: Array, shape: tuple[int, ...]) -> Array:
    """To this size, by bilinear interpolation between the middles of places."""
    factors = [wanted / had for wanted, had in zip(shape, values.shape, strict=True)]
    found: Array = zoom(values, factors, order=1, mode="nearest", grid_mode=True)
    return found
