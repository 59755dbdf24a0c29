"""Under mpirun, on any number of ranks: that the real thing does what the serial floor says."""
