"""Which of these tests are collected where."""

from lepton_mpi import launcher

# Jobs of several ranks are started by one process, not by ranks.
collect_ignore = ["test_backend.py"] if launcher.is_launched() else []
