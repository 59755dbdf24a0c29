"""What networks are made of; nothing here knows a rank, a file or an optimizer.

layer.py         START HERE: what a layer says, and what it is given
dense.py, activation.py, dropout.py, losses.py    one file a layer, its ``*_kernels.py`` beside it
embedding.py, rotary.py, norm.py, attention.py, gated.py, token_loss.py    those of language models
column_embedding.py, crossed_linear.py    those of tables with categories
convolution.py   over images and sequences; windows.py has the tables of where its windows lie
gru.py           from step to step of a sequence
batch_norm.py, group_norm.py    by channel, one set of kernels for both
pooling.py       the largest number or the mean of windows, or of all places
compose.py       sequence, residual, parallel branches, shared parameters -> a graph
storage.py       which values of a graph share memory, and which are computed a second time
plan.py          the calls of a step, and an address for every array
bound.py         a plan with memory, ready to be walked
dense_stack.py   dense layers fused into one kernel, for small networks
initial.py       random initial parameters

Adding a layer is adding its file; ``tests/own/rms_norm.py`` does it outside of the package.
"""
