"""Going on from a checkpoint as if the run had never stopped, on any number of ranks.

What decides the rest of a run is parameters, optimizer state, step, epoch, and the rows of the epoch that were used, a
number: the order of rows follows from the seed and from how they are shuffled, whatever the ranks. So a run that is
ended in the middle of an epoch and resumed has the weights of one that was not, bit for bit, if the options that decide
weights are the same; they are compared.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_mpi.data.encodings import Encodings
from lepton_mpi.errors import DataError
from lepton_mpi.options.config import Config
from lepton_mpi.run import (
    checkpoint,
    checkpoint_folder,
    class_weights,
    codes,
    drift,
    resumed_options,
)
from lepton_mpi.run.arithmetic import BY_NUMBER, FIRST, NEWEST, changed_options
from lepton_mpi.vectors import Layout
from lepton_mpi.wording import one_line

if TYPE_CHECKING:
    from lepton_mpi.data.dataset import DataSet
    from lepton_mpi.run.initial import InitialFile
    from lepton_mpi.run.run import Run
    from lepton_mpi.strategies.strategy import Strategy
    from lepton_mpi.world.rank_group import RankGroup


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes
    ----------
    epoch, row, step : int
        Epoch to train next, from 1; rows of it that have been used; optimizer steps that have been made.
    loss, correct : float
        Sums over the rows of the epoch that have been used.
    order : dict
        How rows are shuffled, as ``row_order.order_facts`` has it; empty for a new run.
    path : Path or None
        The checkpoint; None for a new run, and for a state in memory.
    saved : Checkpoint or None
        The state in memory, see ``capture``.
    before : Before or None
        What the run's folder held when the job began, for a run that goes on behind a loss of ranks, see ``elastic.py``.
    history : tuple of dict
        Of the epochs that the job has made before, see ``Run``.
    begins_again : bool
        Whether this job has begun the run before, and lost a rank before there was a state to go on from.
    data : DataSet or None
        The rows, if all ranks have them already.
    arithmetic : int
        The rules by which the run was begun, of ``arithmetic.BY_NUMBER``.
    notes, initial_notes : tuple of str
        For people: of what the run goes on from, and of the parameters that it begins with.
    config : Config or None
        What to train with, if not what was asked for: options that nobody has given are those of the checkpoint.
    encodings : Encodings or None
        What the numbers of its data stood for; None for a new run, empty where nobody has said it.
    attributes : dict
        Of the checkpoint; empty for a new run.
    initial : InitialFile or None
        What a new run takes its parameters from.
    """

    epoch: int = 1
    row: int = 0
    step: int = 0
    loss: float = 0.0
    correct: float = 0.0
    order: dict[str, Any] = dataclasses.field(default_factory=dict)
    path: Path | None = None
    notes: tuple[str, ...] = ()
    initial_notes: tuple[str, ...] = ()
    saved: checkpoint.Checkpoint | None = None
    config: Config | None = None
    arithmetic: int = NEWEST
    encodings: Encodings | None = None
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    initial: InitialFile | None = None
    before: checkpoint_folder.Before | None = None
    history: tuple[dict[str, float], ...] = ()
    begins_again: bool = False
    data: DataSet | None = None

    @property
    def goes_on(self) -> bool:
        """Whether there is a state to go on from."""
        return self.path is not None or self.saved is not None

    def appends(self, config: Config) -> bool:
        """Whether files of figures may have what this run, or a job that was submitted before with the same words, has written."""
        # Such a job may have ended before its first checkpoint.
        return self.goes_on or self.begins_again or config.resume is not None


def find(
    config: Config,
    world: RankGroup,
    given: frozenset[str] | None = None,
    begins_again: bool = False,
) -> Start:
    """Where ``config.resume`` says that the run begins, and with which options. Collective.

    ``begins_again`` is passed on. ``given`` names the options that somebody has chosen, None for all, see ``resumed_options.py``.
    Raises DataError for a file that is damaged, ConfigurationError where the options are others than those it was made
    with. In a folder the newest file that is whole is taken.
    """
    if config.resume is None:
        return Start(begins_again=begins_again)
    start = Start()
    with world.agreeing():
        if world.rank == 0:
            start = _find(config, given, Path(config.resume))
    start = world.broadcast(start)
    with world.agreeing():
        if start.path and world.local_rank == 0 and world.rank != 0:
            _verify_on_other_host(start.path, world.rank)
    return dataclasses.replace(start, begins_again=begins_again)


