"""Rows of a program -> prepared file -> training -> checkpoint; see the package's docstring for who does what."""

import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import threadpoolctl

from lepton_mpi.data.files import probe
from lepton_mpi.errors import ConfigurationError, Preempted
from lepton_mpi.estimators import rows as rows_module
from lepton_mpi.estimators.rows import Rows
from lepton_mpi.options.config import Config
from lepton_mpi.own_folders import temporary_folder
from lepton_mpi.run import checkpoint, resume
from lepton_mpi.run.fit import fit_with, train
from lepton_mpi.run.hook import Hook, QuietHook
from lepton_mpi.run.run import Run
from lepton_mpi.starting.start import launch
from lepton_mpi.world.world import World

_ROWS, _MODEL = "rows.h5", "model.h5"
# In place of the name that the file of the rows gets: options without data would be a recipe's.
# In place of a folder for checkpoints: one that goes with the rows.
FOLDER = "folder of the rows"
_PLACEHOLDER = "rows of the program"
# A process has one MPI, and one watchdog.
_one_at_a_time = threading.Lock()


class KeepModel(QuietHook):
    """Writes the model as it is at the end, without the optimizer's state."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def at_end(self, run: Run) -> None:
        """Collective; rank 0 writes."""
        sums = run.total()
        run.strategy.collect()
        with run.world.agreeing():
            if run.world.rank == 0:
                saved = dataclasses.replace(resume.checkpoint_of(run, sums), state={})
                checkpoint.save_as(self._folder / _MODEL, saved)


@contextmanager
def shared_folder(world: World) -> Iterator[Path]:
    """A folder of all ranks that nobody else can read, which goes at the end. Collective over ranks of one host."""
    if world.host_count > 1:
        raise ConfigurationError(
            "fit: expected ranks of one host for rows in memory, got several hosts: write a file all of them can read, by "
            "python -m lepton_mpi prepare, and name it by data="
        ).on_all_ranks()
    made = None
    with ExitStack() as end:
        with world.agreeing():
            if world.rank == 0:
                made = end.enter_context(temporary_folder())
        yield world.comm.bcast(made)
        world.host_barrier()


@contextmanager
def of_a_program() -> Iterator[None]:
    """Training inside of a user's process: one at a time, BLAS has its threads back afterwards, Ctrl-C is KeyboardInterrupt."""
    with _one_at_a_time, threadpoolctl.threadpool_limits():
        try:
            yield
        except Preempted as error:
            if str(error).startswith("SIGINT"):
                raise KeyboardInterrupt(str(error)) from None
            raise


def fit_rows(
    rows: Rows,
    model: Any,
    hooks: Sequence[Hook],
    raises: bool,
    prepare: Mapping[str, Any],
    options: dict[str, Any],
    keeps_model: bool = False,
) -> tuple[dict[str, Any], bytes]:
    """Train on rows that all ranks of the job have. Collective; see ``lepton_mpi.fit``.

    Returns
    -------
    result, model : dict, bytes
        As of ``lepton_mpi.fit``; the checkpoint of the model if ``keeps_model``, else empty: one of the two has the parameters.
    """
    kept: list[bytes] = []

    def work(
        config: Config, world: World, model: Any, hooks: Sequence[Hook], given: frozenset[str]
    ) -> dict[str, Any]:
        with shared_folder(world) as folder:
            with world.agreeing():
                # On every rank, so that wrong options are the same error.
                chosen = rows_module.options_for(rows, config.held_out, config.seed, prepare)
                if world.rank == 0:
                    rows_module.write(rows, chosen, folder / _ROWS)
            config = dataclasses.replace(config, **_places(folder, config.checkpoint))
            keep = [KeepModel(folder)] if keeps_model else []
            with probe.made_here(folder / _ROWS):
                result = train(
                    *(config, world, model, [*hooks, *keep], given),
                    keeps_parameters=not keeps_model,
                )
            if keeps_model:
                kept.append((folder / _MODEL).read_bytes())
        return result

    result = fit_with(work, model, hooks, raises, {"data": _PLACEHOLDER} | options)
    return result, b"".join(kept)


def fit_on_ranks(
    rows: Rows,
    ranks: int,
    prepare: Mapping[str, Any],
    config: Config,
    options: dict[str, Any],
    quiet: bool,
) -> tuple[dict[str, Any], bytes]:
    """The same on ranks that are started for it, from a process that is none. Raises LeptonError.

    ``config`` is that of ``options``.
    """
    with temporary_folder() as folder:
        chosen = rows_module.options_for(rows, config.held_out, config.seed, prepare)
        rows_module.write(rows, chosen, folder / _ROWS)
        result = launch(_of_rank, ranks, (str(folder), options), quiet=quiet)
        return result, (folder / _MODEL).read_bytes()


def _places(folder: Path, checkpoint: str | None) -> dict[str, Any]:
    """The file of the rows, and a folder for the best epoch in place of what stands for one."""
    found: dict[str, Any] = {"data": (str(folder / _ROWS),)}
    return found | ({"checkpoint": str(folder / "epochs")} if checkpoint == FOLDER else {})


def _of_rank(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """What each rank does."""
    folder = Path(name)
    places = _places(folder, options.get("checkpoint"))
    work = partial(train, keeps_parameters=False)  # they are in the model
    return fit_with(work, None, [KeepModel(folder)], True, options | places)
