"""Elements of an HTML page. A ``str`` is text, and escaped; ``Markup`` is what this folder has made."""

import base64
import html
from collections.abc import Iterable, Sequence

from lepton_mpi.wording import printable


class Markup(str):
    """A piece of a page that may stand in it as it is."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Any value as text: letters alone, and none that HTML knows."""
    return value if isinstance(value, Markup) else Markup(html.escape(printable(str(value))))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """``<tag name="value">children</tag>``; ``class_`` is class, and attributes that are None are left out."""
    words = [
        f' {name.rstrip("_")}="{text(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    ]
    return Markup(f"<{tag}{''.join(words)}>{joined(children)}</{tag}>")


def joined(parts: Iterable[object]) -> Markup:
    """One behind the other."""
    return Markup("".join(map(text, parts)))


def section(title: str, *children: object) -> Markup:
    """With a heading; nothing if there is nothing in it."""
    there = [child for child in children if child]
    return element("section", element("h2", title), *there) if there else Markup()


def paragraph(line: object) -> Markup:
    """A line of text."""
    return element("p", line)


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Markup:
    """Wider than the page it is moved sideways; the first cell of a row names it."""
    top = element("tr", *(element("th", cell) for cell in head))
    body = [
        element("tr", element("th", row[0]), *(element("td", cell) for cell in row[1:]))
        for row in rows
    ]
    return wide(element("table", element("thead", top), element("tbody", *body)))


def wide(child: Markup) -> Markup:
    """Something that may be wider than the page."""
    return element("div", child, class_="wide")


def png(data: bytes, alt: str) -> Markup:
    """A PNG file as a part of the page."""
    return Markup(
        f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}" alt="{text(alt)}">'
    )


def row_of(*children: object) -> Markup:
    """Beside each other as far as there is room."""
    return element("div", *children, class_="row")


def details(title: str, *children: object) -> Markup:
    """Folded."""
    return element("details", element("summary", title), *children)


def shown(value: object) -> str:
    """A number with four digits; lists and options as they are typed; nothing as a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(map(shown, value)) or "–"
    return str(value)
