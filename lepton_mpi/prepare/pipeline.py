"""The command ``prepare`` on one page: open, survey, select, fit, write, say."""

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from lepton_mpi import __version__
from lepton_mpi.durable import try_writing
from lepton_mpi.errors import ConfigurationError, DataError, LauncherError, same_on_all_ranks
from lepton_mpi.prepare import normalisation, summary
from lepton_mpi.prepare.encoding import (
    Encoding,
    options_of,
    read_encoding,
    with_fills_of_flags,
)
from lepton_mpi.prepare.joining import join_labels
from lepton_mpi.prepare.labels import Labels, make_labels
from lepton_mpi.prepare.last_pass import Plan, output, write_everything_else, write_rows
from lepton_mpi.prepare.limits import check_limits
from lepton_mpi.prepare.naming import name_classes
from lepton_mpi.prepare.no_label import without_labels
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.passes import Blocks
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.opening import find_inputs, open_inputs
from lepton_mpi.prepare.selection import Selection, select
from lepton_mpi.prepare.statistics import Moments
from lepton_mpi.prepare.stream_encoding import StreamEncoding
from lepton_mpi.prepare.survey import Survey, check_missing, survey
from lepton_mpi.prepare.targets import fit_target_scale
from lepton_mpi.prepare.token_streams import write_stream
from lepton_mpi.prepare.training_rows import TrainingRows
from lepton_mpi.prepare.transformation import Transformation, fit_transformation, needs_moments
from lepton_mpi.prepare.writing import disk_errors, partial_of


def prepare(options: Options, world: Any) -> dict[str, Any]:
    """Write ``options.output`` and print what is in it. Collective; returns the facts, the same on every rank.

    Raises DataError, ConfigurationError and LauncherError, on every rank.
    """
    world.agree_on("the options", dataclasses.asdict(options))
    _check_output(options, world)
    like, like_stream = None, None
    if options.like is not None and options.stream:
        like_stream = read_encoding(Path(options.like), world, StreamEncoding.from_bytes)
        options = like_stream.applied_to(options)
    elif options.like is not None:
        like = read_encoding(Path(options.like), world, Encoding.from_bytes)
        with same_on_all_ranks():
            options = like.applied_to(options)
    if options.stream:
        inputs, _ = find_inputs(options, world)
        facts = write_stream(inputs, options, world, like_stream)
    else:
        with closing(open_inputs(options, world)) as source:
            facts = prepare_source(source, options, world, like)
    if world.rank == 0:
        print(summary.text(facts), flush=True)
        print(_last_line(options, facts), flush=True)
    return facts


