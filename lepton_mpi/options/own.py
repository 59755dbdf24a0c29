"""Options that one model, optimizer or strategy alone has: a class of declared options beside it, named here.

    OWN = {"model": {"gpt": "lepton_mpi.models.gpt_options:GptOptions"}, …}

Such an option is typed like any other, ``--model gpt --layers 6`` or ``layers = 6``; ``--help gpt`` lists it, and
``config.own["model"]`` is the checked object. An option of a model that is not chosen is refused. The class is a subclass
of ``option.Checked``, and its module must import neither NumPy nor MPI, since ``--help`` imports it.
"""

import dataclasses
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.option import Checked, Option, options_of
from lepton_mpi.wording import did_you_mean

# Options of Config that choose, and the choices that have options of their own: ``module:class``.
_IMAGES = "lepton_mpi.models.image_options"
_SPEECH = "lepton_mpi.models.speech_options"
_RULES = "lepton_mpi.optimizers.rule_options"
_STRATEGIES = "lepton_mpi.strategies.strategy_options"
OWN: dict[str, dict[str, str]] = {
    "model": {
        "gpt": "lepton_mpi.models.gpt_options:GptOptions",
        "cnn": f"{_IMAGES}:CnnOptions",
        "resnet8": f"{_IMAGES}:ResnetOptions",
        "resnet20": f"{_IMAGES}:ResnetOptions",
        "resnet32": f"{_IMAGES}:ResnetOptions",
        "resnet18": f"{_IMAGES}:WideResnetOptions",
        "tcn": f"{_IMAGES}:TcnOptions",
        "wide_and_deep": "lepton_mpi.models.wide_options:WideOptions",
        "speech_cnn": f"{_SPEECH}:SpeechCnnOptions",
        "speech_gru": f"{_SPEECH}:SpeechGruOptions",
    },
    "optimizer": {
        "adam": f"{_RULES}:AdamOptions",
        "adamw": f"{_RULES}:AdamOptions",
        "lion": f"{_RULES}:LionOptions",
        "adagrad": f"{_RULES}:AdagradOptions",
        "rmsprop": f"{_RULES}:RmspropOptions",
    },
    "strategy": {
        "local": f"{_STRATEGIES}:LocalOptions",
        "diloco": f"{_STRATEGIES}:DilocoOptions",
        "hierarchical": f"{_STRATEGIES}:HierarchicalOptions",
        "bounded": f"{_STRATEGIES}:BoundedOptions",
        "gossip": f"{_STRATEGIES}:GossipOptions",
        "elastic": f"{_STRATEGIES}:ElasticOptions",
    },
}
CHOOSERS = tuple(OWN)


@cache
def _class(where: str) -> type[Checked]:
    module, _, name = where.partition(":")
    return vars(import_module(module))[name]


def own_options(choices: Mapping[str, Any]) -> dict[str, Option]:
    """Options of what is chosen alone, by name; ``choices`` are values of the options that choose."""
    return {
        name: dataclasses.replace(option, of=(chooser, choice))
        for chooser, choice in choices.items()
        if isinstance(choice, str) and choice in OWN.get(chooser, {})
        for name, option in options_of(_class(OWN[chooser][choice])).items()
    }


def all_own_options() -> list[Option]:
    """Every option that one choice alone has."""
    return [
        option
        for chooser, choices in OWN.items()
        for choice in choices
        for option in own_options({chooser: choice}).values()
    ]


def completed(choices: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Checked]:
    """Own options of what is chosen, as checked objects with their defaults. Raises ConfigurationError.

    ``given`` holds for each option that chooses such an object, or its values by name, as JSON has them.
    """
    if not isinstance(given, Mapping) or given.keys() - choices.keys():
        names = ", ".join(choices)
        raise ConfigurationError(f"own: expected options of {names} by name, got {given!r}")
    found = {}
    for chooser, choice in choices.items():
        values = given.get(chooser, {})
        if choice not in OWN[chooser]:
            if values:
                raise ConfigurationError(
                    f"--{chooser} {choice}: expected no options of its own, got {values!r}"
                )
            continue
        declared = _class(OWN[chooser][choice])
        if not isinstance(values, declared):
            _check_names(f"--{chooser} {choice}", values, options_of(declared))
            values = declared(**values)
        found[chooser] = values
    return found


def _check_names(of: str, values: Any, options: Mapping[str, Option]) -> None:
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{of}: expected its options by name, got {values!r}")
    for name in values.keys() - options.keys():
        raise ConfigurationError(
            f"{of}: unknown option {name!r}{did_you_mean(name, list(options))}"
        )
