"""Where the time and the memory of every rank went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from lepton_mpi.markup.elements import (
    Markup,
    details,
    element,
    joined,
    paragraph,
    section,
    shown,
    table,
)
from lepton_mpi.reporting.charts import COLOURS
from lepton_mpi.reporting.metrics import RunRecord, listed, mapping, number
from lepton_mpi.run.per_rank import OWN_WORK
from lepton_mpi.wording import size_text

# The start is that of the job, hardly of the training: it stands in the table.
_PHASES = ("compute", "input", "communication", "waiting", "evaluation", "checkpoint")
# Of more ranks, those of the most and of the least own work.
_BARS_MAX, _SLOWEST, _FASTEST = 32, 20, 8


@dataclass(frozen=True)
class _Rank:
    name: str
    seconds: dict[str, float]
    memory: float | None
    number: int | None

    @property
    def own_work(self) -> float:
        return sum(self.seconds.get(name, 0.0) for name in OWN_WORK)


def time_and_memory(runs: Sequence[RunRecord]) -> Markup:
    """Of each run: bars, who was slow, what was hidden, memory."""
    parts = [_of_run(run, len(runs) > 1) for run in runs if run.end]
    legend = [part for i, name in enumerate(_PHASES) for part in (_swatch(i), f"{name} ")]
    return (
        section("Time and memory", element("p", *legend, class_="legend"), *parts)
        if parts
        else Markup()
    )


def _of_run(run: RunRecord, is_named: bool) -> Markup:
    ranks = [found for record in listed(run.end.get("ranks")) if (found := _rank(record))]
    slow = mapping(run.end.get("slow_rank"))
    slow_number = number(slow.get("rank")) if slow else None
    parts: list[Markup] = [element("h3", run.name)] if is_named else []
    if slow:
        parts.append(element("p", _slow_text(slow), class_="warning"))
    elif len(ranks) > 1:
        most = max(ranks, key=lambda rank: rank.own_work)
        parts.append(
            paragraph(
                f"No rank made the others wait: {most.name} had the most work of its own, {most.own_work:.3g} s of compute and input; "
                f"the median is {median(rank.own_work for rank in ranks):.3g} s."
            )
        )
    if not ranks and (shares := mapping(run.end.get("time_split"))):
        total = number(run.end.get("seconds")) or 1.0
        mean = {n: total * (number(share) or 0.0) for n, share in shares.items()}
        ranks = [_Rank("mean of all ranks", mean, None, None)]
    parts.append(_bars(ranks, slow_number))
    parts += [paragraph(line) for line in _lines(run, ranks)]
    if ranks:
        parts.append(details("Seconds of every phase", _seconds_table(ranks)))
    return joined(parts)


def _slow_text(slow: dict[str, Any]) -> str:
    seconds, others = (number(slow.get(name)) for name in ("seconds", "median_seconds"))
    text = f"The others waited for rank {shown(slow.get('rank'))}, {shown(slow.get('phase'))}: {shown(seconds)} s, the others {shown(others)} s (median)"
    batches, usual = (number(slow.get(f"{what}micro_batches")) for what in ("", "median_"))
    if batches is not None and usual is not None and batches > usual:
        text += f"; it has {batches:g} micro-batches of a step, the others {usual:g}"
    return f"{text}; host {shown(slow.get('host'))}."


def _rank(record: object) -> _Rank | None:
    found = mapping(record)
    rank, seconds = number(found.get("rank")), mapping(found.get("seconds"))
    if rank is None:
        return None
    known = {name: value for name, s in seconds.items() if (value := number(s)) is not None}
    name = f"rank {rank:g}, {shown(found.get('host'))}"
    return _Rank(name, known, number(found.get("memory_peak")), int(rank))


def _bars(ranks: Sequence[_Rank], slow: float | None) -> Markup:
    """A bar for each rank, in parts of the longest."""
    chosen, note = list(ranks), ""
    if len(ranks) > _BARS_MAX:
        order = sorted(ranks, key=lambda rank: -rank.own_work)
        chosen = order[:_SLOWEST] + order[-_FASTEST:]
        note = f"The {_SLOWEST} ranks of the most own work, and the {_FASTEST} of the least, of {len(ranks)}."
    longest = max((_total(rank) for rank in chosen), default=0.0) or 1.0
    lines = []
    for rank in chosen:
        pieces = [
            element(
                "span",
                style=f"width:{100 * rank.seconds.get(name, 0.0) / longest:.2f}%;background:{COLOURS[i]}",
                title=f"{name} {rank.seconds.get(name, 0.0):.3g} s",
            )
            for i, name in enumerate(_PHASES)
            if rank.seconds.get(name, 0.0) > 0
        ]
        is_slow = rank.number is not None and rank.number == slow
        label = element("span", rank.name, " – slowest" * is_slow, class_="label")
        bar = element("span", *pieces, class_="bar")
        total = element("span", f"{_total(rank):.3g} s", class_="total")
        class_ = "rank slow" if is_slow else "rank"
        lines.append(element("div", label, bar, total, class_=class_))
    return joined([paragraph(note) if note else "", *lines])


def _total(rank: _Rank) -> float:
    return sum(max(0.0, rank.seconds.get(name, 0.0)) for name in _PHASES)


def _lines(run: RunRecord, ranks: Sequence[_Rank]) -> list[str]:
    found = []
    if (hidden := number(run.end.get("hidden_share"))) is not None:
        found.append(f"{hidden:.0%} of the exchange between hosts was hidden behind compute.")
    if (sent := number(run.end.get("sent_bytes_per_step"))) is not None:
        ratio = number(run.end.get("compression_ratio"))
        less = f", {ratio:.3g} times less than uncompressed" if ratio is not None else ""
        found.append(f"{size_text(round(sent))} a step went between hosts{less}.")
    peaks = sorted(rank.memory for rank in ranks if rank.memory is not None)
    if peaks:
        least, middle, most = (size_text(int(p)) for p in (peaks[0], median(peaks), peaks[-1]))
        found.append(
            f"Memory of a rank at its peak, what its host shares included: {least} to {most}, median {middle}."
        )
    return found


def _seconds_table(ranks: Sequence[_Rank]) -> Markup:
    phases = list(dict.fromkeys([*_PHASES, *(name for rank in ranks for name in rank.seconds)]))
    there = [name for name in phases if any(rank.seconds.get(name) for rank in ranks)]
    rows = [
        [
            rank.name,
            *(f"{rank.seconds.get(name, 0.0):.3f}" for name in there),
            size_text(int(rank.memory)) if rank.memory is not None else "–",
        ]
        for rank in ranks
    ]
    return table(["", *there, "memory peak"], rows)


def _swatch(place: int) -> Markup:
    return element("span", class_="swatch", style=f"background:{COLOURS[place]}")
