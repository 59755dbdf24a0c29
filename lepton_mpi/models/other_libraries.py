"""Models of other libraries, such as a torch module: found by their type, without importing a library that the program has not.

fit(module, …)                       an instance of a type of ``options.names.LIBRARIES``
fit(lepton_mpi.torch.model(…), …)    a ``Described``: such an instance with choices
fit(make, …), --model FILE.py:NAME   what returns one of the two
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import Any

from lepton_mpi.models.model import DataFacts, Model
from lepton_mpi.options.names import LIBRARIES

Make = Callable[[], Any]


class Described(ABC):
    """What a library's part of the package returns for ``fit``: a model with the choices of its user."""

    @abstractmethod
    def adapt(self, data: DataFacts, threads: int, make: Make | None) -> Model:
        """The model for these data. Raises ConfigurationError.

        Parameters
        ----------
        threads : int
            That a rank may use.
        make : callable () -> anything, optional
            Makes another one that differs in nothing but random numbers, where the user has given what makes one.
        """


def described(given: Any) -> Described | None:
    """``given`` as the library's part of the package describes it; None for what is of no other library."""
    if isinstance(given, Described):
        return given
    for kind, describe in LIBRARIES.items():
        module, _, name = kind.partition(":")
        # What nobody has imported made nothing.
        library = sys.modules.get(module)
        if library is not None and isinstance(given, getattr(library, name)):
            module, _, name = describe.partition(":")
            found: Described = getattr(import_module(module), name)(given)
            return found
    return None
