"""Options of the runs, where they differ from each other or from the defaults, and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lepton_mpi.markup.elements import Markup, details, element, paragraph, section, shown, wide
from lepton_mpi.options.config import OPTIONS
from lepton_mpi.reporting.metrics import RunRecord, mapping


def configurations(runs: Sequence[RunRecord]) -> Markup:
    """Of several runs the differences first; of one what is not the default."""
    options = [_flat(run.configuration) for run in runs]
    names = list(dict.fromkeys(name for each in options for name in each))
    if not names:
        return Markup()
    differing = [n for n in names if len({shown(each.get(n)) for each in options}) > 1]
    chosen = differing if len(runs) > 1 else [n for n in names if not _is_default(n, options[0])]
    about = (
        "Options in which the runs differ:"
        if len(runs) > 1
        else "Options that are not at their default:"
    )
    first: list[Markup] = [paragraph(about), _table(runs, options, chosen, set())]
    if not chosen:
        first = [
            paragraph(
                "The runs have the same options."
                if len(runs) > 1
                else "All options are at their defaults."
            )
        ]
    return section(
        "Configuration", *first, details("All options", _table(runs, options, names, set(chosen)))
    )


def versions(runs: Sequence[RunRecord]) -> Markup:
    """What each run was made with."""
    known = [_versions_of(run) for run in runs]
    names = list(dict.fromkeys(name for each in known for name in each))
    differing = {n for n in names if len({shown(each.get(n)) for each in known}) > 1}
    return section("Versions", _table(runs, known, names, differing)) if names else Markup()


def _versions_of(run: RunRecord) -> Mapping[str, Any]:
    of_mpi = {"mpi": run.start["mpi"]} if "mpi" in run.start else {}
    return mapping(run.start.get("versions")) or of_mpi


def _flat(configuration: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Options of models and optimizers by names such as own.optimizer.beta_1."""
    found: dict[str, Any] = {}
    for name, value in configuration.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = value
    return found


def _is_default(name: str, options: Mapping[str, Any]) -> bool:
    if name not in OPTIONS:
        return "." in name
    default = OPTIONS[name].default
    return shown(options[name]) == shown(list(default) if isinstance(default, tuple) else default)


def _table(
    runs: Sequence[RunRecord],
    values: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    marked: set[str],
) -> Markup:
    head = element("tr", element("th", ""), *(element("th", run.name) for run in runs))
    rows = [
        element(
            "tr",
            element("th", name),
            *(element("td", shown(each.get(name))) for each in values),
            class_="differs" if name in marked else None,
        )
        for name in names
    ]
    return wide(element("table", element("thead", head), element("tbody", *rows), class_="left"))
