"""``lepton_mpi.fit``: training from a program of one's own, of a file or of arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

from lepton_mpi import launcher
from lepton_mpi.errors import ConfigurationError, DataError, ending
from lepton_mpi.run import fit as file_fit
from lepton_mpi.run.hook import Hook


def fit(
    *first: Any,
    model: Any = None,
    hooks: Sequence[Hook] = (),
    raises: bool = False,
    prepare: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train on all ranks of the job and return the figures of the run's end. Collective; a single process needs no launcher.

    ``fit(model, data="table.h5", epochs=5)`` trains on a file, ``fit(X, y, epochs=5)`` on rows that the program holds.

    Parameters
    ----------
    *first
        The model, or X and y. X is an array of shape (rows, …) of numbers, or a data frame, whose texts, categories and dates are encoded
        as ``prepare`` does it; y an array of a class for each row, whole numbers or texts, or of floats (rows,) or (rows, targets), which
        are targets. Rank 0's are trained on. ``validation_split`` and ``test_split`` of the rows are held out, 0.2 each unless chosen.
    model, hooks
        See ``lepton_mpi.run.fit.fit``.
    raises : bool
        Whether wrong options or data are a LeptonError of ``lepton_mpi.errors`` alone. Else a line says what is wrong, and the LeptonError is a
        SystemExit, too: a program that does not catch it ends with its exit code. An error of one rank of several ends the job in both cases.
    prepare : mapping, optional
        With X and y: options of the command ``prepare``, such as ``{"missing": "median"}``.
    **options
        Fields of ``Config``, with the defaults of the command line: without ``data``, X and y those of the recipe ``digits``.

    Returns
    -------
    dict
        See ``lepton_mpi.run.fit.fit``.

    Raises
    ------
    TypeError
        For more than two values without a name, or a model that is given twice.
    LeptonError
        For wrong options and data.
    """
    try:
        _check(first, model, prepare, options)
        if len(first) == 2:
            return _fit_arrays(first, model, hooks, raises, prepare or {}, options)
    except (ConfigurationError, DataError) as error:
        if raises:
            raise
        launcher.complain(f"lepton_mpi: {error}")
        raise ending(error) from None
    return file_fit.fit(first[0] if first else model, hooks=hooks, raises=raises, **options)


def _fit_arrays(
    arrays: Sequence[Any],
    model: Any,
    hooks: Sequence[Hook],
    raises: bool,
    prepare: Mapping[str, Any],
    options: dict[str, Any],
) -> dict[str, Any]:
    """``fit`` of X and y. Collective."""
    from lepton_mpi.estimators import training
    from lepton_mpi.estimators.rows import rows_of

    x, y = arrays
    rows, _ = rows_of(x, y, _y_kind(options))
    with training.of_a_program():
        result, _ = training.fit_rows(rows, model, hooks, raises, prepare, options)
    return result


def _check(
    first: Sequence[Any], model: Any, prepare: Mapping[str, Any] | None, options: dict[str, Any]
) -> None:
    """Raises TypeError for values, ConfigurationError for options that have no sense together."""
    if len(first) > 2 or (len(first) == 1 and model is not None):
        raise TypeError(
            "fit: expected fit(model, …) or fit(X, y, …), with all else by name, got "
            f"{len(first)} values{' and model=' * (model is not None)}"
        )
    if len(first) == 2:
        for name in {"data", "x", "y", "prepare", "recipe"} & options.keys():
            raise ConfigurationError(f"{name}: expected none beside X and y, got {options[name]!r}")
    elif prepare is not None:
        raise ConfigurationError(
            "prepare: is for X and y; call python -m lepton_mpi prepare for files"
        )


def _y_kind(options: Mapping[str, Any]) -> str:
    """What the loss takes."""
    loss = options.get("loss", "auto")
    return {"auto": "auto", "cross_entropy": "classes"}.get(loss, "targets")
