"""A trace as text: every step, what each rank holds after it, and what it all costs. Pure."""

from collections.abc import Callable, Sequence
from math import ceil

from lepton_mpi.chunks import chunk_bounds
from lepton_mpi.collectives.explaining.cost import cost, elements_sent_max, lower_bound
from lepton_mpi.collectives.explaining.trace import Sum, Trace, TracedStep
from lepton_mpi.collectives.schedules.schedule import (
    SUMS,
    Action,
    Algorithm,
    Collective,
    Receive,
    Step,
)

_COLUMNS = 120
# Up to so many ranks the chunks of all ranks are added up one by one, in less than 0.1 s.
_COUNTED_EXACTLY = 64
# Of a long list of steps the first and the last few.
_FIRST, _LAST = 8, 3
_ACTIONS = {
    Action.ADD: ("add", "adds"),
    Action.COPY: ("copy", "copies"),
    Action.HOLD: ("keep", "keeps"),
}
_PROMISES = {
    Collective.ALLREDUCE: "every rank has every contribution to every chunk once, added in the same order everywhere",
    Collective.REDUCE_SCATTER: "every rank has every contribution once in the chunks that it owns",
    Collective.ALLGATHER: "every rank has the chunks of every rank",
    Collective.BROADCAST: "every rank has the chunks of rank 0",
    Collective.REDUCE: "rank 0 has every contribution to every chunk once",
    Collective.GATHER: "rank 0 has the chunks of every rank",
    Collective.SCATTER: "every rank has the chunks of rank 0 that it owns",
    Collective.ALLTOALL: "every rank has its chunk of every rank",
    Collective.BARRIER: "every rank has heard of every rank",
}


def chunk_letters(chunk_count: int) -> list[str]:
    """Names of chunks: a to z, and numbers with a c before them if there are more.

    >>> chunk_letters(3), chunk_letters(30)[29]
    (['a', 'b', 'c'], 'c29.')
    """
    if chunk_count > 26:
        return [f"c{chunk}." for chunk in range(chunk_count)]
    return [chr(ord("a") + chunk) for chunk in range(chunk_count)]


def chunks_text(start: int, stop: int, letters: Sequence[str]) -> str:
    """Chunks [start, stop) in letters: ``a``, ``ab``, ``a-d``."""
    if stop - start <= 2 and len(letters[start]) <= 1:
        return "".join(letters[start:stop])
    first, last = letters[start].rstrip("."), letters[stop - 1].rstrip(".")
    return first if first == last else f"{first}-{last}"


def head(algorithm: Algorithm, world_size: int, count: int | None) -> str:
    """What is shown, and where the chunks of a vector of ``count`` elements lie."""
    title = f"{algorithm.name}, {algorithm.collective.value}, {_many(world_size, 'rank')}"
    if algorithm.collective is Collective.BARRIER:
        return title
    chunk_count, last = algorithm.chunk_count(world_size), world_size - 1
    letters = chunk_letters(chunk_count)
    lines = [title, f"The vector has {_many(chunk_count, 'chunk')}."]
    if chunk_count <= 26:
        lines[-1] = (
            f"The vector has {_many(chunk_count, 'chunk')}: {' '.join(letters)}; a{last} is chunk a of rank {last}."
        )
    if count is not None and chunk_count <= 26:
        bounds = chunk_bounds(count, chunk_count)
        cuts = [f"{letters[c]} [{bounds[c]}, {bounds[c + 1]})" for c in range(chunk_count)]
        lines += _wrapped("Elements: ", cuts)
    return "\n".join(lines)


def all_steps(trace: Trace) -> list[str]:
    """One paragraph for the start and for each step; values that are new stand in brackets."""
    letters = chunk_letters(trace.chunk_count)
    if trace.algorithm.collective is Collective.BARRIER:
        letters = [""]
        tables, legend = [_hearsay(step) for step in trace.steps], "every rank knows of itself"
    else:
        tables, legend = _tables(trace, letters)
    paragraphs = []
    for number, (step, table) in enumerate(zip(trace.steps, tables, strict=True)):
        title = f"step {number} of {len(trace.steps) - 1}" if number else f"at the start ({legend})"
        paragraphs.append("\n".join([title, *_moves(step, letters), *table]))
    return paragraphs


