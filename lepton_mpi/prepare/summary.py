"""What ``prepare`` did, as facts that go into the file and as the table made of them, here and by ``inspect``."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_mpi.data.files.file_format import SPLITS
from lepton_mpi.prepare.known_categories import unknown_facts
from lepton_mpi.prepare.odd_columns import odd_columns, warnings_of
from lepton_mpi.wording import grouped

if TYPE_CHECKING:
    from lepton_mpi.prepare.last_pass import Plan
    from lepton_mpi.prepare.normalisation import Normalisation
    from lepton_mpi.prepare.statistics import Moments

# More columns or classes than this are not printed one a line.
SHOWN = 40
# A column's deviation should be so many steps of float32 at its mean.
_STEPS_MIN = 16
# Options that say where, not what; the file has none of them.
_NOT_STORED = {
    "like",
    "inputs",
    "output",
    "force",
    "dry_run",
    "memory",
    "timeout",
    "may_lack_labels",
    "from_like",
}


def facts_of(
    plan: "Plan",
    raw: "Moments | None",
    moments: "Moments",
    normaliser: "Normalisation",
    changed: np.ndarray,
    version: str,
) -> dict[str, Any]:
    """Everything that the report says, as JSON can hold it. Paths are left out, so that moved inputs make the same file."""
    options = dataclasses.asdict(plan.options)
    return {
        "made_by": f"lepton_mpi {version}",
        "sources": [list(source) for source in plan.found.sources],
        "format": plan.source.format,
        "notes": [*plan.source.notes, *plan.found.notes],
        "options": {name: value for name, value in options.items() if name not in _NOT_STORED},
        "like": plan.options.like is not None,
        "task": "classification" if plan.labels.class_names else "regression",
        **({} if plan.labels.are_there else {"unlabelled": True}),
        "label": plan.source.label,
        "row_shape": list(plan.row_shape),
        "dtype": str(plan.dtype),
        "inputs": _inputs(plan),
        "rows_read": plan.found.row_count,
        "dropped": plan.chosen.dropped,
        "duplicates": plan.chosen.duplicates,
        "leaked": plan.chosen.leaked,
        **unknown_facts(plan.source.columns, plan.found.unknown),
        "missing_cells": int(plan.found.missing_cells.sum()),
        "filled_cells": int(changed[0].sum()),
        "clipped_cells": int(changed[1].sum()),
        "repeated": int(np.maximum(plan.chosen.repeats - 1, 0).sum()),
        "splits": plan.chosen.counts(),
        "how_split": plan.chosen.how_split,
        "classes": _classes(plan),
        "targets": _targets(plan),
        "columns": _columns(plan, raw, changed),
        **({} if plan.options.like else odd_columns(plan.source, plan.found, plan.labels)),
        "units": _units(moments),
        "constant_units": int(moments.is_constant.sum()),
        "normalisation": {"method": normaliser.method, "per": normaliser.per},
        "too_fine": _too_fine(plan, moments, normaliser),
    }


def _inputs(plan: "Plan") -> dict[str, dict[str, Any]]:
    """Inputs beside x, by name: of categories the values of each."""
    return {"categories": {"values": plan.values}} if plan.values else {}


def _classes(plan: "Plan") -> list[dict[str, Any]]:
    """Name and rows of each class, by split."""
    if plan.labels.codes is None:
        return []
    counts = []
    for number in range(len(SPLITS)):
        rows = plan.chosen.splits == number
        weights = plan.chosen.repeats[rows]
        counts.append(np.bincount(plan.labels.codes[rows], weights, len(plan.labels.class_names)))
    by_class = zip(
        plan.labels.class_names, *(count.astype(int).tolist() for count in counts), strict=True
    )
    return [{"name": name, "rows": list(rows)} for name, *rows in by_class]


def _too_fine(plan: "Plan", moments: "Moments", normaliser: "Normalisation") -> list[str]:
    """Columns that float32, in which training reads them, rounds to a few values: no shift is taken off them before."""
    if "about/columns" not in plan.texts or normaliser.per != "feature":
        return []
    with np.errstate(over="ignore", invalid="ignore"):
        step = np.spacing(np.abs(moments.mean - normaliser.shift).astype(np.float32))
    narrow = (moments.std < _STEPS_MIN * step) & ~moments.is_constant
    return [
        name
        for name, is_narrow in zip(plan.texts["about/columns"], narrow, strict=True)
        if is_narrow
    ]


def _targets(plan: "Plan") -> list[dict[str, Any]]:
    """Range, mean and deviation of each target in the training rows, and how it is scaled for training."""
    targets, scale = plan.labels.targets, plan.target_scale
    if targets is None:
        return []
    is_used = plan.chosen.splits == 0 if plan.options.like is None else plan.chosen.splits >= 0
    train = targets[is_used]
    with np.errstate(over="ignore", invalid="ignore"):
        figures = {
            name: getattr(train, name)(axis=0).tolist() for name in ("min", "max", "mean", "std")
        }
    how = "log" if scale.log.any() else "none" if scale.is_identity else "standard"
    return [
        {"scale": how, **{name: values[i] for name, values in figures.items()}}
        for i in range(train.shape[1])
    ]


def _columns(plan: "Plan", raw: "Moments | None", changed: np.ndarray) -> list[dict[str, Any]]:
    """Of a table: every feature that was read, in order, dropped ones too."""
    columns = []
    widths = plan.fitted.widths(len(plan.source.columns))
    for feature, name in enumerate(plan.source.columns):
        dropped = plan.fitted.kept is not None and not plan.fitted.kept[feature]
        columns.append(
            {
                "name": name,
                "kind": "category" if feature in plan.fitted.categories else "number",
                "categories": len(plan.fitted.categories.get(feature, ())),
                "missing": int(plan.found.missing_cells[feature]),
                "filled": int(changed[0, feature]),
                "clipped": int(changed[1, feature]),
                "constant": bool(raw.is_constant[feature]),
                "dropped": bool(dropped),
                "stored": int(widths[feature]),
            }
        )
    return columns


def _units(moments: "Moments") -> dict[str, list[float]]:
    """Range, mean and standard deviation of the training rows as stored; only as many as are printed."""
    if len(moments.mean) > SHOWN:
        return {}
    return {
        name: [float(value) for value in getattr(moments, name)]
        for name in ("minimum", "maximum", "mean", "std")
    }


def line(title: str, text: str) -> str:
    """One line of the report."""
    return f"{title:<10} {text}"


def text(facts: dict[str, Any]) -> str:
    """The table, made of the facts alone."""
    if facts["task"] == "language":
        return "\n".join(_stream_lines(facts))
    lines = [*_source_lines(facts), *_row_lines(facts), *_class_lines(facts), *_column_lines(facts)]
    normalisation = facts["normalisation"]
    how = f"{normalisation['method']} per {normalisation['per']}"
    fixed = normalisation["method"] in ("pixels", "none")
    rows = grouped(facts["splits"]["train"])
    fitted = "as in the file of --like" if facts.get("like") else f"fitted on {rows} training rows"
    lines.append(line("normalise", how if fixed else f"{how}, {fitted}"))
    return "\n".join(lines)


def _stream_lines(facts: dict[str, Any]) -> list[str]:
    """Of a text in one piece."""
    shown, kind = facts["sources"][:SHOWN], facts["options"]["tokens"]
    kind = "tokens" if kind == "bpe" else kind
    lines = [
        line("source", f"{name}: {grouped(count)} {kind}" + (f" of {split}" if split else ""))
        for name, split, count in shown
    ]
    if len(shown) < len(facts["sources"]):
        lines.append(line("", f"and {len(facts['sources']) - len(shown)} more"))
    what = f"{facts['values']} different {kind}{_of_pairs(facts)}, stored as {facts['dtype']}"
    rows = f"rows of {facts['options']['context']}, unless training asks for others"
    told = "; ".join([f"text in one piece, {what}", rows, *facts.get("notes", ())])
    lines.append(line("format", told))
    counts = ", ".join(f"{grouped(count)} {name}" for name, count in facts["splits"].items())
    lines.append(line("splits", f"{counts}; divided in the order of the text"))
    if documents := facts.get("documents"):
        counts = ", ".join(f"{grouped(count)} {name}" for name, count in documents.items())
        lines.append(line("documents", counts))
    return lines


def _of_pairs(facts: dict[str, Any]) -> str:
    """What else is said of the tokens, if they are BPE."""
    if facts["options"]["tokens"] != "bpe":
        return ""
    told = f" {facts['tokenizer']}" if facts["tokenizer"] else ""
    each = facts["bytes"] / max(1, sum(facts["splits"].values()))
    return f" of byte-level BPE{told}, {each:.2f} bytes each on average"


def _source_lines(facts: dict[str, Any]) -> list[str]:
    shown = facts["sources"][:SHOWN]
    lines = [
        line("source", f"{name}: {grouped(rows)} rows" + (f" of {split}" if split else ""))
        for name, split, rows in shown
    ]
    if len(shown) < len(facts["sources"]):
        lines.append(line("", f"and {len(facts['sources']) - len(shown)} more"))
    shape = "x".join(map(str, facts["row_shape"]))
    what = f"{facts['format']}, rows of shape {shape}, stored as {facts['dtype']}"
    if apart := _apart(facts):
        numbers = f"{shape} numbers, stored as {facts['dtype']}, and " if shape != "0" else ""
        what = (
            f"{facts['format']}, rows of {numbers}{len(apart)} categories in an input of their own"
        )
    return [*lines, line("format", "; ".join([what, *facts["notes"]]))]


def _row_lines(facts: dict[str, Any]) -> list[str]:
    kept = facts["rows_read"] - sum(facts["dropped"].values())
    lines = [line("rows", f"{grouped(facts['rows_read'])} read, {grouped(kept)} kept")]
    lines += [
        line("", f"{grouped(count)} dropped: {why}") for why, count in facts["dropped"].items()
    ]
    if facts["duplicates"] and "duplicates" not in facts["dropped"]:
        lines.append(
            line(
                "", f"{_rows(facts['duplicates'], 'duplicate')} kept; --drop-duplicates drops them"
            )
        )
    if facts["repeated"]:
        lines.append(
            line(
                "",
                f"{grouped(facts['repeated'])} training rows repeated for balance; all statistics count them",
            )
        )
    if facts["missing_cells"]:
        lines.append(
            line(
                "cells",
                f"{grouped(facts['missing_cells'])} missing, {grouped(facts['filled_cells'])} filled",
            )
        )
    lines += [line("unknown", note) for note in facts.get("unknown", ())]
    if facts["clipped_cells"]:
        lines.append(line("cells", f"{grouped(facts['clipped_cells'])} clipped"))
    counts = ", ".join(f"{grouped(count)} {name}" for name, count in facts["splits"].items())
    lines.append(line("splits", f"{counts}; {facts['how_split'] or 'all in training'}"))
    if facts["leaked"]:
        lines.append(
            line(
                "",
                f"warning: {_rows(facts['leaked'])} of validation and test that also stand in training",
            )
        )
    return lines


def _rows(count: int, kind: str = "row") -> str:
    plural = "es" if kind.endswith("s") else "s"
    return f"{grouped(count)} {kind}{plural * (count != 1)}"


def _class_lines(facts: dict[str, Any]) -> list[str]:
    classes = facts["classes"]
    if facts.get("unlabelled"):
        return [line("labels", "none: rows to be scored")]
    if not classes:
        return [line("task", f"regression on {facts['label']}"), *_target_lines(facts)]
    named = f" of {facts['label']}" if facts["columns"] else ""
    lines = [line("classes", f"{len(classes)}{named}, rows by train, validation, test:")]
    lines += [
        line("", f"{c['name']:<20} {'  '.join(grouped(n) for n in c['rows'])}")
        for c in classes[:SHOWN]
    ]
    unseen = [c["name"] for c in classes if not c["rows"][0] and not facts.get("like")]
    if unseen:
        names = ", ".join(unseen[:SHOWN])
        lines.append(line("", f"warning: {len(unseen)} without training rows: {names}"))
    for place, split in enumerate(SPLITS[1:], start=1):
        without = [c["name"] for c in classes if c["rows"][0] and not c["rows"][place]]
        if without and facts["splits"][split]:
            lines.append(
                line("", f"{_rows(len(without), 'class')} without {split} rows: {_names(without)}")
            )
    if len(classes) > SHOWN:
        lines.append(line("", f"and {len(classes) - SHOWN} more"))
    return lines


def _target_lines(facts: dict[str, Any]) -> list[str]:
    """Of each target; files of earlier versions say nothing of them."""
    targets = facts.get("targets", ())
    ways = {
        "standard": "trained on with mean 0 and deviation 1; figures are in the units given",
        "log": "trained on as log(1 + target) with mean 0 and deviation 1; figures are in the units given",
        "none": "trained on as they are",
    }
    lines = [
        line(
            "target", f"{t['min']:.5g} to {t['max']:.5g}, mean {t['mean']:.5g}, std {t['std']:.5g}"
        )
        for t in targets[:SHOWN]
    ]
    return [*lines, *(line("", ways[how]) for how in {t["scale"]: None for t in targets})]


def _column_lines(facts: dict[str, Any]) -> list[str]:
    columns, units = facts["columns"], facts["units"]
    lines = []
    constant = [c["name"] for c in columns if c["constant"] and not c["dropped"]]
    if constant and not facts.get("like"):
        named = f"{_names(constant)}: one value in all training rows, kept; --constant-columns drop"
        lines.append(line("constant", named))
    elif facts["constant_units"] and not facts.get("like"):
        what = f"{facts['constant_units']} of {facts['normalisation']['per']} statistics"
        lines.append(line("constant", f"{what} have one value in all training rows; kept"))
    if too_fine := facts.get("too_fine"):
        lines.append(
            line(
                "",
                f"warning: {_names(too_fine)} differ by less than float32 tells at their size; --normalise standard shifts "
                "them first, --dtype float64 of training keeps their digits",
            )
        )
    lines += [line("", f"warning: {what}") for what in warnings_of(facts)]
    dropped = [column["name"] for column in columns if column["dropped"]]
    if dropped:
        lines.append(
            line("dropped", f"{len(dropped)} constant columns: {', '.join(dropped[:SHOWN])}")
        )
    if apart := _apart(facts):
        named = ", ".join(f"{column['name']} ({column['categories']})" for column in apart[:SHOWN])
        more = f" and {len(apart) - SHOWN} more" if len(apart) > SHOWN else ""
        lines.append(line("categories", named + more))
    if not units or not units["mean"]:
        return lines
    lines.append(
        line("columns", f"{'':<20} {'minimum':>11} {'maximum':>11} {'mean':>11} {'std':>11}")
    )
    kept = [column for column in columns if not column["dropped"]]
    if not kept:
        return lines + [
            line("", f"{f'channel {i}':<20} {_figures(units, i)}")
            for i in range(len(units["mean"]))
        ]
    place = 0
    for column in kept:
        stored = column.get("stored", 1)
        figures = _figures(units, place) if stored == 1 else f"{'':<47}"
        lines.append(line("", f"{column['name'][:20]:<20} {figures}{_remarks(column)}"))
        place += stored
    return lines


def _figures(units: dict[str, list[float]], place: int) -> str:
    return " ".join(f"{units[k][place]:>11.5g}" for k in ("minimum", "maximum", "mean", "std"))


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def _apart(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Columns that are in the input of categories; reports of earlier versions have none."""
    if not facts.get("inputs"):
        return []
    return [c for c in facts["columns"] if c["kind"] == "category" and not c["dropped"]]


def _remarks(column: dict[str, Any]) -> str:
    one_hot = ", one-hot" if column.get("stored", 1) > 1 else ""
    remarks = (
        [f"{column['categories']} categories{one_hot}"] if column["kind"] == "category" else []
    )
    remarks += [
        f"{column[what]} {what}" for what in ("missing", "filled", "clipped") if column[what]
    ]
    remarks += ["constant"] if column["constant"] else []
    return "  " + ", ".join(remarks) if remarks else ""
