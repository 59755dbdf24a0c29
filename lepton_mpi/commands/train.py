"""``python -m lepton_mpi.train``: train a model on all ranks; the run itself is ``run/loop.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from lepton_mpi import launcher
from lepton_mpi.commands import prepare_first
from lepton_mpi.commands.command import Command
from lepton_mpi.optimizers import rule_texts
from lepton_mpi.options import own, sources
from lepton_mpi.options.config import OPTIONS, Config
from lepton_mpi.options.option import Option

if TYPE_CHECKING:
    from lepton_mpi.world.world import World

_EPILOGUE = """Where an option's value comes from: the defaults above, then the recipe, then the file of --config, then the
command line; the last one counts. A recipe is taken if --recipe names one, or if neither --data nor --config is given:
then it is digits, with its learning rate of 0.003. The head of a run says which recipe was taken.

--help NAME lists the options that one model or optimizer alone has: {topics}.

{order}

{rules}

mpirun refuses more ranks than cores, and root, unless it is told otherwise: with Open MPI mpirun --oversubscribe and
--allow-run-as-root. ./run_local.sh train does both."""


def _run(chosen: sources.Chosen) -> int:
    config, given = chosen.config, chosen.given
    first = prepare_first.options_for(config)
    launcher.limit_threads(config.threads)
    from lepton_mpi.run import fit
    from lepton_mpi.world import world

    def train(ranks: world.World) -> None:
        ready = prepare_first.prepared(config, first, ranks) if first else config
        page = _rate_page(ready, ranks)
        found = fit.train(ready, ranks, given=given - {"prepare"}, keeps_parameters=False)
        if page:
            with ranks.agreeing():
                if ranks.rank == 0:
                    page.write_page(Path(str(ready.find_out)), found)

    return world.run(train, config.timeout, config.peer_timeout, is_elastic=config.elastic)


def _rate_page(config: Config, ranks: World) -> ModuleType | None:
    """What draws ``--find-out FILE.html``, if that is asked for. Collective. Raises ConfigurationError where it cannot."""
    if not (config.find_out or "").endswith(".html"):
        return None
    from lepton_mpi.reporting import rate_page

    with ranks.agreeing():
        if ranks.rank == 0:
            rate_page.check(Path(str(config.find_out)))
    return rate_page


def _topics() -> Mapping[str, Sequence[Option]]:
    """Whatever can be chosen and has options that others lack: its name, and they."""
    found: dict[str, list[Option]] = {}
    for option in [*OPTIONS.values(), *own.all_own_options()]:
        for choice in option.of[1:]:
            found.setdefault(choice, []).append(option)
    return found


COMMAND = Command(
    "train",
    "train a model on all ranks (the same as python -m lepton_mpi.train)",
    "mpirun -n N python -m lepton_mpi.train [options]",
    "Train one model on all ranks.",
    {"config": sources.CONFIG_FILE, **OPTIONS},
    sources.from_command_line,
    _run,
    _EPILOGUE.format(
        topics=", ".join(_topics()),
        order=rule_texts.ORDER,
        rules="\n\n".join(f"--optimizer {name}: {text}" for name, text in rule_texts.TEXTS.items()),
    ),
    _topics,
    rule_texts.TEXTS,
)
