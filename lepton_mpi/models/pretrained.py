"""Which parameters of a model a file has, and which it lacks or has in another shape; what of the file nothing takes."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from lepton_mpi.errors import DataError
from lepton_mpi.layers.layer import Array, Shape
from lepton_mpi.models.torch_names import Stored
from lepton_mpi.vectors import Views
from lepton_mpi.wording import printable

Read = Callable[[str], Array]


class OtherShape(NamedTuple):
    """A parameter, the array of the file that has its name, the shape that was expected there and the one that came."""

    name: str
    theirs: str
    expected: Shape
    came: Shape


class Match(NamedTuple):
    """What a file has for a model.

    Attributes
    ----------
    taken : dict of str to (Stored, str)
        Of each parameter that fits, how it is kept and under which name.
    missing : list of str
        Parameters.
    other_shapes : list of OtherShape
    left_over : list of str
        Names in the file.
    longer : dict of str to int
        Rows in the file, of parameters that are the first of them.
    """

    taken: dict[str, tuple[Stored, str]]
    missing: list[str]
    other_shapes: list[OtherShape]
    left_over: list[str]
    longer: dict[str, int]

    @property
    def is_complete(self) -> bool:
        """Whether the file has all parameters and nothing else."""
        return not (self.missing or self.other_shapes or self.left_over)


def match(table: Mapping[str, Stored], found: Mapping[str, Shape], read: Read) -> Match:
    """Compare names and shapes.

    Parameters
    ----------
    table
        How the file keeps each parameter of the model.
    found
        Shapes of its arrays by name, without what is known to be no parameter.
    read
        Gives an array by its name; called for what may be a repetition of another.
    """
    made = Match({}, [], [], [], {})
    used = set()
    for name, stored in table.items():
        theirs = next((n for n in (stored.name, *stored.aliases) if n in found), None)
        if theirs is None:
            made.missing.append(name)
            continue
        used.add(theirs)
        if stored.fits(found[theirs]):
            made.taken[name] = stored, theirs
            if found[theirs] != stored.shape:
                made.longer[name] = found[theirs][0]
        else:
            made.other_shapes.append(OtherShape(name, theirs, stored.shape, found[theirs]))
        for other in set(stored.repeats) & found.keys():
            if found[other] == found[theirs] and np.array_equal(read(other), read(theirs)):
                used.add(other)
    made.left_over.extend(name for name in found if name not in used)
    return made


def fill(taken: Mapping[str, tuple[Stored, str]], read: Read, parameters: Views) -> None:
    """Fill the parameters that a file has. Raises DataError for what is no finite float, before or in their type."""
    for name, (stored, theirs) in taken.items():
        array = read(theirs)
        if array.dtype.kind != "f":
            raise DataError(f"{printable(theirs)}: expected floats, got {array.dtype}")
        with np.errstate(over="ignore"):
            parameters[name][...] = stored.ours(array)
        if not np.isfinite(parameters[name]).all():
            dtype = parameters[name].dtype
            raise DataError(
                f"{printable(theirs)}: expected finite numbers of {dtype}, got others: infinite ones, or none"
            )


def in_groups(names: list[str], all_names: list[str]) -> list[str]:
    """Names, those of a whole part of a model as one pattern, as ``--freeze`` takes it.

    >>> in_groups(["a/w", "a/b", "c/w"], ["a/w", "a/b", "c/w", "c/b"])
    ['a/*', 'c/w']
    """
    wanted, groups = set(names), dict[str, list[str]]()
    for name in all_names:
        groups.setdefault(name.partition("/")[0], []).append(name)
    shown = []
    for group, members in groups.items():
        has = [name for name in members if name in wanted]
        is_whole = len(has) == len(members) > 1
        shown += [f"{group}/*"] if is_whole else has
    return shown
