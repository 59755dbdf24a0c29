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
# Networks of layers, small, with dropout and augmentation where they have them.
NETWORKS = {
    "cnn": {
        "model": "cnn",
        "channels": (4, 6),
        "units": 8,
        "augment": ("flip", "crop=1"),
        "dropout": 0.25,
    },
    "resnet8": {"model": "resnet8", "width": 4, "augment": ("crop=1", "noise=0.1"), "epochs": 2},
    "resnet8, sync_batch": {"model": "resnet8", "width": 4, "norm": "sync_batch"},
    "resnet20, bfloat16": {"model": "resnet20", "width": 4, "activations": "bfloat16"},
    "resnet18": {"model": "resnet18", "width": 4, "augment": ("crop=1",), "recompute": 2},
    "tcn": {"model": "tcn", "width": 4, "levels": 2},
    "gpt": {
        **{
            "data": "python_topics",
            "model": "gpt",
            "layers": 2,
            "width": 16,
            "heads": 2,
            "context": 32,
        },
        **{"stride": 512, "dropout": 0.1, "global_batch": 40},
    },
    "speech_cnn": {
        "data": "words",
        "model": "speech_cnn",
        "width": 4,
        "blocks": 1,
        "augment": ("noise=0.1",),
        "dropout": 0.2,
    },
    "speech_gru": {"data": "words", "model": "speech_gru", "width": 5, "layers": 2, "dropout": 0.2},
    "wide_and_deep": {
        **{"data": "loans", "model": "wide_and_deep", "hidden": (8,), "crosses": ("make*zone",)},
        **{"dropout": 0.2, "global_batch": 500},
    },
}
_NETWORK_RUNS = {
    name: {"epochs": 1, "progress": "none", "learning_rate": 0.003, **options}
    for name, options in NETWORKS.items()
}


def digests_program() -> str:
    """A program that makes all runs one after the other and prints their digests by name, as JSON."""
    return (
        "import json\nfrom lepton_mpi import fit\nfrom lepton_mpi.launcher import launched_rank\n\n"
        f"runs = {RUNS | _NETWORK_RUNS!r}\n"
        "digests = {name: fit(**options)['weights_digest'] for name, options in runs.items()}\n"
        "if launched_rank() == 0:\n    print(json.dumps(digests))\n"
    )


def printed_digests(text: str) -> dict[str, str]:
    """What the program printed."""
    (line,) = [line for line in text.splitlines() if line.startswith("{")]
    return json.loads(line)