def _tables(trace: Trace, letters: Sequence[str]) -> tuple[list[list[str]], str]:
    """What each rank holds: formulas if they fit everywhere, else who has contributed, else how many."""
    for cell, legend in _CELLS.items():
        tables = [_table(step, letters, cell) for step in trace.steps]
        if max(len(line) for table in tables for line in table) <= _COLUMNS:
            return tables, legend
    if trace.algorithm.collective not in SUMS:
        return [_holdings(step, letters) for step in trace.steps], "what a rank has, [new]"
    heading = "  chunks   " + "  ".join(f"{letter:<4}" for letter in letters).rstrip()
    tables = [[heading, *_table(step, letters, _contributor_count, 5)] for step in trace.steps]
    return tables, "3 is a sum of three contributions, [new], +2 kept for later"


def _moves(step: TracedStep, letters: Sequence[str]) -> list[str]:
    """``source --chunks--> dest``, by what the receiver does with it."""
    lines = []
    for action, (word, _) in _ACTIONS.items():
        moves = [
            f"{receive.source} --{_link(receive, letters)}> {rank}"
            for rank, receive in sorted(step.moves, key=lambda move: move[1].source)
            if receive.action is action
        ]
        if moves:
            lines += _wrapped(f"  {word:<7} " if any(letters) else "  tell    ", moves)
    return lines


def _link(receive: Receive, letters: Sequence[str]) -> str:
    return f"{chunks_text(receive.start, receive.stop, letters)}--" if any(letters) else ""


def _table(
    step: TracedStep,
    letters: Sequence[str],
    cell: Callable[[Sum, list[Sum], str], str],
    width_min: int = 0,
) -> list[str]:
    """What each rank holds of each chunk, one line a rank."""
    rows = []
    for rank, values in enumerate(step.values):
        row = []
        for chunk, (letter, value) in enumerate(zip(letters, values, strict=True)):
            kept = [held for _, held in sorted(step.held.get((rank, chunk), {}).items())]
            shown = cell(value, kept, letter) if value is not None else "-"
            row.append(f"[{shown}]" if (rank, chunk) in step.changed else f" {shown} ")
        rows.append(row)
    widths = [max(width_min, *map(len, column)) for column in zip(*rows, strict=True)]
    lines = (" ".join(map(str.ljust, row, widths)) for row in rows)
    return [f"  rank {rank:<3} {line}".rstrip() for rank, line in enumerate(lines)]


def _formula(value: Sum, kept: list[Sum], letter: str) -> str:
    return " ".join(
        [value.text(letter)] + ["|"] * bool(kept) + [held.text(letter) for held in kept]
    )


def _contributors(value: Sum, kept: list[Sum], letter: str) -> str:
    return " ".join(
        [value.short_text(letter)] + ["|"] * bool(kept) + [held.short_text(letter) for held in kept]
    )


def _contributor_count(value: Sum, kept: list[Sum], letter: str) -> str:
    return f"{len(value.ranks)}" + (f"+{len(kept)}" if kept else "")


_CELLS = {
    _formula: "[new], | kept for later",
    _contributors: "a0-2 is a0+a1+a2 in some order, [new], | kept for later",
}


def _holdings(step: TracedStep, letters: Sequence[str]) -> list[str]:
    """Where contributions are not added: the chunks that each rank has, without those that it lacks."""
    lines = []
    for rank, values in enumerate(step.values):
        shown = [
            f"[{letter}]" if (rank, chunk) in step.changed else letter
            for chunk, (letter, value) in enumerate(zip(letters, values, strict=True))
            if value is not None
        ]
        lines.append(f"  rank {rank:<3}  {' '.join(shown)}")
    return lines


def _hearsay(step: TracedStep) -> list[str]:
    """In a barrier: of whom each rank has heard."""
    return [
        f"  rank {rank:<3} has heard of {' '.join(map(str, sorted(s)))}"
        for rank, s in enumerate(step.heard_of)
    ]


def steps_of_rank_0(algorithm: Algorithm, world_size: int) -> str:
    """For many ranks: what one of them does, without the middle of a long story."""
    steps = algorithm.steps(world_size, 0)
    left_out = len(steps) - _FIRST - _LAST
    lines = ["what rank 0 does"]
    for number, step in enumerate(steps, 1):
        if left_out <= 1 or number <= _FIRST or number > len(steps) - _LAST:
            lines.append(f"  step {number:<5} {_actions(step)}")
        elif number == _FIRST + 1:
            lines.append(f"  … {left_out} more …")
    return "\n".join(lines)


