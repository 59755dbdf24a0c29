"""``--freeze``: parameters that a run leaves as they are, by patterns of their names."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.models.model import Model
from lepton_mpi.models.pretrained import in_groups
from lepton_mpi.vectors import Layout
from lepton_mpi.wording import grouped


def freeze(patterns: Sequence[str], model: Model) -> None:
    """Tell a model which of its parameters stay. Patterns as of the shell; ``*`` matches ``/``, too.

    Raises
    ------
    ConfigurationError
        For a pattern that no name fits, and if nothing is left to train.
    """
    if not patterns:
        return
    names = list(model.shapes)
    known = ", ".join(in_groups(names, names))
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigurationError(
                f"--freeze {pattern}: expected a pattern that fits names of parameters, {known}, got one that fits none"
            )
    frozen = [name for name in names if any(fnmatchcase(name, one) for one in patterns)]
    if all(name in frozen or name in model.averaged for name in names):
        raise ConfigurationError(
            f"--freeze {' '.join(patterns)}: expected some parameters that are left to train, of {known}, got all of them frozen"
        )
    model.freeze(frozen)


def sentence(model: Model) -> str:
    """What stays and how much is trained, for people; empty if nothing is frozen."""
    if not model.frozen:
        return ""
    names = list(model.shapes)
    sizes = {
        name: stop - start
        for name, (start, stop) in zip(names, Layout(model.shapes).bounds, strict=True)
    }
    trained = sum(
        size
        for name, size in sizes.items()
        if name not in model.frozen and name not in model.averaged
    )
    groups = ", ".join(in_groups([name for name in names if name in model.frozen], names))
    return f"{groups}; {grouped(trained)} of {grouped(sum(sizes.values()))} parameters are trained"
