"""``python -m lepton_mpi.train``: the door to a training run, which is ``run/loop.py``."""

from lepton_mpi.__main__ import train_command

if __name__ == "__main__":
    raise SystemExit(train_command())
