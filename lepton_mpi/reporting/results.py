"""What came out: a sentence for each run, figures side by side, curves over the epochs."""

from __future__ import annotations

from collections.abc import Sequence

from lepton_mpi.markup.elements import (
    Markup,
    element,
    joined,
    paragraph,
    row_of,
    section,
    shown,
    table,
)
from lepton_mpi.reporting import charts
from lepton_mpi.reporting.charts import COLOURS, Line
from lepton_mpi.reporting.metrics import RunRecord, listed, mapping, number
from lepton_mpi.wording import grouped

_CURVES_MAX = 8
_OF_TEST = "test_"


def title_of(runs: Sequence[RunRecord]) -> str:
    """Data and model, of the first run."""
    start = runs[0].start
    data = start.get("data") or shown(runs[0].configuration.get("data"))
    model = start.get("model") or shown(runs[0].configuration.get("model"))
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"{data}: {model}{more}"


def sentence_of(run: RunRecord) -> str:
    """The result in one line."""
    ranks, hosts = (number(run.start.get(name)) for name in ("world_size", "hosts"))
    text = f"{len(run.epochs)} epoch{'s' * (len(run.epochs) != 1)}"
    if ranks is not None:
        text += f" on {ranks:g} rank{'s' * (ranks != 1)}"
    if hosts is not None and hosts > 1:
        text += f" of {hosts:g} hosts"
    figures = {name.removeprefix(_OF_TEST): value for name, value in _test_figures(run).items()}
    order = [name for name in ("accuracy", "auc", "r2", "rmse", "perplexity", "loss")]
    known = [name for name in order if name in figures] or list(figures)
    words = [f"{name} {figures[name]:.4f}" for name in known]
    if words:
        text += f"; test rows: {', '.join(words)}"
    if best := run.best():
        text += f"; best epoch {best[0]} by {best[1]}"
    seconds = number(run.end.get("seconds"))
    return text + (f"; {seconds:.4g} s in steps." if seconds is not None else ".")


def heading(runs: Sequence[RunRecord]) -> Markup:
    """Titles, sentences and notes."""
    parts: list[Markup] = [element("h1", title_of(runs))]
    for place, run in enumerate(runs):
        name = element("strong", _swatch(place) if len(runs) > 1 else "", run.name, ": ")
        parts.append(element("p", name, sentence_of(run)))
        parts += [element("p", f"{run.name}: {note}.", class_="note") for note in run.notes]
        parts += [element("p", f"{run.name}: advice: {a}.", class_="note") for a in _advice(run)]
    return joined(parts)


def _advice(run: RunRecord) -> list[str]:
    """What the run has said at its end; whoever wrote the file may have written anything."""
    found = listed(run.end.get("advice"))
    return [line for line in found if isinstance(line, str)]


def results(runs: Sequence[RunRecord]) -> Markup:
    """Figures of all runs side by side."""
    rows: dict[str, list[object]] = {}

    def put(name: str, place: int, value: object) -> None:
        rows.setdefault(name, [None] * len(runs))[place] = value

    for place, run in enumerate(runs):
        for name, value in _test_figures(run).items():
            put(name.replace("_", " "), place, value)
    for place, run in enumerate(runs):
        if best := run.best():
            put("best epoch", place, f"{best[0]} ({best[1]})")
            put("best value", place, number(run.end.get("best_value")) or _at(run, *best))
        counts = mapping(run.start.get("rows"))
        put("rows (train, validation, test)", place, _counts(counts))
        put("parameters", place, _grouped(run.start.get("parameters")))
        put("ranks", place, run.start.get("world_size"))
        put("hosts", place, run.start.get("hosts"))
        put("seconds in steps", place, number(run.end.get("seconds")))
        put("samples per second", place, _grouped(run.end.get("samples_per_second")))
        took = [s for _, s in run.curve("evaluation_seconds")]
        put("seconds of validation, an epoch", place, sum(took) / len(took) if took else None)
        put("checkpoint", place, run.end.get("checkpoint"))
        digest = run.end.get("weights_digest")
        put("weights (BLAKE2b)", place, digest)
    there = {name: values for name, values in rows.items() if any(v is not None for v in values)}
    head = ["", *(run.name for run in runs)]
    body = [[name, *map(shown, values)] for name, values in there.items()]
    return section("Results", table(head, body))


def curves(runs: Sequence[RunRecord]) -> Markup:
    """Figures over the epochs, the learning rate and the speed."""
    names = dict.fromkeys(name for run in runs for name in run.figure_names())
    drawn: list[Markup] = []
    for name in list(names)[:_CURVES_MAX]:
        lines = [line for place, run in enumerate(runs) for line in _lines(run, name, place, runs)]
        if any(line.points for line in lines):
            drawn.append(charts.lines(name.replace("_", " "), "epoch", lines, log=name == "loss"))
    for name, title in (
        ("learning_rate", "learning rate"),
        ("samples_per_second", "samples per second, training"),
    ):
        lines = [
            Line(run.curve(name), COLOURS[place % len(COLOURS)]) for place, run in enumerate(runs)
        ]
        if any(line.points for line in lines):
            drawn.append(charts.lines(title, "epoch", lines, from_0=True))
    if not drawn:
        return section("Curves", paragraph("No epoch has ended."))
    return section("Curves", _legend(runs), row_of(*drawn))


def _lines(run: RunRecord, name: str, place: int, runs: Sequence[RunRecord]) -> list[Line]:
    """Of training, and of validation with the best epoch."""
    best = run.best()
    is_alone = len(runs) == 1
    colour = COLOURS[place % len(COLOURS)]
    marked = float(best[0]) if best else None
    return [
        Line(run.curve(name), colour, dashed=not is_alone),
        Line(run.curve(f"val_{name}"), COLOURS[1] if is_alone else colour, marked=marked),
    ]


def _legend(runs: Sequence[RunRecord]) -> Markup:
    if len(runs) == 1:
        parts = [_swatch(0), "training ", _swatch(1), "validation; the circle is the best epoch"]
        return element("p", *parts, class_="legend")
    names = [part for place, run in enumerate(runs) for part in (_swatch(place), f"{run.name} ")]
    about = "– training is dashed, validation is solid; circles are the best epochs"
    return element("p", *names, about, class_="legend")


def _swatch(place: int) -> Markup:
    colour = COLOURS[place % len(COLOURS)]
    return element("span", class_="swatch", style=f"background:{colour}")


def _test_figures(run: RunRecord) -> dict[str, float]:
    """Single numbers on the test rows."""
    pairs = ((name, number(value)) for name, value in run.end.items())
    return {n: v for n, v in pairs if n.startswith(_OF_TEST) and v is not None}


def _at(run: RunRecord, epoch: int, name: str) -> float | None:
    return dict(run.curve(name)).get(float(epoch))


def _counts(counts: dict[str, object]) -> str | None:
    found = [number(counts.get(name)) for name in ("train", "validation", "test")]
    return ", ".join(grouped(n) if n is not None else "–" for n in found) if counts else None


def _grouped(value: object) -> str | None:
    found = number(value)
    return None if found is None else grouped(found)
