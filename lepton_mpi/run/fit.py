"""``fit``: a training run from a program of one's own, and what the command line calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lepton_mpi import launcher
from lepton_mpi.errors import ConfigurationError, LeptonError, ending
from lepton_mpi.options import sources
from lepton_mpi.options.config import Config
from lepton_mpi.run.hook import Hook
from lepton_mpi.world.world import World, run

if TYPE_CHECKING:
    from lepton_mpi.run.resume import Start
    from lepton_mpi.run.run import Run


def fit(
    model: Any = None, *, hooks: Sequence[Hook] = (), raises: bool = False, **options: Any
) -> dict[str, Any]:
    """Train ``model`` on all ranks of the job and return the figures of the run's end. Collective.

    Wrong options or data are one line and a LeptonError of ``lepton_mpi.errors`` that is a SystemExit, too: a program that does not
    catch it ends as the command line does, with an exit code and no traceback.

    Parameters
    ----------
    model
        An object as ``lepton_mpi.models.own_model`` describes it, or a callable (feature_shape, output_count) that
        returns one, or a text, which is the ``model`` option; None takes the default of that. There is an output
        for each class or each target.
    hooks : sequence of Hook
        Called after the run's own.
    raises : bool
        Whether it is a LeptonError alone, without the line. An error of one rank of several still ends the job.
    **options
        Fields of ``Config``, with the defaults of the command line: without ``data`` those of the recipe ``digits``.

    Returns
    -------
    dict
        ``test_accuracy``, ``macro_recall``, ``samples_per_second``, ``weights_digest``, ``world_size`` and
        more, as in the last line of the metrics file; ``parameters``, a dict of name to array; ``history``, a list of a dict for each
        epoch that was made: ``epoch``, ``learning_rate`` and its figures; ``derived``, options that nobody has chosen by name, with
        their values; ``test_confusion``, rows of the confusion matrix, true class by
        predicted. Where the data have targets instead of classes, ``test_mse``, ``test_rmse``, ``test_mae`` and ``test_r2``.

    Raises
    ------
    LeptonError
        For wrong options and data.
    """
    return fit_with(train, model, hooks, raises, options)


def fit_with(
    work: Callable[..., dict[str, Any]],
    model: Any,
    hooks: Sequence[Hook],
    raises: bool,
    options: dict[str, Any],
) -> dict[str, Any]:
    """``fit``, by ``work(config, world, model, hooks, given)`` in place of ``train``. Collective."""
    if isinstance(model, str):
        options, model = options | {"model": model}, None
    try:
        chosen = sources.from_program(options)
        if (chosen.config.find_out or "").endswith(".html"):
            raise ConfigurationError(
                f"--find-out: expected a file that ends in .json in a program, got {chosen.config.find_out}; the command train draws the page"
            )
    except ConfigurationError as error:
        if raises:
            raise
        launcher.complain(f"lepton_mpi: {error}")
        raise ending(error) from None
    result: dict[str, Any] = {}
    errors: list[LeptonError] = []

    def on_world(world: World) -> None:
        try:
            result.update(work(chosen.config, world, model, hooks, chosen.given))
        except LeptonError as error:
            errors.append(error)
            raise

    limits = chosen.config.timeout, chosen.config.peer_timeout
    code = run(on_world, *limits, raises, is_elastic=chosen.config.elastic)
    if code:
        raise ending(errors[0]) if errors else SystemExit(code)
    return result


def train(
    config: Config,
    world: World,
    model: Any = None,
    hooks: Sequence[Hook] = (),
    given: frozenset[str] | None = None,
    keeps_parameters: bool = True,
) -> dict[str, Any]:
    """One run from file to checkpoint. Collective over ``world``.

    See ``fit`` for model, hooks and result, and ``build`` for ``given``. The result has no ``parameters`` unless ``keeps_parameters``:
    they are a copy on every rank, of memory that a host has once.
    """
    from lepton_mpi.run import elastic, loop, rate_search, trace
    from lepton_mpi.run.build import build

    if config.prepare is not None:
        raise ConfigurationError("--prepare: is of the command train; call prepare before fit")

    def train_once(
        config: Config,
        start: Start | None = None,
        on_built: Callable[[Run], None] = lambda run: None,
    ) -> dict[str, Any]:
        """From a state in memory, if there is one; ``on_built`` gets the run before its first step."""
        with world.catching_signals():
            if config.find_learning_rate:
                return rate_search.search(config, world, model, given)
            made = build(config, world, model, start, given, keeps_parameters)
            start = None  # whose memory may be wanted back
            made.hooks += hooks
            try:
                on_built(made)
                loop.train(made)
            except Exception as error:
                if (isinstance(error, LeptonError) and error.agreed) or world.size == 1:
                    trace.say_written(made)  # else one rank of each host writes, when the job fails
                made.model.release(made.parameters)
                made.ends.close()
                raise
            if keeps_parameters:
                copies = {name: array.copy() for name, array in made.parameters.items()}
                made.result["parameters"] = copies
            made.result |= made.model.release(made.parameters)
            made.close()
        return made.result

    return elastic.train(train_once, config, world) if config.elastic else train_once(config)
