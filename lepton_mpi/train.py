"""``python -m lepton_mpi.train``: the door to a training run, which is ``run/loop.py``."""

import sys

from lepton_mpi.commands.train import COMMAND

if __name__ == "__main__":
    raise SystemExit(COMMAND.start(sys.argv[1:]))
