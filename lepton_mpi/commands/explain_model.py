"""``python -m lepton_mpi explain-model CHECKPOINT``: what a trained model goes by, as one HTML file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lepton_mpi.commands import of_checkpoint
from lepton_mpi.commands.command import command
from lepton_mpi.errors import DataError
from lepton_mpi.options.kinds import OneOf, PathText, Read, Several, Text
from lepton_mpi.options.option import (
    ABOVE_0,
    WHOLE_FROM_0,
    WHOLE_FROM_1,
    Check,
    Checked,
    option,
)
from lepton_mpi.wording import print_line, size_text

if TYPE_CHECKING:
    from lepton_mpi.interpretation.explanation import How, Method
    from lepton_mpi.interpretation.page import Section
    from lepton_mpi.run.trained import Trained
    from lepton_mpi.world.world import World

_METHODS = ("saliency", "integrated", "grad-cam", "attention", "importance")
# Each is a picture.
_ROWS_MAX = 64
_ROWS: Check = (
    f"rows such as 0:8, 1 to {_ROWS_MAX} of them",
    lambda rows: 0 < rows[1] - rows[0] <= _ROWS_MAX,
)
# Lines of the ranked table that are printed; the page has all.
_PRINTED = 20


def _rows(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    if not found:
        raise ValueError
    start = int(found[1])
    return start, int(found[2]) if found[2] else start + 1


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is explained, and how."""

    checkpoint: str = of_checkpoint.checkpoint_position()
    out: str = option("explained.html", "the page to write", kind=PathText("FILE"))
    png: str | None = option(
        None, "folder for the pictures as files, too", kind=PathText("FOLDER", "a folder")
    )
    data: str | None = option(
        None,
        "HDF5 file or embedded set; none: what the checkpoint was trained on",
        kind=PathText("FILE"),
    )
    split: Literal["train", "validation", "test"] = option("test", "which rows")
    rows: tuple[int, int] = option(
        (0, 8),
        "which of them, by number",
        _ROWS,
        kind=Read("A:B", "rows such as 0:8", _rows, _is_pair, lambda v: f"{v[0]}:{v[1]}"),
    )
    method: tuple[str, ...] = option(
        (),
        "methods; none: all that apply to the model, but importance",
        kind=Several.of(OneOf.of(*_METHODS)),
    )
    target: str | None = option(
        None,
        "class, target or token whose score is explained; none: what the model predicts, of several targets the first",
        kind=Text("NAME"),
    )
    steps: int | None = option(
        None,
        "points of the path of integrated gradients; none: 32, doubled up to 1024 until --tolerance is met",
        WHOLE_FROM_1,
    )
    baseline: Literal["zero", "mean", "raw"] = option(
        "zero",
        "where the path begins: zero is 0 after normalisation, the mean of the training rows where prepare has standardised; mean is "
        "that of the rows of the split; raw is 0 in the file, such as black. Codes begin with a vector of zeros or, with mean, "
        "the mean of their table",
    )
    tolerance: float = option(
        0.01,
        "share of the sizes of a row's attributions by which their sum may be off before it is said",
        ABOVE_0,
    )
    layer: str | None = option(
        None,
        "layer of Grad-CAM; none: the last before the pooling behind the convolutions",
        kind=Text("NAME"),
    )
    tokens: int = option(32, "of a text: tokens of a row that are looked at", WHOLE_FROM_1)
    prompt: str | None = option(
        None, "text to explain instead of rows, for a model of texts", kind=Text("TEXT")
    )
    importance: bool = option(False, "permutation importance of columns, too")
    repeats: int = option(5, "permutations of each column", WHOLE_FROM_1)
    seed: int = option(0, "of the permutations", WHOLE_FROM_0)
    score: str | None = option(
        None,
        "figure whose drop is the importance, such as auc or loss; none: accuracy, r2 or loss",
        kind=Text("NAME"),
    )
    model: str | None = of_checkpoint.own_model_option()
    timeout: float = of_checkpoint.timeout_option()


