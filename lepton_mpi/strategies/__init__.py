"""How gradients become new parameters.

micro_batches.py   the unit of the gradient sum
sync.py            every rank adds, every rank updates, in step
"""
