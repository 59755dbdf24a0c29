"""Training with rows that a program holds: ``fit(X, y)``, and scikit-learn's protocol.

    rows.py         arrays and frames with their answers, as a source of ``prepare``
    training.py     START HERE: rows -> prepared file in a private folder -> the training of the command line -> checkpoint
    arrays_fit.py   ``lepton_mpi.fit``: of a file, or of arrays
    validation.py   what scikit-learn checks of X and y
    estimator.py    ``LeptonClassifier`` and ``LeptonRegressor``; the only modules that import scikit-learn are these two

Rows go through the same ``prepare`` as a file with the same cells, so categories, gaps, scaling of features and targets, and what a
checkpoint knows of them, are the same. The prepared file is read by the same loader, so the weights have the bits that the command
line gets from that file, on any number of ranks.

Who does what: rank 0 writes the file into a folder that nobody else can read, and tells the others its name; all ranks train; rank 0
writes the model beside it at the end; the folder goes when all of them are through, or when rank 0 fails. With ``n_ranks=N`` the calling
process writes the file, ``starting`` brings up the ranks, and the model comes back as the bytes of its checkpoint. A process that is
killed leaves the folder in the system's folder for temporary files. Ranks of several hosts are refused: they share no such folder.
"""

from typing import Any

__all__ = ["LeptonClassifier", "LeptonRegressor"]


def __getattr__(name: str) -> Any:
    """The two classes on first use, which needs scikit-learn."""
    if name not in __all__:
        raise AttributeError(f"module 'lepton_mpi.estimators' has no attribute {name!r}")
    from lepton_mpi.estimators import estimator

    return getattr(estimator, name)