def _run(chosen: Options) -> int:
    return of_checkpoint.on_ranks(lambda ranks: explain(chosen, ranks), chosen.timeout)


def explain(chosen: Options, world: World) -> None:
    """Carry out the methods, write the page and say what was found. Collective."""
    from lepton_mpi.interpretation import columns, explanation, importance, page, pictures
    from lepton_mpi.run import trained

    with world.agreeing():
        if world.rank == 0:
            page.PAGE.check_target(Path(chosen.out))
    found = trained.load_trained(Path(chosen.checkpoint), chosen.data, world, chosen.model)
    sections: list[Section] = []
    with world.agreeing():
        if world.rank == 0:
            pictures.load()  # behind what was asked for: a wrong path is nearer than a library
        methods = explanation.choose(found, chosen.method, chosen.importance)
        if world.rank == 0:
            print_line(f"model      {found.model}, {', '.join(methods)}")
            sections += _of_rows(chosen, found, methods, world)
    if "importance" in methods:
        rows = found.data.splits[chosen.split]
        with world.agreeing():
            if not rows.row_count:
                raise DataError(f"{found.data.paths[0]}: no {chosen.split} rows; --split chooses")
            known = columns.columns_of(found.data)
        how = chosen.score, chosen.repeats, chosen.seed
        measured = importance.measure(found, rows, known, world, *how)
        if world.rank == 0:
            sections.append(explanation.importance_section(measured, found.data))
    with world.agreeing():
        if world.rank == 0:
            _write(chosen, found, sections)


def _of_rows(chosen: Options, found: Trained, methods: list[Method], world: World) -> list[Section]:
    """Sections of all methods but importance. Rank 0 alone."""
    from lepton_mpi.interpretation import explanation
    from lepton_mpi.interpretation.question import Asked, ask

    if not set(methods) - {"importance"}:
        return []
    asked = Asked(chosen.split, *chosen.rows, chosen.target, chosen.tokens, chosen.prompt)
    question = ask(found, asked)
    sections = []
    if set(methods) - {"importance", "attention"}:
        how = _how(chosen, found, world)
        sections.append(explanation.explain_rows(question, methods, how))
    if "attention" in methods:
        sections.append(explanation.explain_attention(question))
    return sections


def _how(chosen: Options, found: Trained, world: World) -> How:
    from lepton_mpi.interpretation.explanation import How
    from lepton_mpi.interpretation.question import mean_rows

    means = {}
    if chosen.baseline == "mean":
        means = mean_rows(found, found.data.splits[chosen.split])
    return How(
        *(chosen.steps, chosen.baseline, chosen.tolerance, means, chosen.layer),
        progress=lambda: world.clock.enter("evaluation"),
    )


def _write(chosen: Options, found: Trained, sections: list[Section]) -> None:
    """The page, and what it says in lines. Rank 0 alone."""
    from lepton_mpi.interpretation import page
    from lepton_mpi.markup.page import write

    for section in sections:
        for line in section.lines:
            print_line(f"           {line}")
        for cells in section.table[: _PRINTED + 1]:
            print_line(f"           {cells[0][:40]:<40} {cells[1]:>18} {cells[2]:>12}")
    drawn = [picture for section in sections for picture in section.pictures]
    rows = f"{chosen.split} rows of {found.data.name}"
    if chosen.prompt is not None:
        rows = f"the text {chosen.prompt!r}"
    lines = [f"{found.model}, {rows}, checkpoint {chosen.checkpoint}"]
    text = page.html_of(f"What {found.model.name} goes by", lines, sections)
    folder = None if chosen.png is None else Path(chosen.png)
    if folder is not None:
        page.write_pictures(folder, drawn)
    write(Path(chosen.out), text)
    files = "" if folder is None else f"; {len(drawn)} files in {folder}"
    print_line(f"wrote      {chosen.out}, {len(drawn)} pictures, {size_text(len(text))}{files}")


COMMAND = command(
    "explain-model",
    "show what a trained model goes by: gradients, Grad-CAM, attention, importance of columns",
    "CHECKPOINT [options]",
    Options,
    _run,
)
