"""What a trained model says of rows: ``python -m lepton_mpi predict``, and ``lepton_mpi.load`` in a program.

START HERE, then in the order of the data::

    request.py      what is asked for
    subject.py      a checkpoint as something to predict with: model, parameters, how rows are encoded
    sources.py      raw inputs opened as the training file was encoded; files of images and sounds need no folder for each class
    ahead.py        blocks read by a thread, while the one before is predicted
    encoder.py      a block of raw rows -> inputs of the model in memory, wrong cells refused by file, row and column
    frames.py       arrays and data frames as blocks
    prepared.py     rows of a file of ``prepare``, in chunks that do not depend on the number of ranks
    predictor.py    batches -> classes, probabilities, targets, activations of a layer (embeddings.py)
    fields.py       the columns of the output
    files/          CSV, Parquet, npz, HDF5: one file each
    streaming.py    the command: rounds of a chunk a rank
    model.py        ``load`` and ``TrainedModel``, without MPI

Who computes what: the input is cut into chunks, which depend on the input alone: blocks of ``prepare``, or some thousand rows of
a prepared file. Chunk c is read, encoded, predicted and, for CSV, written as text by rank c mod P. In each round every
rank does one chunk inside ``World.agreeing``, so that the first wrong cell of the input is the error for any P; the ranks tell each
other their row counts, which number the rows, and send what they have to rank 0, which appends it in the order of the chunks.
So a rank holds two or three chunks and never the input, and the file has the same bytes for any number of ranks.
The file has a temporary name until it is whole: a rank that dies ends the job and leaves nothing under the final name.
A round in which a rank has no chunk, and a chunk without a row, send arrays of length 0.
"""