def _actions(step: Step) -> str:
    parts = _grouped("to", [(s.start, s.stop, "sends", s.dest) for s in step.sends])
    parts += _grouped(
        "of", [(r.start, r.stop, _ACTIONS[r.action][1], r.source) for r in step.receives]
    )
    parts += [f"adds all it kept of {_chunks(f.start, f.stop)}" for f in step.folds]
    return "; ".join(parts) or "nothing"


def _grouped(preposition: str, moves: Sequence[tuple[int, int, str, int]]) -> list[str]:
    """One part of a sentence for each other rank and for what is done, however many ranges of chunks there are."""
    parts, groups = [], dict.fromkeys(move[2:] for move in moves)
    for verb, rank in groups:
        ranges = [move[:2] for move in moves if move[2:] == (verb, rank)]
        words = " and ".join(_chunks(*bounds) for bounds in ranges)
        if len(ranges) > 2:
            count = sum(stop - start for start, stop in ranges)
            words = f"{count} chunks from {min(ranges)[0]} to {max(ranges)[1] - 1}"
        parts.append(f"{verb} {words} {preposition} rank {rank}")
    return parts


def _chunks(start: int, stop: int) -> str:
    return f"chunk {start}" if stop - start == 1 else f"chunks {start}-{stop - 1}"


def end(trace: Trace) -> str:
    """What has been checked, and in which order the contributions were added."""
    lines = [f"In the end {_PROMISES[trace.algorithm.collective]}: checked."]
    value = trace.steps[-1].values[0][0]
    is_whole = trace.algorithm.collective in (Collective.ALLREDUCE, Collective.REDUCE)
    if is_whole and len(value.text("a")) <= _COLUMNS:
        lines.append(f"Order of additions in chunk a: {value.text('a')}")
    return "\n".join(lines)


def costs(algorithm: Algorithm, world_size: int, count: int | None) -> str:
    """Steps and volumes beside their lower bounds; with ``count`` also elements, and bytes of float32."""
    found, least = cost(algorithm, world_size), lower_bound(algorithm.collective, world_size)
    rows = [("", "here", "at least"), ("steps", str(found.steps), str(least.steps))]
    if algorithm.collective is not Collective.BARRIER:
        for part in ("sent", "received", "added"):
            here, bound = (f"{float(getattr(side, part)):.4g} N" for side in (found, least))
            rows.append((f"{part} by the busiest rank", here, bound))
        if count is not None:
            bound, here = ceil(least.sent * count), round(found.sent * count)
            if world_size <= _COUNTED_EXACTLY:
                here = elements_sent_max(algorithm, world_size, count)
            rows.append((f"elements sent, N = {count}", f"{here}", f"{bound}"))
            rows.append(("bytes sent, float32", f"{4 * here}", f"{4 * bound}"))
    return "\n".join(f"{name:<28} {here:>14} {bound:>14}" for name, here, bound in rows)


def comparison(algorithms: Sequence[Algorithm], world_size: int) -> str:
    """The costs of several algorithms of one collective side by side."""
    collective = algorithms[0].collective
    rows = [(algorithm.name, cost(algorithm, world_size)) for algorithm in algorithms]
    rows.append(("at least", lower_bound(collective, world_size)))
    lines = [
        f"{collective.value}, {_many(world_size, 'rank')}: steps, and volumes of the busiest rank"
    ]
    lines.append(f"{'algorithm':<20} {'steps':>6} {'sent':>10} {'received':>10} {'added':>10}")
    for name, found in rows:
        volumes = (
            f"{f'{float(part):.4g} N':>10}" for part in (found.sent, found.received, found.added)
        )
        lines.append(f"{name:<20} {found.steps:>6} {' '.join(volumes)}")
    return "\n".join(lines)


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def _wrapped(start: str, words: Sequence[str]) -> list[str]:
    """``start`` and the words, on lines of at most ``_COLUMNS``, continued under the first word."""
    lines, line = [], start
    for word in words:
        if len(line) + len(word) > _COLUMNS and line.strip():
            lines.append(line.rstrip())
            line = " " * len(start)
        line += word + "   "
    return [*lines, line.rstrip()]
