"""From a user's raw files to one HDF5 file to train on: ``python -m lepton_mpi prepare INPUT… OUTPUT.h5``.

START HERE, then pipeline.py, then the rest in the order of the data flow::

    options.py        every option, checked before NumPy and MPI are loaded
    readers/          one file per format: parts (files) cut into blocks of rows; read(block) -> Block
    passes.py         all blocks, in rounds of one a rank
    survey.py         pass 1: kinds of columns, categories, labels, missing cells; categories.py, odd_columns.py, row_hashes.py
    labels.py         label cells as classes or targets
    selection.py      which rows stay, and why the others do not; splitting.py: which split each is in
    statistics.py     mean, variance, extremes, exact quantiles of training rows; a pass each
    transformation.py clip, fill and drop columns, fitted on training rows
    normalisation.py  shift and scale, fitted on training rows after that
    encoding.py       all of that as JSON in the file, and applied to others by --like; readers/recoding.py the same of texts
    limits.py         what the reader of the file would refuse
    last_pass.py      rows to rank 0, which writes the file of ``data/file_format.py`` by writing.py
    token_streams.py  texts in one piece, which need none of these passes (--stream); stream_encoding.py is their --like;
                      tokens are found by character_streams.py, or of BPE by byte_pair_streams.py in the pieces of text_pieces.py
    summary.py        the table printed at the end, and again by ``inspect``
    inspection.py     ``python -m lepton_mpi inspect FILE.h5``

Who computes what: the source is cut into blocks of about ``--block`` bytes, in an order that depends on the inputs
alone; block b is read by rank b mod P. A pass runs in rounds of P blocks. In each round every rank reads and
works on its own block inside ``World.agreeing``: a wrong cell raises the same error on all ranks, and since the lowest
rank holds the lowest block, it is the first wrong cell of the file whatever P is.
What is gathered: of pass 1, per row a hash, label, group and split, 32 bytes or so, on every rank; of a pass of statistics,
per block and column five numbers, merged along one binary tree over the block numbers, and whole-number counts, whose
sum has no order; of the last pass, the rows themselves, sent to rank 0 in the order of the blocks, which writes them.
So every rank decides the same about every row, and the file has the same bits for any number of ranks.
Blocks stay in memory up to ``--memory``, shared among a host's ranks; beyond it they are read again in every pass.

The order of cleaning, which is fixed: rows without a label or, with ``--missing drop``, with any missing cell; duplicates;
the split; balance, on training rows only; constant columns; clipping; filling; normalisation. The last four are fitted on
training rows and applied to all.
"""
