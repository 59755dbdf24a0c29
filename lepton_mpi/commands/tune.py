"""``python -m lepton_mpi tune``: measure every allreduce on these ranks, see ``collectives/choosing/measuring.py``."""

from dataclasses import dataclass

from lepton_mpi import launcher
from lepton_mpi.commands.command import command
from lepton_mpi.options.kinds import Bytes
from lepton_mpi.options.option import ABOVE_0, Checked, option


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """What is measured, and for how long."""

    max: int = option(
        64 << 20,
        "largest vector",
        ("a size of at least 8 bytes, such as 64M", lambda byte_count: byte_count >= 8),
        kind=Bytes(),
    )
    seconds: float = option(0.05, "to measure one case for", ABOVE_0)
    dry_run: bool = option(False, "store nothing")
    timeout: float = option(300.0, "seconds without progress that end the job", ABOVE_0)


def _run(chosen: Options) -> int:
    launcher.limit_threads(1)
    from lepton_mpi.collectives.choosing import measuring
    from lepton_mpi.world import world

    return world.run(
        lambda ranks: measuring.tune(ranks, chosen.max, chosen.seconds, chosen.dry_run),
        chosen.timeout,
    )


COMMAND = command(
    "tune",
    "measure every allreduce on these ranks; --allreduce auto goes by it from then on",
    "[options]",
    Options,
    _run,
)
