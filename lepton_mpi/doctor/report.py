"""Findings as lines for people, and as JSON."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lepton_mpi.doctor.finding import Finding, Level, plural
from lepton_mpi.doctor.job import JobFacts
from lepton_mpi.wording import printable

_WIDTH_MIN, _WIDTH_MAX = 60, 100
_LEVEL_WIDTH, _CHECK_WIDTH = 6, 15
_ARROW = "-> "


def exit_code(findings: Sequence[Finding]) -> int:
    """1 if there is a fault."""
    return int(any(each.level is Level.FAULT for each in findings))


def width() -> int:
    """Columns to fill: those of the terminal, within reason."""
    return min(_WIDTH_MAX, max(_WIDTH_MIN, shutil.get_terminal_size((80, 24)).columns))


def text(findings: Sequence[Finding], columns: int) -> str:
    """A paragraph for each finding, commands on lines of their own that are never broken, and a last line with the counts."""
    indent = " " * (_LEVEL_WIDTH + _CHECK_WIDTH)
    lines = []
    for each in findings:
        head = f"{each.level:<{_LEVEL_WIDTH}}{each.check:<{_CHECK_WIDTH}}"
        lines += textwrap.wrap(
            printable(_sentence(each)),
            columns,
            initial_indent=head,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
        lines += [f"{indent}{_ARROW}{remedy}" for remedy in each.remedies]
    return "\n".join([*lines, _summary(findings)])


def _sentence(each: Finding) -> str:
    if not each.hosts:
        return each.text
    if each.level is Level.OK:
        more = len(each.hosts) - 1
        others = f"; ok on {plural(more, 'other host')}" if more else ""
        return f"{each.hosts[0]}: {each.text}{others}"
    return f"{', '.join(each.hosts)}: {each.text}"


def _summary(findings: Sequence[Finding]) -> str:
    counts = Counter(each.level for each in findings)
    faults = [each.check for each in findings if each.level is Level.FAULT]
    rest = f"{plural(counts[Level.NOTE], 'note')}, {counts[Level.OK]} ok"
    if not faults:
        return f"no faults, {rest}"
    return f"{plural(len(faults), 'fault')} ({', '.join(dict.fromkeys(faults))}), {rest}"


def as_json(job: JobFacts, findings: Sequence[Finding]) -> str:
    """Findings, and the facts that they follow from."""
    facts: dict[str, Any] = asdict(job)
    return json.dumps(
        {
            "exit_code": exit_code(findings),
            "findings": [asdict(each) for each in findings],
            "facts": facts,
        },
        indent=1,
        ensure_ascii=False,
    )