def checkpoint_of(run: Run, sums: np.ndarray, digest: str = "") -> checkpoint.Checkpoint:
    """What a run goes on from: the vectors themselves, not copies, and the place in the epoch.

    ``sums`` are loss and correct count of the epoch so far over all ranks; ``digest`` is that of the parameters, if it is known. After
    ``run.strategy.collect()``.
    """
    place = attributes(run.config, run.epoch, run.rows_used, run.step, sums, run.order)
    about = {
        "seed": run.config.seed,
        "model": name_of(run.model),
        "arithmetic": run.start.arithmetic,
        "y_kind": run.data.y_kind,
        **checkpoint.target_scale_attribute(run.data.target_scale),
        **(run.best.attribute() if run.best else {}),
        **class_weights.attribute(run.model),
        **run.divergence.attribute(),
    }
    strategy = run.strategy
    return checkpoint.Checkpoint(
        *(run.layout, strategy.consensus(), strategy.state(), run.data.normalisation),
        place | about,
        run.data.encodings,
        digest=digest,
    )


def attributes(
    config: Config,
    epoch: int,
    row: int,
    step: int,
    sums: Sequence[float] | np.ndarray,
    order: dict[str, Any],
) -> dict[str, Any]:
    """What ``find`` will read from a checkpoint: ``row`` rows of ``epoch`` have been used."""
    return {
        "step": step,
        "epoch": epoch,
        "row": row,
        "loss_sum": float(sums[0]),
        "correct_sum": float(sums[1]),
        "order": json.dumps(order),
        "configuration": json.dumps(dataclasses.asdict(config)),
    }


def capture(run: Run) -> Start:
    """The state of a run in memory, after a step or an epoch, for ``build``. Collective over the run's world.

    Every rank has a copy of all of it, which outlives the run: it may go on with other ranks, or in another group of them.
    """
    drift.finish(run)
    run.strategy.collect()
    sums = run.total()
    saved = checkpoint_of(run, sums)
    copied = dataclasses.replace(
        saved,
        parameters=saved.parameters.copy(),
        state={name: vector.copy() for name, vector in saved.state.items()},
    )
    return start_of(run, sums, copied)


def start_of(run: Run, sums: np.ndarray, saved: checkpoint.Checkpoint) -> Start:
    """Where a run stands now, of which ``saved`` is a copy; ``sums`` as in ``checkpoint_of``."""
    rules = run.start.arithmetic
    if run.rows_used == run.order["rows"]:
        place = run.epoch + 1, 0, run.step, 0.0, 0.0, run.order
    else:
        place = run.epoch, run.rows_used, run.step, float(sums[0]), float(sums[1]), run.order
    return Start(
        *place,
        saved=saved,
        arithmetic=rules,
        encodings=saved.encodings,
        attributes=saved.attributes,
    )


def with_codes_checked(start: Start, data: DataSet) -> Start:
    """With notes on names that could not be compared. Raises DataError for data of other codes than before.

    To be called before rows are compared, since other codes are other rows, too.
    """
    if start.encodings is None:
        return start
    origin = str(start.path or "the state in memory")
    notes = codes.check_codes(start.encodings, data, origin, start.path is not None)
    if data.target_count:
        before = checkpoint.target_scale_of(start.attributes, data.target_count)
        if not before.equals(data.target_scale):
            raise DataError(
                f"{origin}: attribute target_scale: expected that of --data, got another: the data were prepared anew"
            )
    return dataclasses.replace(start, notes=(*start.notes, *notes))


def own_files(config: Config, start: Start) -> list[Path]:
    """Checkpoints in the run's folder that are its own before it has written any: those of the run that it goes on from."""
    folder = Path(config.checkpoint or "")
    if start.before:
        return checkpoint_folder.own_now(folder, start.before)
    if not config.checkpoint or not start.path or start.path.parent.resolve() != folder.resolve():
        return []
    return checkpoint_folder.of_the_same_run(folder / start.path.name, config.keep)


def committed_step(newest: Path | None, start: Start) -> int:
    """That of the newest of ``own_files``, if this job has written it; else 0: whoever names an older file means to train from there."""
    return checkpoint_folder.step_written(newest, start.before) if newest and start.before else 0


def restore(
    start: Start,
    layout: Layout,
    strategy: Strategy,
    data: DataSet,
) -> None:
    """Fill parameters and state. Raises DataError for a checkpoint of another model or other data."""
    if start.saved:
        found, origin = start.saved, "the state in memory"
    else:
        assert start.path is not None
        found, origin = checkpoint.read(start.path), str(start.path)
    if found.layout.shapes != layout.shapes:
        raise DataError(f"{origin}: expected parameters {layout.shapes}, got {found.layout.shapes}")
    pairs = dict(
        zip(
            ("shift", "scale"),
            zip(found.normalisation, data.normalisation, strict=True),
            strict=True,
        )
    )
    for name, (mine, now) in pairs.items():
        if not np.array_equal(mine, now.astype(mine.dtype)):
            raise DataError(
                f"{origin}: normalisation/{name}: expected that of --data, got another: the data were prepared anew"
            )
    try:
        strategy.restore(found.parameters, found.state)
    except ValueError as error:
        raise DataError(f"{origin}: {error}") from None


