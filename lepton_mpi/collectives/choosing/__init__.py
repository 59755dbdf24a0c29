"""Which algorithm is fastest here: trials during a run (online autotuner), timing, and tables of what was measured."""
