"""Optimizers by name: the option ``--optimizer``. Each is called as ``make(settings)`` and returns a ``Rule``."""

from functools import cache

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.optimizers.rule import Rule
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.options import names
from lepton_mpi.registry import Registry

OPTIMIZERS = Registry("--optimizer", names.OPTIMIZERS)


@cache
def rule_of(settings: Settings) -> Rule:
    """The rule that ``settings.name`` stands for. Raises ConfigurationError."""
    rule = OPTIMIZERS.find(settings.name)(settings)
    if not isinstance(rule, Rule):
        raise ConfigurationError(
            f"--optimizer {settings.name}: expected a lepton_mpi.optimizers.rule.Rule, got {type(rule).__name__}"
        )
    return rule
