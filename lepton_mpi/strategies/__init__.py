"""How gradients become new parameters.

micro_batches.py      the unit of the gradient sum
strategy.py           what some strategies leave to the next step, and others do not
shared_parameters.py  one copy of parameters and state per host, updated slice by slice: the default on one host
overlapped_parameters.py  the same over several hosts, with the gradients on the wire during the backward pass, and sums
                      during the next forward pass
host_state.py         the one copy
step_kernels.py       its sum and update in one pass
replicated.py         a copy of everything on every rank, for sums over messages
clipping.py           by the norm of the whole gradient
"""
