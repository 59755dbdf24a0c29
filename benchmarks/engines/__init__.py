"""What the programs in ``benchmarks/`` run on ranks, or in the environments of peers.

training: the same rows, initial parameters, order and optimizer

    launches.py          which engines there are, and how each is started
    cases.py             the models and the data, from NumPy alone, so that every engine's environment has them
    networks.py          the same of networks of layers
    lepton.py            this engine, and the time of its matrix products alone
    product_kernels.py   those products
    layer_products.py    those of a network of layers, read off its plan
    torch_engine.py      torch in one process, or DistributedDataParallel over gloo
    torch_networks.py    the networks of layers in torch
    keras_engine.py      Keras on TensorFlow, in one process
    sklearn_engine.py    scikit-learn's MLPClassifier, in one process

layers: each on one batch

    layer_cases.py       which there are, their values, and the clock
    layer_lepton.py      this engine's, called by layer_calls.py
    layer_torch.py       torch's

memory: memory_ranks.py, a run beside what was predicted of it

update: the same gradients and optimizer, without a model

    update.py            times and checks one way after the other
    update_ways.py       this engine's ways, and those that MPI offers
    update_reference.py  gradients and parameters whose values are known

loader: the rows of the same files, in random order

    loader.py            this engine's three ways, under MPI
    loader_peers.py      h5py, a NumPy memmap and the plain read that is the limit, in plain processes
    loader_torch.py      torch's DataLoader, likewise
    loader_case.py       the clock, the page cache's state and the row, the same for all of them
    loader_rows.py       rows whose content follows from their number, and the check of what came
    page_cache.py        a file into the page cache, out of it, and how much of it is there
    plain_ranks.py       processes that wait for each other, without MPI
"""
