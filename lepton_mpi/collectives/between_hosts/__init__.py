"""Collectives over several hosts: lanes complete slices, in the foreground or while gradients are still computed."""
