"""From file to batches; knows nothing of models or messages.

Reading order::

    order.py        pure: which rows form a micro-batch of a step of an epoch
    host_order.py   the order of an epoch, made by the ranks of a host together
    file_format.py  what ``prepare`` writes: the data file in full
    hdf5.py         the accepted file layouts; opening and checking
    trust.py        what a file from elsewhere may hold
    stored.py       whether the bytes that it claims are there
    probe.py        a process that looks at a file first, and may die of it
    stored_rows.py  rows of a data set, read without asking HDF5; checksum_kernels.py is its Fletcher32
    tables.py       rows of several files, one behind the other
    ways.py         where rows are: in memory, mapped, or streamed
    loader.py       from names of files to rows that are ready
    reads.py        the reads of a run, in turn; prefetch.py is the thread that streams
    batches.py      from rows to a batch
    kernels.py      Numba: gather rows, convert, normalise
    augmentation.py what is done to training rows at random; augmentation_kernels.py does it
    embedded/       real data sets that come with the package, and the script that made them
"""
