"""Which of these tests are collected where."""

from lepton_mpi import launch

# Jobs of several ranks are started by one process, not by ranks.
collect_ignore = ["test_backend.py"] if launch.is_launched() else []
