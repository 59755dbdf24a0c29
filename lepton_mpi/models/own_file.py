"""A user's own class or function, named FILE.py:NAME on the command line."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from lepton_mpi.errors import ConfigurationError


def load(path: Path, attribute: str) -> Any:
    if not path.is_file():
        raise ConfigurationError(f"--model: {path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up there
    spec.loader.exec_module(module)
    if not callable(getattr(module, attribute, None)):
        raise ConfigurationError(f"--model: {path} has no callable {attribute!r}")
    return getattr(module, attribute)
