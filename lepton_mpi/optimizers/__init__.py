"""Optimizers: the rules, their kernels, and the learning rate by step."""
