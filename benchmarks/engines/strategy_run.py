"""A training run by the options of ``lepton_mpi.train``, whose end is written as a row to the file given by ``--json``."""

import sys

from benchmarks.harness import write_rows
from lepton_mpi.options import sources
from lepton_mpi.run.fit import train
from lepton_mpi.world.world import World, run


def main(words: list[str]) -> int:
    """Train; rank 0 writes."""
    at = words.index("--json")
    path, words = words[at + 1], words[:at] + words[at + 2 :]
    chosen = sources.from_command_line(words)

    def work(world: World) -> None:
        end = train(chosen.config, world, given=chosen.given)
        if world.rank == 0:
            row = {key: value for key, value in end.items() if key != "parameters"}
            write_rows(path, [row | {"steps": steps_of(end, chosen.config)}])

    return run(work, chosen.config.timeout)


def steps_of(end: dict, config) -> int:
    """Optimizer steps of the run."""
    rows = round(end["samples_per_second"] * end["seconds"])
    per_epoch = -(-rows // config.epoch_count // config.batch_rows)
    return per_epoch * config.epoch_count


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
