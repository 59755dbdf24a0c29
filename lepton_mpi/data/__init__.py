"""From file to batches; knows nothing of models or messages.

Reading order::

    order.py      pure: which rows form a step of an epoch, which of them belong to a rank
    file_format.py  what ``prepare`` writes: the data file in full
    hdf5.py       the accepted file layouts; opening, checking, reading rows
    trust.py      what a file from elsewhere may hold
    stored.py     whether the bytes that it claims are there
    probe.py      a process that looks at a file first, and may die of it
    loader.py     rows in memory, once per host, and batches gathered from them
    kernels.py    Numba: gather rows, convert, normalise
    augmentation.py  what ``--augment`` asks for; augmentation_kernels.py gathers rows and does it
    embedded/     real data sets that come with the package, and the script that made them
"""
