"""From file to batches; knows nothing of models or messages.

Reading order::

    order.py        pure: which rows form a micro-batch of a step of an epoch
    host_order.py   the order of an epoch, made by the ranks of a host together
    file_format.py  what ``prepare`` writes: the data file in full
    layouts.py      which data sets of a file are rows, and what is checked of them; texts.py the same of a text in one piece
    tokenizer_facts.py  what a tokenizer.json of byte-level BPE may say; byte_pairs.py encodes texts by it, and makes one
    encodings.py    what the numbers stand for, by name, and how two data sets differ in it; named.py reads the names
    hdf5.py         how files are found, opened and compared
    trust.py        what a file from elsewhere may hold
    stored.py       whether the bytes that it claims are there
    probe.py        a process that looks at a file first, and may die of it
    stored_rows.py  rows of a data set, read without asking HDF5; checksum_kernels.py is its Fletcher32
    tables.py       rows of several files, one behind the other
    windows.py      pure: which tokens of a text a row is; token_tables.py reads them
    ways.py         where rows are: in memory, mapped, or streamed
    rows.py         the rows of one purpose: what of them is in memory, which count
    opening.py      from paths to tables; filling.py makes rows of them, holding_out.py the splits that a file has not
    dataset.py      everything that training needs of its files; host.py is what they need of the world
    loader.py       START HERE: from names of files to a data set
    training_order.py  which order the training rows come in
    reads.py        the reads of a run, in turn; prefetch.py is the thread that streams
    gathering.py    from the rows of a read to an array of a batch, by kind of input
    batches.py      from reads to batches
    kernels.py      Numba: gather rows, convert, normalise
    augmentation.py what is done to training rows at random; augmentation_kernels.py does it
    embedded/       real data sets that come with the package, and the script that made them
"""
