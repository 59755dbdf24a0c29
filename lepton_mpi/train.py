"""``python -m lepton_mpi.train``: the door to a training run, which is ``run/loop.py``."""

import sys

if __name__ == "__main__":
    from lepton_mpi import early_signals

    early_signals.remember()
    from lepton_mpi.commands.train import COMMAND

    raise SystemExit(COMMAND.start(sys.argv[1:]))
