"""The file of a page: its head and style, which files it may write over, and that it is there in full or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lepton_mpi.durable import check_target, replacing
from lepton_mpi.errors import LauncherError
from lepton_mpi.markup.elements import Markup, element

# Nothing is loaded and nothing runs, whatever a name in what is shown says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root { color-scheme: light dark; --line: #d5d8dd; --soft: #5c6470; --mark: #fff1c9; --warn: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --line: #3c4149; --soft: #a5adb8; --mark: #4a3f16; --warn: #ff8a80; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 74rem; padding: 0.5rem 0.7rem 3rem;
  background: light-dark(#fff, #15181c); color: light-dark(#1d2127, #e4e7eb); overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0.8rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 0.6rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 0.4rem; }
p { margin: 0.4rem 0; } figcaption { color: var(--soft); }
.wide { overflow-x: auto; max-width: 100%; margin: 0.6rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.6rem; text-align: right; border-bottom: 1px solid var(--line); overflow-wrap: normal; }
th { font-weight: 600; } tbody th, th:first-child { text-align: left; font-weight: 500; }
td { max-width: 26rem; overflow-wrap: anywhere; }
.row { display: flex; flex-wrap: wrap; gap: 0.6rem 1.4rem; align-items: flex-start; }
figure { margin: 0; } img { max-width: 100%; }
summary { cursor: pointer; color: var(--soft); margin: 0.5rem 0; }
"""


@dataclass(frozen=True)
class Page:
    """The pages of one command, which write over each other and over nothing else.

    Attributes
    ----------
    command : str
        Whose pages they are.
    style : str
        CSS of what these pages alone have.
    """

    command: str
    style: str = ""

    @property
    def _mark(self) -> str:
        """How a file of the command begins."""
        return f"<!doctype html><!-- lepton_mpi {self.command} -->"

    def html(self, title: str, *sections: Markup) -> str:
        """The whole page; ``title`` is that of the window, not shown in the page."""
        head = [
            Markup('<meta charset="utf-8">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            element("title", title),
            element("style", Markup(_STYLE + self.style)),
        ]
        page = element("html", element("head", *head), element("body", *sections), lang="en")
        return f"{self._mark}\n{page}\n"

    def check_target(self, path: Path, flag: str = "--out") -> None:
        """Whether a page may be written there: where nothing is, or such a page. Raises ConfigurationError that names the option."""
        check_target(path, flag, self._mark.encode(), self.command)


def write(path: Path, text: str) -> None:
    """There in full or not at all. Raises LauncherError for a disk that takes none."""
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, "utf-8")
    except OSError as error:
        raise LauncherError(f"cannot write {path}: {error.strerror}") from None
