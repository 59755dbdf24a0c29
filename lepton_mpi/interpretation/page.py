"""One HTML file that needs no other: sections of lines, tables and pictures, which are inside of it as PNG."""

import base64
import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lepton_mpi.durable import replace_durably
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.wording import printable

# How a file begins that this module may write over.
_MARK = "<!doctype html><!-- lepton_mpi explain-model -->"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
img { max-width: 100%; } figure { margin: 1rem 0; } figcaption { color: #555; font-size: 0.9rem; }
td, th { padding: 0.1rem 0.8rem; text-align: right; } td:first-child, th:first-child { text-align: left; }
"""


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
    parts = [_MARK, '<html lang="en"><meta charset="utf-8">', f"<title>{_text(title)}</title>"]
    parts += [f"<style>{_STYLE}</style>", f"<h1>{_text(title)}</h1>", *map(_paragraph, lines)]
    for section in sections:
        parts += [f"<h2>{_text(section.title)}</h2>", *map(_paragraph, section.lines)]
        parts += [_table(section.table)] if section.table else []
        parts += map(_figure, section.pictures)
    return "\n".join([*parts, "</html>", ""])


def check_target(path: Path) -> None:
    """Whether a page may be written there: where nothing is, or such a page. Raises ConfigurationError."""
    if not path.parent.is_dir() or path.is_dir():
        raise ConfigurationError(f"--out: expected a file in a folder that exists, got {path}")
    try:
        with path.open("rb") as file:
            is_ours = file.read(len(_MARK)) == _MARK.encode()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError(f"--out: {path}: not readable: {error.strerror}") from None
    if not is_ours:
        raise ConfigurationError(
            f"--out: expected a new file, or one that explain-model has written, got {path}, which is another"
        )


def write(path: Path, text: str, folder: Path | None, pictures: Sequence[Picture]) -> None:
    """The page, and the pictures as files of ``folder``. Raises ConfigurationError for a disk that takes none."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for picture in pictures:
                (folder / f"{picture.name}.png").write_bytes(picture.png)
        temporary.write_text(text, "utf-8")
        replace_durably(temporary, path)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {error.filename or path}: {error.strerror}"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _text(text: str) -> str:
    return html.escape(printable(text))


def _paragraph(line: str) -> str:
    return f"<p>{_text(line)}</p>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{_text(cell)}</{tag}>' for cell in cells)}</tr>"

    head, *body = rows
    return "\n".join(["<table>", line(head, "th"), *(line(row, "td") for row in body), "</table>"])


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    caption = _text(picture.caption)
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
