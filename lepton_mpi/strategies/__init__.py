"""How gradients become new parameters.

strategy.py           the protocol, START HERE; registry.py names the strategies
synchronous.py        --strategy sync, which has three executors (executor.py: what they have in common):
shared_parameters.py  one copy of parameters and state per host, updated slice by slice: the default on one host
overlapped_parameters.py  the same over several hosts, with the gradients on the wire during the backward pass, and sums
                      during the next forward pass
replicated.py         a copy of everything on every rank, for sums over messages
host_state.py         the one copy
step_kernels.py       its sum and update in one pass
micro_batches.py      the unit of the gradient sum
clipping.py           by the norm of the whole gradient
compression.py        --compress: a codec for the sums between hosts (collectives/compressing), and its residuals as state
undelivered.py        the same with sync on one host: residuals of a run that was on several
workers.py            --strategy local, diloco, elastic, gossip: who makes steps by itself, a rank or a host
meetings.py           workers that meet: the mean of their parameters, by a codec or as it is
streaming.py          the same while they go on with their steps: diloco --overlap-steps
gossip.py topology.py asynchronous_gossip.py  averages with a few others, which wait for these or for nobody
"""
