"""The page of one or several runs: the order of its sections, its style, its file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lepton_mpi.durable import replace_durably
from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.reporting.classes import classes
from lepton_mpi.reporting.configurations import configurations, versions
from lepton_mpi.reporting.markup import Markup, element, joined, paragraph, section
from lepton_mpi.reporting.metrics import RunRecord
from lepton_mpi.reporting.ranks import time_and_memory
from lepton_mpi.reporting.results import curves, heading, results, title_of
from lepton_mpi.reporting.rows import rows_of
from lepton_mpi.reporting.tested import Tested

# How a file begins that this module may write over.
_MARK = "<!doctype html><!-- lepton_mpi report -->"
# Nothing is loaded and nothing runs, whatever a name in the metrics file says.
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
p { margin: 0.4rem 0; } .note, figcaption { color: var(--soft); } .warning { color: var(--warn); font-weight: 600; }
.wide { overflow-x: auto; max-width: 100%; margin: 0.6rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.6rem; text-align: right; border-bottom: 1px solid var(--line); overflow-wrap: normal; }
th { font-weight: 600; } tbody th, th:first-child { text-align: left; font-weight: 500; }
td { max-width: 26rem; overflow-wrap: anywhere; } .left td, .left th { text-align: left; vertical-align: top; }
tr.differs { background: var(--mark); }
.confusion td { text-align: center; padding: 0.15rem 0.2rem; min-width: 1.9rem; } .confusion .none { color: var(--soft); }
.confusion thead th { text-align: center; vertical-align: bottom; padding: 0.15rem 0.3rem; }
.confusion thead th span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
.row { display: flex; flex-wrap: wrap; gap: 0.6rem 1.4rem; align-items: flex-start; }
figure { margin: 0; } .chart svg { width: 355px; max-width: 100%; height: auto; display: block; }
.chart { max-width: 100%; } .chart figcaption { font-weight: 600; color: inherit; font-size: 0.9rem; }
.worst img { width: 104px; height: auto; image-rendering: pixelated; border: 1px solid var(--line); }
.worst { width: 108px; font-size: 0.8rem; line-height: 1.3; } .worst figcaption span { display: block; }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px; margin: 0 0.35em 0 0.5em; }
.legend { font-size: 0.9rem; } .legend .swatch:first-child { margin-left: 0; }
.rank { display: flex; flex-wrap: wrap; align-items: center; gap: 0 0.6rem; margin: 0.15rem 0; font-size: 0.85rem; }
.rank .label { flex: 0 1 13rem; min-width: 8rem; } .rank .bar { flex: 1 1 14rem; display: flex; height: 1.05em; }
.rank .bar span { display: block; height: 100%; } .rank .total { flex: 0 0 4.2rem; text-align: right; }
.rank.slow .label { color: var(--warn); font-weight: 700; }
summary { cursor: pointer; color: var(--soft); margin: 0.5rem 0; }
"""


def html_of(runs: Sequence[RunRecord], tested: Sequence[Tested | str]) -> str:
    """The whole page; ``tested`` has, for each run, its test rows or why there are none."""
    sections = [
        heading(runs),
        results(runs),
        curves(runs),
        classes(runs),
        _rows(runs, tested),
        time_and_memory(runs),
        configurations(runs),
        versions(runs),
    ]
    policy = Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">')
    head = [
        Markup('<meta charset="utf-8">'),
        policy,
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title_of(runs)),
        element("style", Markup(_STYLE)),
    ]
    page = element("html", element("head", *head), element("body", *sections), lang="en")
    return f"{_MARK}\n{page}\n"


def _rows(runs: Sequence[RunRecord], tested: Sequence[Tested | str]) -> Markup:
    parts: list[Markup] = []
    for run, found in zip(runs, tested, strict=True):
        parts += [element("h3", run.name)] if len(runs) > 1 else []
        parts.append(paragraph(found) if isinstance(found, str) else rows_of(found))
    return section("Single test rows", joined(parts))


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
            f"--out: expected a new file, or one that report has written, got {path}, which is another"
        )


def write(path: Path, text: str) -> None:
    """There in full or not at all. Raises LauncherError for a disk that takes none."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, "utf-8")
        replace_durably(temporary, path)
    except OSError as error:
        raise LauncherError(f"cannot write {path}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
