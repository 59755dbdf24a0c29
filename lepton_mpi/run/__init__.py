"""A training run: what it holds, how it is built, its loop (START in loop.py), hooks, checkpoints, resume, report."""
