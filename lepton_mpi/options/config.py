"""One frozen, checked configuration; ``config_parser.py`` makes one of a command line.

Adding an option means adding a field to ``Config``: the field carries its help text and its check, and
``--help``, the TOML keys and the error messages follow from it.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from lepton_mpi.data import augmentation
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.wording import did_you_mean

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
ActivationName = Literal["relu", "gelu", "tanh", "sigmoid", "silu"]
LossName = Literal["auto", "cross_entropy", "mse", "huber"]

OptimizerName = Literal["adam", "adamw", "sgd", "nesterov", "lion", "adagrad", "rmsprop"]

_Check = tuple[str, Callable[[Any], bool]]
_AT_LEAST_0: _Check = ("a number of at least 0", lambda value: value >= 0)
_AT_LEAST_1: _Check = ("a whole number of at least 1", lambda value: value >= 1)
_POSITIVE: _Check = ("a number above 0", lambda value: 0 < value < float("inf"))
_FRACTION: _Check = ("a number from 0 up to, not including, 1", lambda value: 0 <= value < 1)


def _option(default: Any, help_text: str, check: _Check | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_text, "check": check})


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a run; equal on every rank (``World.agree_on`` checks it)."""

    recipe: str = _option("digits", "ready-made options, or the path of a TOML file with options")
    data: tuple[str, ...] = _option(
        ("digits",),
        "HDF5 files, which make one data set together, patterns of them, or an embedded set: digits, breast_cancer",
        ("names of files, one at least", lambda value: len(value) > 0),
    )
    loader: Literal["auto", "memory", "mapped", "streamed"] = _option(
        "auto",
        "where rows are: copied into memory once per host, mapped from the file, or read ahead in windows; "
        "auto: by their size and the memory that is free",
    )
    shuffle: Literal["auto", "full", "blocks"] = _option(
        "auto",
        "order of an epoch; blocks: runs of rows, then rows within windows of some of them, as streaming needs it; "
        "auto: full unless rows are streamed",
    )
    shuffle_buffer: int = _option(
        64 << 20,
        "bytes of rows that shuffle blocks mixes at a time, in all ranks together",
        _AT_LEAST_1,
    )
    augment: tuple[str, ...] = _option(
        (),
        "what is done to training rows at random: flip (left to right), crop=PIXELS, noise=DEVIATION",
    )
    model: str = _option(
        "mlp", "mlp, logistic, or FILE.py:NAME, a callable that returns your own model"
    )
    hidden: tuple[int, ...] = _option(
        (128,),
        "widths of the mlp's hidden layers",
        ("whole numbers of at least 1", lambda v: min(v, default=1) >= 1),
    )
    activation: ActivationName = _option(  # noqa: RUF009  a frozen field's default
        "relu", "of the mlp's hidden layers; gelu is the exact one, by the error function"
    )
    dropout: float = _option(
        0.0, "share of the mlp's hidden units dropped in training, in steps of 1/65536", _FRACTION
    )
    loss: LossName = _option(  # noqa: RUF009  a frozen field's default
        "auto",
        "of the mlp; auto: cross_entropy where y are whole numbers, mse where they are floats; mse and huber "
        "take y as numbers to predict",
    )
    huber_delta: float = _option(
        1.0, "of loss huber: size from which on an error no longer counts by its square", _POSITIVE
    )
    dtype: Literal["float32", "float64"] = _option(
        "float32", "of parameters, gradients and batches"
    )
    strategy: str = _option(
        "sync", "how gradients become parameters: sync, or FILE.py:NAME of your own"
    )
    hook: tuple[str, ...] = _option(
        (), "FILE.py:NAME of your own, called at every step and epoch; see lepton_mpi.QuietHook"
    )
    initial: str | None = _option(
        None, "checkpoint to take the initial parameters from; default: random"
    )
    epochs: int = _option(30, "passes over the training rows", _AT_LEAST_1)
    global_batch: int = _option(
        64, "rows of one optimizer step, over all ranks together", _AT_LEAST_1
    )
    micro_batch: int = _option(
        0,
        "rows of one kernel call, the unit of the sum; 0: an eighth of the global batch",
        _AT_LEAST_0,
    )
    optimizer: OptimizerName = _option(  # noqa: RUF009  a frozen field's default
        "adam",
        "sgd and nesterov have momentum; adamw and lion decay weights apart from the gradient",
    )
    learning_rate: float = _option(1e-3, "step size of the optimizer, at its peak", _POSITIVE)
    momentum: float = _option(0.9, "of sgd and nesterov", _FRACTION)
    weight_decay: float = _option(
        0.0,
        "pull of the weights towards 0; arrays of one dimension, such as biases, have none",
        _AT_LEAST_0,
    )
    clip_value: float = _option(
        0.0, "largest value of an element of the mean gradient; 0: no limit", _AT_LEAST_0
    )
    clip_norm: float = _option(0.0, "largest norm of the mean gradient; 0: no limit", _AT_LEAST_0)
    schedule: Literal["constant", "step", "cosine"] = _option(
        "constant", "of the learning rate after the warm-up; cosine ends at 0"
    )
    warmup_epochs: int = _option(0, "epochs in which the learning rate grows from 0", _AT_LEAST_0)
    schedule_epochs: int = _option(10, "of schedule step: epochs between two steps", _AT_LEAST_1)
    schedule_factor: float = _option(0.1, "of schedule step: factor of every step", _POSITIVE)
    base_batch: int = _option(
        0,
        "global batch that the learning rate is for, which grows in proportion; 0: as it is",
        _AT_LEAST_0,
    )
    validation_split: float = _option(
        0.2,
        "part of the training rows held out, if the file has none and is not of prepare",
        _FRACTION,
    )
    test_split: float = _option(
        0.2,
        "part of all rows kept for the final test, if the file has none and is not of prepare",
        _FRACTION,
    )
    seed: int = _option(0, "decides initial parameters, splits and the order of rows", _AT_LEAST_0)
    allreduce: AllreduceName = _option(  # noqa: RUF009  a frozen field's default
        "auto", "how gradients are summed; auto, host, two_level: same bits on any ranks"
    )
    bucket_bytes: int = _option(
        4 << 20,
        "between hosts, and over messages, gradients are summed in buckets of at most this size",
        _AT_LEAST_1,
    )
    segment_bytes: int = _option(256 << 10, "size of one message of the ring", _AT_LEAST_1)
    checkpoint: str | None = _option(
        None,
        "folder for checkpoints, one after every epoch, of which the last two of the run are kept; default: none are "
        "written",
    )
    checkpoint_steps: int = _option(
        0, "write a checkpoint after so many steps, too; 0: only after epochs", _AT_LEAST_0
    )
    resume: str | None = _option(
        None,
        "checkpoint to go on from, or a folder of them, of which the newest is taken; a folder with none, or none yet, "
        "begins anew",
    )
    report_memory: bool = _option(
        False, "print at the end what memory the ranks of the host take, by purpose"
    )
    metrics: str | None = _option(None, "file for the run's numbers, one JSON object a line")
    progress: Literal["auto", "bar", "plain", "none"] = _option(
        "auto", "auto: a bar only on a terminal"
    )
    threads: int = _option(
        1,
        "threads of each rank for matrix products of the mlp; those of several are by BLAS, with other bits on other processors; "
        "0 divides the host's cores among its ranks",
        _AT_LEAST_0,
    )
    timeout: float = _option(
        300.0, "seconds without progress after which a rank ends the job", _POSITIVE
    )

    def __post_init__(self) -> None:
        """Check every field. Raises ConfigurationError naming option, expectation and value.

        Lists, as JSON and TOML have them, become tuples, and a single text where several may stand a tuple of one.
        """
        for name in LISTS:
            value = getattr(self, name)
            if isinstance(value, str | list):
                listed = (value,) if isinstance(value, str) else tuple(value)
                object.__setattr__(self, name, listed)
        for field in dataclasses.fields(self):
            value, check = getattr(self, field.name), field.metadata["check"]
            if not _has_type(value, field.type) or (check and not check[1](value)):
                expected, flag = expected_of(field), flag_of(field.name)
                raise ConfigurationError(f"{flag}: expected {expected}, got {value!r}")
        augmentation.check_words(self.augment)
        if self.checkpoint_steps and not self.checkpoint:
            raise ConfigurationError(
                "--checkpoint-steps: expected a folder for checkpoints, --checkpoint, got none"
            )

    @property
    def held_out(self) -> dict[str, float]:
        """Fraction of the rows kept for each purpose, where the file has no such split."""
        return {"validation": self.validation_split, "test": self.test_split}

    @property
    def y_kind(self) -> Literal["auto", "classes", "targets"]:
        """What ``y`` of the data must be for the loss."""
        kinds = {"auto": "auto", "cross_entropy": "classes"}
        return kinds.get(self.loss, "targets")


# The options by name.
FIELDS = {field.name: field for field in dataclasses.fields(Config)}
# Options that take several words.
LISTS = {name for name, field in FIELDS.items() if get_origin(field.type) is tuple}


def _has_type(value: Any, kind: Any) -> bool:
    """Whether ``value`` is what a field of type ``kind`` may hold; True is no number."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(
            _has_type(each, get_args(kind)[0]) for each in value
        )
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def make_config(options: dict[str, Any]) -> Config:
    """Configuration from a program's keyword arguments. Raises ConfigurationError, also for unknown names."""
    for name in options.keys() - FIELDS.keys():
        raise ConfigurationError(f"unknown option {name!r}{did_you_mean(name, list(FIELDS))}")
    return Config(**options)


def flag_of(name: str) -> str:
    """``--an-option`` of the field ``an_option``."""
    return "--" + name.replace("_", "-")


def expected_of(field: dataclasses.Field) -> str:
    """What a field takes, in words."""
    if get_origin(field.type) is Literal:
        return "one of " + ", ".join(get_args(field.type))
    if field.metadata["check"]:
        return field.metadata["check"][0]
    return "true or false" if field.type is bool else "a text"
