"""The page of one or several runs: the order of its sections, and their style."""

from __future__ import annotations

from collections.abc import Sequence

from lepton_mpi.markup.elements import Markup, element, joined, paragraph, section
from lepton_mpi.markup.page import Page
from lepton_mpi.reporting.classes import classes
from lepton_mpi.reporting.configurations import configurations, versions
from lepton_mpi.reporting.metrics import RunRecord
from lepton_mpi.reporting.ranks import time_and_memory
from lepton_mpi.reporting.results import curves, heading, results, title_of
from lepton_mpi.reporting.rows import rows_of
from lepton_mpi.reporting.tested import Tested

_STYLE = """
.note { color: var(--soft); } .warning { color: var(--warn); font-weight: 600; }
.left td, .left th { text-align: left; vertical-align: top; }
tr.differs { background: var(--mark); }
.confusion td { text-align: center; padding: 0.15rem 0.2rem; min-width: 1.9rem; } .confusion .none { color: var(--soft); }
.confusion thead th { text-align: center; vertical-align: bottom; padding: 0.15rem 0.3rem; }
.confusion thead th span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
.chart svg { width: 355px; max-width: 100%; height: auto; display: block; }
.chart { max-width: 100%; } .chart figcaption { font-weight: 600; color: inherit; font-size: 0.9rem; }
.worst img { width: 104px; height: auto; image-rendering: pixelated; border: 1px solid var(--line); }
.worst { width: 108px; font-size: 0.8rem; line-height: 1.3; } .worst figcaption span { display: block; }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px; margin: 0 0.35em 0 0.5em; }
.legend { font-size: 0.9rem; } .legend .swatch:first-child { margin-left: 0; }
.rank { display: flex; flex-wrap: wrap; align-items: center; gap: 0 0.6rem; margin: 0.15rem 0; font-size: 0.85rem; }
.rank .label { flex: 0 1 13rem; min-width: 8rem; } .rank .bar { flex: 1 1 14rem; display: flex; height: 1.05em; }
.rank .bar span { display: block; height: 100%; } .rank .total { flex: 0 0 4.2rem; text-align: right; }
.rank.slow .label { color: var(--warn); font-weight: 700; }
"""
PAGE = Page("report", _STYLE)


def html_of(runs: Sequence[RunRecord], tested: Sequence[Tested | str]) -> str:
    """The whole page; ``tested`` has, for each run, its test rows or why there are none."""
    return PAGE.html(
        title_of(runs),
        heading(runs),
        results(runs),
        curves(runs),
        classes(runs),
        _rows(runs, tested),
        time_and_memory(runs),
        configurations(runs),
        versions(runs),
    )


def _rows(runs: Sequence[RunRecord], tested: Sequence[Tested | str]) -> Markup:
    parts: list[Markup] = []
    for run, found in zip(runs, tested, strict=True):
        parts += [element("h3", run.name)] if len(runs) > 1 else []
        parts.append(paragraph(found) if isinstance(found, str) else rows_of(found))
    return section("Single test rows", joined(parts))
