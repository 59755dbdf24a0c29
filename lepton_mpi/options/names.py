"""What can be chosen by name: models, tasks, strategies, optimizers, codecs, each as ``module:attribute``.

Adding one is adding its file and one line here. Only texts, so that ``--help`` loads neither NumPy nor Numba; the registry
in each folder says how what is named is called.
"""

from typing import Literal

MODELS = {
    "mlp": "lepton_mpi.models.mlp:build",
    "logistic": "lepton_mpi.models.logistic:build",
    "gpt": "lepton_mpi.models.gpt:build",
    "cnn": "lepton_mpi.models.cnn:build",
    "resnet8": "lepton_mpi.models.resnet:resnet8",
    "resnet20": "lepton_mpi.models.resnet:resnet20",
    "resnet32": "lepton_mpi.models.resnet:resnet32",
    "resnet18": "lepton_mpi.models.resnet:resnet18",
    "tcn": "lepton_mpi.models.tcn:build",
    "wide_and_deep": "lepton_mpi.models.wide_and_deep:build",
    "speech_cnn": "lepton_mpi.models.speech_cnn:build",
    "speech_gru": "lepton_mpi.models.speech_gru:build",
}

TASKS = {
    "classes": "lepton_mpi.tasks.classes:make",
    "targets": "lepton_mpi.tasks.targets:make",
    "tokens": "lepton_mpi.tasks.tokens:make",
}

STRATEGIES = {
    "sync": "lepton_mpi.strategies.synchronous:make",
    "local": "lepton_mpi.strategies.local:make",
    "diloco": "lepton_mpi.strategies.diloco:make",
    "hierarchical": "lepton_mpi.strategies.hierarchical:make",
    "delayed": "lepton_mpi.strategies.delayed:make",
    "bounded": "lepton_mpi.strategies.bounded:make",
    "gossip": "lepton_mpi.strategies.gossip:make",
    "elastic": "lepton_mpi.strategies.elastic:make",
    "adasum": "lepton_mpi.strategies.adasum:make",
}

OPTIMIZERS = {
    "adam": "lepton_mpi.optimizers.rules:adam",
    "adamw": "lepton_mpi.optimizers.rules:adamw",
    "sgd": "lepton_mpi.optimizers.rules:sgd",
    "momentum": "lepton_mpi.optimizers.rules:momentum",
    "nesterov": "lepton_mpi.optimizers.rules:nesterov",
    "lion": "lepton_mpi.optimizers.rules:lion",
    "adagrad": "lepton_mpi.optimizers.rules:adagrad",
    "rmsprop": "lepton_mpi.optimizers.rules:rmsprop",
}

_CODECS = "lepton_mpi.collectives.compressing"
CODECS = {
    "none": f"{_CODECS}.codec:none",
    "fp16": f"{_CODECS}.half:Fp16",
    "bf16": f"{_CODECS}.half:Bf16",
    "int8": f"{_CODECS}.int8:Int8",
    "int4": f"{_CODECS}.int4:Int4",
    "sign": f"{_CODECS}.sign:Sign",
    "topk": f"{_CODECS}.topk:TopK",
    "randomk": f"{_CODECS}.randomk:RandomK",
    "powersgd": f"{_CODECS}.powersgd:PowerSgd",
}

# Types of other libraries whose instances are models, and what describes one as a ``Described`` (models/other_libraries.py).
LIBRARIES = {
    "torch.nn:Module": "lepton_mpi.torch.module:model",
}

# What export writes, by the end of the file's name; ``exporting/export.py`` has the function of each.
EXPORTS = (".onnx", ".safetensors", ".weights.h5", ".npz")

# The names of collectives/allreduce.py, which must not be imported here: --help loads no NumPy.
AllreduceName = Literal[
    "auto",
    "host",
    "two_level",
    "ring",
    "bidirectional_ring",
    "recursive_doubling",
    "rabenseifner",
    "circulant",
    "double_binary_tree",
    "pairwise",
    "direct",
    "mpi",
    "mpi_persistent",
]


# The names of models/activation_kernels.py, and the losses of models/mlp.py, for the same reason.
ActivationName = Literal["relu", "gelu", "tanh", "sigmoid", "silu", "gelu_tanh"]
LossName = Literal["auto", "cross_entropy", "mse", "huber"]

YKind = Literal["auto", "classes", "targets", "tokens"]

# Whose options: that of the model, and the models.
OF_MLP = ("model", "mlp", "wide_and_deep")
# Models that are a sequence of parts, see models/network.py.
OF_NETWORKS = (
    *("model", "gpt", "cnn", "tcn", "wide_and_deep", "speech_cnn", "speech_gru"),
    *("resnet8", "resnet20", "resnet32", "resnet18"),
)