def prepare_source(
    source: Source, options: Options, world: Any, like: Encoding | None = None
) -> dict[str, Any]:
    """All passes over a source; of ``like`` is what is not fitted anew. Collective; returns the facts and prints nothing.

    Raises DataError and ConfigurationError, on every rank.
    """
    if like is not None:
        with same_on_all_ranks():
            source = like.known_to(source, options)
    blocks = Blocks(source, world, options.memory // world.local_size)
    found = survey(source, blocks, options)
    with same_on_all_ranks():
        found = without_labels(join_labels(found, source), source, options)
        check_missing(found, options)
        found, source = name_classes(found, source, like.class_names if like else None)
        labels = like.labels_of(found, source) if like else make_labels(found, source, options)
        chosen = select(found, labels, source, options)
        _check_are_to_score(labels, chosen, source)
    facts_of_rows = found, labels, chosen
    if like is None:
        plan, raw, moments, normaliser = _fit(blocks, source, *facts_of_rows, options)
    else:
        plan, raw, moments, normaliser = _as_in(like, blocks, source, *facts_of_rows, options)
    with same_on_all_ranks():
        check_limits(plan)
    with output(plan, world) as out:
        changed = write_rows(plan, blocks, out)
        facts = summary.facts_of(plan, raw, moments, normaliser, changed, __version__)
        with world.agreeing():
            if out:
                write_everything_else(plan, facts, moments, normaliser, out)
    return facts


def _check_are_to_score(labels: Labels, chosen: Selection, source: Source) -> None:
    """Raise DataError for rows without labels that are for something else."""
    if not labels.are_there and ((chosen.splits == 0) | (chosen.splits == 1)).any():
        raise DataError(
            f"{source.parts[0].name}: expected labels of rows to train on or to validate with, got none: rows to be scored "
            "are for testing, --split 0,0,1"
        )


def _fit(
    blocks: Blocks,
    source: Source,
    found: Survey,
    labels: Labels,
    chosen: Selection,
    options: Options,
) -> tuple[Plan, Moments | None, Moments, normalisation.Normalisation]:
    """What is done to every row, moments of training rows before and after it, and shift and scale. Collective."""
    bounds = np.concatenate([[0], np.cumsum(found.row_counts)])
    train = np.where(chosen.splits == 0, chosen.repeats, 0)
    codes_only = Transformation(found.categories)
    as_read = TrainingRows(
        blocks, bounds, train, codes_only.encoded, int(np.prod(source.row_shape))
    )
    raw = as_read.moments() if needs_moments(options, found, source) else None
    with same_on_all_ranks():
        fitted = fit_transformation(as_read, raw, found, source, options)
        row_shape = source.row_shape
        if source.is_table:
            row_shape = (int(fitted.widths(len(source.columns)).sum()),)
        per = normalisation.choose_per(options, row_shape)
    dtype = _stored_dtype(found, fitted, options)
    units = normalisation.unit_count(per, row_shape)
    as_stored = TrainingRows(blocks, bounds, train, fitted.applied, units)
    unchanged = raw is not None and per == "feature" and not fitted.changes_anything
    moments = raw if unchanged else as_stored.moments()
    method = normalisation.choose_method(options, source, dtype, moments, row_shape)
    with same_on_all_ranks():
        normaliser = normalisation.fit_normalisation(method, per, as_stored, moments)
        if per == "feature":
            normaliser = normaliser.but_not(_flags(fitted, source))
        target_scale = fit_target_scale(labels, chosen, source, options)
    fitted_for_others = fitted
    if source.is_table:
        fitted_for_others = with_fills_of_flags(fitted, moments.mean, len(source.columns))
    encoding = Encoding(
        *(options_of(source, options), source.columns, source.row_shape, labels.class_names),
        *(fitted_for_others, normaliser, target_scale, source.vocabulary),
    )
    plan = Plan(
        *(options, source, found, labels, chosen, fitted, bounds, row_shape, dtype, target_scale),
        encoding.as_bytes(),
    )
    return plan, raw, moments, normaliser


def _as_in(
    like: Encoding,
    blocks: Blocks,
    source: Source,
    found: Survey,
    labels: Labels,
    chosen: Selection,
    options: Options,
) -> tuple[Plan, Moments | None, Moments, normalisation.Normalisation]:
    """The same as ``_fit``, with nothing fitted; moments are those of all rows. Collective."""
    bounds = np.concatenate([[0], np.cumsum(found.row_counts)])
    fitted, features = like.transformation, int(np.prod(source.row_shape))
    as_read = TrainingRows(blocks, bounds, chosen.repeats, fitted.encoded, features)
    raw = as_read.moments() if source.is_table else None
    row_shape = (int(fitted.widths(features).sum()),) if source.is_table else source.row_shape
    units = normalisation.unit_count(like.normalisation.per, row_shape)
    moments = TrainingRows(blocks, bounds, chosen.repeats, fitted.applied, units).moments()
    dtype = _stored_dtype(found, fitted, options)
    plan = Plan(
        *(options, source, found, labels, chosen, fitted, bounds, row_shape, dtype),
        *(like.target_scale, like.as_bytes()),
    )
    return plan, raw, moments, like.normalisation


def _flags(fitted: Transformation, source: Source) -> np.ndarray:
    """Which stored columns are 0 or 1 and tell categories: bool (columns,); they stay as they are."""
    if not source.is_table:
        return np.zeros(1, bool)
    features = len(source.columns)
    flags = [f in fitted.one_hot or len(fitted.categories.get(f, ())) == 2 for f in range(features)]
    return np.repeat(np.array(flags), fitted.widths(features))


def _check_output(options: Options, world: Any) -> None:
    """Find out before the work whether its result can be kept; rank 0 looks. Collective."""
    with world.agreeing():
        path = Path(options.output)
        if world.rank == 0:
            if path.suffix not in (".h5", ".hdf5"):
                raise ConfigurationError(
                    f"{path}: expected an OUTPUT that ends by .h5 or .hdf5, behind the inputs"
                )
            if path.is_dir() or not path.parent.is_dir():
                raise LauncherError(f"cannot write {path}: no such folder, or a folder itself")
            if path.exists() and not options.force and not options.dry_run:
                raise ConfigurationError(f"{path} exists; --force replaces it")
            if not options.dry_run:
                with disk_errors(path):
                    partial_of(path).unlink(missing_ok=True)  # what a kill has left
                    try_writing(path.parent)


def _stored_dtype(found: Survey, fitted: Transformation, options: Options) -> np.dtype:
    """``--dtype``, or the smallest that holds every number unchanged."""
    if options.dtype != "auto":
        return np.dtype(options.dtype)
    if fitted.changes_numbers:
        return np.dtype(np.float64)
    in_x = fitted.categories.keys() - fitted.one_hot - set(fitted.apart)
    codes = max((len(fitted.categories[feature]) for feature in in_x), default=0)
    return np.promote_types(found.dtype, np.float32) if codes > 256 else found.dtype


def _last_line(options: Options, facts: dict[str, Any]) -> str:
    """What was written, and what to do with it."""
    if options.dry_run:
        return summary.line("dry run", "nothing is written")
    # With categories in an input of their own.
    are_apart = bool(facts.get("inputs"))
    model = " --model gpt" * options.stream + " --model wide_and_deep" * are_apart
    then = f"python -m lepton_mpi.train --data {options.output}{model}"
    if facts.get("unlabelled"):
        then = "rows to be scored, without labels"
    elif options.like is not None:
        then = f"python -m lepton_mpi evaluate CHECKPOINT --data {options.output}"
    return summary.line("wrote", f"{options.output}; {then}")
