"""What each engine of ``benchmarks/training.py`` runs: the same rows, initial parameters, order and optimizer.

launches.py        which engines there are, and how each is started
cases.py           the models and the data, from NumPy alone, so that every engine's environment has them
lepton.py          this engine, and the time of its matrix products alone
torch_engine.py    torch in one process, or DistributedDataParallel over gloo
keras_engine.py    Keras on TensorFlow, in one process
sklearn_engine.py  scikit-learn's MLPClassifier, in one process
"""
