"""Layers: formula, kernels and initialisation of each; nothing here knows a rank, a file or an optimizer."""
