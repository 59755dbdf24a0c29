"""One file for each command of python -m lepton_mpi; nobody imports them but __main__.py and train.py."""
