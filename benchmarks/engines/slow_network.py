"""A training run by the options of ``lepton_mpi.train`` on emulated hosts: of every epoch seconds, and bytes that each host's link has sent.

Bytes are those that the kernel counts at the host's interface, headers included, between the epoch's first step and its last one's end.
``--case NAME --rows N --epoch-steps N`` in place of ``--data``: rows of that model of ``cases.py``, N of a rank and step. Rank 0 writes the row to ``--json``.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.engines.lepton import write_case
from benchmarks.harness import write_rows
from benchmarks.wire import sent_bytes
from lepton_mpi import QuietHook
from lepton_mpi.options import sources
from lepton_mpi.run.fit import train
from lepton_mpi.world.world import World, run


class Epochs(QuietHook):
    """Seconds of each epoch, and the bytes of the host that has sent most in it."""

    def __init__(self, world: World) -> None:
        self._world, self._before = world, 0
        self.seconds: list[float] = []
        self.sent: list[int] = []
        self.losses: list[float] = []

    def _now(self) -> int:
        # Nobody is in the midst of a message then.
        self._world.comm.Barrier()
        now = sent_bytes(Path("/proc/net/dev").read_text())
        self._world.comm.Barrier()
        return now

    def before_epoch(self, run) -> None:
        """Count from here."""
        self._before = self._now()

    def after_epoch(self, run) -> None:
        """All that the steps have sent is counted."""
        sent = self._now() - self._before
        self.sent.append(max(self._world.comm.allgather(sent)))
        self.seconds.append(run.figures["seconds"])
        self.losses.append(run.figures["loss"])


def main(words: list[str]) -> int:
    """Train."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--json", required=True)
    parser.add_argument("--case")
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--epoch-steps", type=int, default=0)
    options, rest = parser.parse_known_args(words)
    return run(lambda world: _measure(world, options, rest), 600)


def _measure(world: World, options: argparse.Namespace, words: list[str]) -> None:
    # Of rank 0's process, and removed at its end.
    made = tempfile.TemporaryDirectory(prefix="lepton-slow-") if world.rank == 0 else None
    if options.case:
        folder = Path(world.comm.bcast(made and made.name))
        words = [*words, *_options_of_case(world, options, folder / "rows.h5")]
    chosen = sources.from_command_line([*words, "--progress", "none"])
    epochs = Epochs(world)
    end = train(chosen.config, world, hooks=[epochs], given=chosen.given)
    if world.rank == 0:
        row = {key: value for key, value in end.items() if key != "parameters"}
        row |= {"epoch_seconds": epochs.seconds, "epoch_bytes": epochs.sent}
        row |= {"epoch_losses": epochs.losses, "global_batch": chosen.config.global_batch}
        row |= {"parameter_bytes": sum(array.nbytes for array in end["parameters"].values())}
        write_rows(options.json, [row])
    if made:
        made.cleanup()


def _options_of_case(world: World, options: argparse.Namespace, path: Path) -> list[str]:
    from benchmarks.engines.cases import CASES

    case, batch = CASES[options.case], options.rows * world.size
    write_case(world, path, case, batch * options.epoch_steps)
    found = ["--data", str(path), "--global-batch", str(batch), "--micro-batch", str(options.rows)]
    found += ["--model", "mlp", "--hidden", *map(str, case.widths[1:-1])]
    return [*found, "--validation-split", "0", "--test-split", "0"]


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
