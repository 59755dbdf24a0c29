"""One process, no MPI: all logic and all edge cases; ranks are threads or are simulated."""
