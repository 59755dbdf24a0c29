"""Registries: what an option's name stands for, a built-in one or ``FILE.py:NAME`` of the user's own.

Adding a model, strategy, optimizer or task is adding its file and one line in ``options/names.py``. A built-in one is
named as text, so that nothing is imported before it is asked for.
"""

import importlib.util
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.wording import did_you_mean


class Registry:
    """What the names of one option stand for.

    Parameters
    ----------
    flag : str
        The option, for messages.
    built_in : mapping of str to str
        Name to ``module:attribute``.
    """

    def __init__(self, flag: str, built_in: Mapping[str, str]) -> None:
        self.flag, self.built_in = flag, dict(built_in)

    def find(self, name: str) -> Any:
        """The callable that ``name`` stands for. Raises ConfigurationError for an unknown one."""
        if name in self.built_in:
            module, _, attribute = self.built_in[name].partition(":")
            return getattr(import_module(module), attribute)
        if is_own_file(name):
            return load(self.flag, name)
        expected = ", ".join(self.built_in)
        raise ConfigurationError(
            f"{self.flag}: expected {expected} or FILE.py:NAME, got {name!r}{did_you_mean(name, list(self.built_in))}"
        )


def is_own_file(name: str) -> bool:
    """Whether ``name`` has the form ``FILE.py:NAME``."""
    return name.rpartition(":")[0].endswith(".py")


def load(flag: str, name: str) -> Any:
    """The callable NAME of ``name``, which is ``FILE.py:NAME``. Runs the file. Raises ConfigurationError."""
    text, _, attribute = name.rpartition(":")
    path = Path(text).expanduser()
    if not path.is_file():
        raise ConfigurationError(f"{flag}: {path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up there
    spec.loader.exec_module(module)
    found = vars(module).get(attribute)
    if not callable(found):
        raise ConfigurationError(f"{flag}: {path} has no callable {attribute!r}")
    return found
