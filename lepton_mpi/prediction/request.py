"""What is asked for; the words of the command line are checked in ``commands/predict.py``."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Request:
    """The same on every rank.

    Attributes
    ----------
    checkpoint : str
        A file, or a folder of which the newest that is whole is taken.
    inputs : tuple of str
        Prepared files, or raw ones.
    out : str
        File to write; its suffix is its format.
    split : str
        Of prepared files: train, validation, test or all.
    proba : bool
        Whether the probability of each class is written.
    embeddings : str or None
        Layer of a network whose activations are written.
    key : str or None
        Column of raw tables that names the rows, in place of their numbers.
    unknown : {"error", "missing"}
        What a category is that was not in the training file.
    like : str or None
        The training file, where the checkpoint does not say how its rows were encoded.
    prepare : str or None
        Options of ``prepare`` with which raw inputs are read, such as ``--delimiter ;``.
    model : str or None
        Needed for a model of the user's own.
    force : bool
        Write over a file that exists.
    """

    checkpoint: str
    inputs: tuple[str, ...]
    out: str
    split: str = "all"
    proba: bool = False
    embeddings: str | None = None
    key: str | None = None
    unknown: str = "error"
    like: str | None = None
    prepare: str | None = None
    model: str | None = None
    force: bool = False
