"""The page of an explanation: sections of lines, tables and pictures, which are inside of it as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lepton_mpi.errors import LauncherError
from lepton_mpi.markup import elements
from lepton_mpi.markup.elements import Markup, element, paragraph
from lepton_mpi.markup.page import Page

PAGE = Page("explain-model", "figure { margin: 1rem 0; } figcaption { font-size: 0.9rem; }\n")


@dataclass(frozen=True)
class Picture:
    """A PNG file: its name without an ending, what it shows, its bytes."""

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """Of one method.

    Attributes
    ----------
    title : str
    lines : list of str
        Also printed.
    pictures : list of Picture
    table : sequence of sequence of str
        The first is its head; empty for none.
    """

    title: str
    lines: list[str]
    pictures: list[Picture] = field(default_factory=list)
    table: Sequence[Sequence[str]] = field(default_factory=list)


def html_of(title: str, lines: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page."""
    head = [element("h1", title), *map(paragraph, lines)]
    return PAGE.html(title, *head, *map(_section, sections))


def write_pictures(folder: Path, pictures: Sequence[Picture]) -> None:
    """As files. Raises LauncherError for a disk that takes none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            (folder / f"{picture.name}.png").write_bytes(picture.png)
    except OSError as error:
        raise LauncherError(f"cannot write {error.filename or folder}: {error.strerror}") from None


def _section(section: Section) -> Markup:
    head, *rows = section.table or [()]
    table = elements.table(head, rows) if section.table else Markup()
    return elements.section(
        section.title,
        *map(paragraph, section.lines),
        table,
        *map(_figure, section.pictures),
    )


def _figure(picture: Picture) -> Markup:
    image = elements.png(picture.png, picture.caption)
    return element("figure", image, element("figcaption", picture.caption))
