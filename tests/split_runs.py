"""Runs whose weights must be the same on any split, as options of ``Config``: every model with two optimizers.

``parallel/test_any_split.py`` compares them with a training without ranks; ``digests_program`` is for jobs.
"""

import json

_MODELS = {
    "digits": {},
    "breast_cancer": {"data": "breast_cancer", "model": "logistic", "global_batch": 32},
    "dropout, clipped": {"hidden": (48, 30), "dropout": 0.3, "clip_norm": 0.5, "global_batch": 60},
    "gelu": {"activation": "gelu"},
    "augmented": {"augment": ("flip", "crop=1", "noise=0.1"), "dropout": 0.1},
    "regression": {"loss": "huber", "activation": "tanh", "dropout": 0.1},
    # Between hosts most buckets are only parts of a parameter, whose sums arrive when the next forward pass has begun.
    "buckets of an element": {"hidden": (3,), "bucket_bytes": 1},
    "a rank without rows": {"global_batch": 9, "micro_batch": 3, "bucket_bytes": 9000},
    "empty last batches": {"global_batch": 100, "micro_batch": 30, "bucket_bytes": 9000},
    "buckets, clipped": {"hidden": (40, 30), "clip_norm": 0.5, "bucket_bytes": 3000},
    "frozen": {"hidden": (40, 30), "freeze": ("layer1/*", "layer2/bias"), "bucket_bytes": 3000},
}
_OPTIMIZERS = {
    "adam": {"optimizer": "adam", "learning_rate": 0.003},
    "momentum": {"optimizer": "sgd", "learning_rate": 0.05},
}
RUNS = {
    f"{model}, {optimizer}": {"epochs": 3, "progress": "none", **options, **more}
    for model, options in _MODELS.items()
    for optimizer, more in _OPTIMIZERS.items()
}


def digests_program() -> str:
    """A program that makes all runs one after the other and prints their digests by name, as JSON."""
    return (
        "import json\nfrom lepton_mpi import fit\nfrom lepton_mpi.launch import launched_rank\n\n"
        f"runs = {RUNS!r}\n"
        "digests = {name: fit(**options)['weights_digest'] for name, options in runs.items()}\n"
        "if launched_rank() == 0:\n    print(json.dumps(digests))\n"
    )


def printed_digests(text: str) -> dict[str, str]:
    """What the program printed."""
    (line,) = [line for line in text.splitlines() if line.startswith("{")]
    return json.loads(line)
