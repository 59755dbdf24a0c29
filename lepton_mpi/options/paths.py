"""``~`` in paths of options, wherever they come from: command line, TOML file, recipe, program."""

import os

from lepton_mpi.wording import printable


def expanded(path: str) -> str:
    """``path`` with the home folder in place of ``~`` or ``~user`` at its beginning; ``./~name`` is a file of that name.

    Raises ValueError, with a reason for people, where there is no such home. Every Python does the same: those of pathlib
    raise RuntimeError, those of os.path leave the path as it is, and a folder named ``~`` would be made.
    """
    if "\0" in path:
        raise ValueError(f"expected a path, got {path!r}, with a zero byte")
    if not path.startswith("~"):
        return path
    found = os.path.expanduser(path)
    if found.startswith("~"):
        home = printable(path.partition("/")[0])
        raise ValueError(
            f"{printable(path)}: no home folder of {home}; a file of that name is ./{home}"
        )
    return found
