"""What ``benchmarks/training.py`` and ``benchmarks/update.py`` run on ranks.

training: the same rows, initial parameters, order and optimizer

    launches.py          which engines there are, and how each is started
    cases.py             the models and the data, from NumPy alone, so that every engine's environment has them
    lepton.py            this engine, and the time of its matrix products alone
    product_kernels.py   those products
    torch_engine.py      torch in one process, or DistributedDataParallel over gloo
    keras_engine.py      Keras on TensorFlow, in one process
    sklearn_engine.py    scikit-learn's MLPClassifier, in one process

update: the same gradients and optimizer, without a model

    update.py            times and checks one way after the other
    update_ways.py       this engine's ways, and those that MPI offers
    update_reference.py  gradients and parameters whose values are known
"""
