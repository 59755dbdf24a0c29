"""``python -m lepton_mpi chaos``: a training of yours under faults, started again until it is over.

draw.py      which fault comes next, at which step, on how many ranks
start.py     one start of the training: how it ended, when, and what it left behind
play.py      one after the other, and what was lost
"""