def name_of(model: Any) -> str:
    """How the model describes itself, or the name of its class: never an address in memory."""
    described = type(model).__str__ is not object.__str__  # type: ignore[comparison-overlap]
    return str(model) if described else type(model).__name__


def _find(config: Config, given: frozenset[str] | None, place: Path) -> Start:
    notes: list[str] = []
    try:
        if not place.is_dir():
            if not place.exists() and place.suffix != ".h5":  # the folder of a first run
                return Start(notes=(f"nothing to go on from in {place}: begins anew",))
            return _read(config, given, place, notes)
        paths = checkpoint_folder.newest_first(place)
    except OSError as error:
        raise DataError(f"{place}: not readable: {one_line(error)}") from None
    for path in paths:
        try:
            return _read(config, given, path, notes)
        except DataError as error:
            notes.append(f"skipped {error}")
    if notes:
        raise DataError(
            f"{place}: expected a checkpoint that is whole, got none: {'; '.join(notes)}"
        )
    return Start(notes=(f"nothing to go on from in {place}: begins anew",))


def _verify_on_other_host(path: Path, rank: int) -> None:
    try:
        checkpoint.verify(path)
    except DataError as error:
        raise DataError(
            f"{error}; so on the host of rank {rank}, while rank 0 has it: put it where all hosts see the same"
        ) from None


def _read(config: Config, given: frozenset[str] | None, path: Path, notes: list[str]) -> Start:
    checkpoint.verify(path)
    found, known = checkpoint.read_attributes(path)
    if "compression" in found:
        raise DataError(
            f"{path}: compressed, without the state of an optimizer to go on from; --initial {path} begins a new run with its parameters"
        )
    before = checkpoint.configuration(found, path)
    config, taken = resumed_options.choose(config, given, before, path)
    start = _place(found, config.batch_rows, path)
    notes.append(f"goes on from {path}, epoch {start.epoch}, row {start.row}, step {start.step}")
    if taken:
        notes.append(f"takes from it what is not given: {', '.join(taken)}")
    notes += resumed_options.rounding_notes(config, before)
    rules = _arithmetic(found, path)
    changed = changed_options(rules, config, start.order.get("shuffle", ""))
    if changed:
        notes.append(f"keeps the rules of the version that began it, for {', '.join(changed)}")
    return dataclasses.replace(
        start,
        notes=tuple(notes),
        config=config,
        arithmetic=rules,
        encodings=known,
        attributes=found,
    )


def _arithmetic(found: dict[str, Any], path: Path) -> int:
    """By which rules the run was begun. Raises DataError."""
    number: Any = found.get("arithmetic", FIRST)
    if type(number) is not int or number not in BY_NUMBER:
        raise DataError(
            f"{path}: attribute arithmetic: expected {' or '.join(map(str, BY_NUMBER))}, got {one_line(number)}"
        )
    return number


def _place(found: dict[str, Any], batch_rows: int, path: Path) -> Start:
    """Where a run stopped. Whoever wrote the file may have written anything; raises DataError."""
    epoch, step = found["epoch"], found["step"]
    if epoch < 0 or step < 0:
        raise DataError(
            f"{path}: attributes epoch and step: expected at least 0, got {epoch} and {step}"
        )
    if "row" not in found:  # of a version that wrote after epochs only
        return Start(epoch + 1, 0, step, path=path)
    order = _order(found.get("order"), path)
    row: Any = found.get("row")
    loss: Any = found.get("loss_sum")
    correct: Any = found.get("correct_sum")
    is_row = type(row) is int and 0 <= row <= order["rows"]
    if not is_row or (row % batch_rows and row != order["rows"]):
        raise DataError(
            f"{path}: attribute row: expected {order['rows']}, or less and a multiple of {batch_rows}, got "
            f"{one_line(row)}"
        )
    # A model need not count what is correct, and then that is NaN.
    are_sums = isinstance(loss, float) and isinstance(correct, float)
    if not are_sums or not math.isfinite(loss) or math.isinf(correct):
        raise DataError(
            f"{path}: attributes loss_sum and correct_sum: expected finite numbers, got {one_line(loss)} and "
            f"{one_line(correct)}"
        )
    if row == order["rows"]:  # the epoch is over
        return Start(epoch + 1, 0, step, order=order, path=path)
    return Start(epoch, row, step, loss, correct, order, path)


def _order(text: Any, path: Path) -> dict[str, Any]:
    """What ``row_order.order_facts`` were. Raises DataError."""
    try:
        order = json.loads(text)
        is_good = isinstance(order["shuffle"], str) and type(order["rows"]) is int
    except (ValueError, TypeError, KeyError, RecursionError):
        is_good = False
    if not is_good or order["rows"] < 1:
        raise DataError(f"{path}: attribute order: expected how rows were shuffled, in JSON")
    return order
