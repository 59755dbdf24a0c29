"""``Config``: everything that decides a training run, frozen and checked; ``sources.py`` makes one of a command line.

Adding an option means adding a field: ``--help``, the TOML keys and the error messages follow from it.
An option that one model, optimizer or strategy alone has does not stand here, but in a class of its own: ``own.py``.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options import combinations, names, own
from lepton_mpi.options.by_rule import EARLIER, Settled, by_rule
from lepton_mpi.options.class_weights import ClassWeightsText
from lepton_mpi.options.duration import Duration
from lepton_mpi.options.kinds import (
    Bytes,
    NameOrFile,
    NameWithOption,
    Number,
    PathText,
    Several,
    Text,
    Whole,
)
from lepton_mpi.options.names import ActivationName, AllreduceName, LossName, YKind
from lepton_mpi.options.option import (
    ABOVE_0,
    AT_LEAST_0,
    FRACTION,
    WHOLE_FROM_0,
    WHOLE_FROM_1,
    Checked,
    option,
    options_of,
)
from lepton_mpi.options.saving import Saving
from lepton_mpi.options.watching import Watching
from lepton_mpi.wording import did_you_mean

_MLP, _NETWORKS = names.OF_MLP, names.OF_NETWORKS


@dataclass(frozen=True, kw_only=True)
class Training(Checked):
    """A part of ``Config``: what is trained on what, and how."""

    recipe: str | None = option(
        None,
        "ready-made options: breast_cancer, digits, digits_resnet8, loans, mnist, text_gpt, words_cnn, words_gru, or a TOML file; without --data and --config it is digits",
        kind=PathText("NAME|FILE", "a recipe or a TOML file"),
    )
    data: tuple[str, ...] = option(
        ("digits",),
        "HDF5 files, which make one data set together, patterns of them, or an embedded set: digits, breast_cancer, loans, words, python_topics",
        ("names of files, one at least", lambda value: len(value) > 0),
        kind=Several.of(PathText("FILE")),
    )
    prepare: str | None = option(
        None,
        "raw files that --data names become NAME.prepared.h5, which is trained on; behind it options of the command prepare, or "
        "none, as in --prepare='--label price' and --prepare=",
        kind=Text("OPTIONS"),
    )
    x: str | None = option(
        None,
        "data set of the features, in files with other names than usual ones; {split} stands for train, validation, test",
        kind=Text("NAME"),
    )
    y: str | None = option(None, "data set of the labels; likewise", kind=Text("NAME"))
    loader: Literal["auto", "memory", "mapped", "streamed"] = option(
        "auto",
        "where rows are: copied into memory once per host, mapped from the file, or read ahead in windows; "
        "auto: by their size and the memory that is free",
    )
    io_retry: float = option(
        60.0,
        "time for which reads are tried again while the file system is out of reach, at most half of --timeout",
        kind=Duration(),
    )
    shuffle: Literal["auto", "full", "blocks"] = option(
        "auto",
        "order of an epoch; blocks: runs of rows, then rows within windows of some of them, as streaming needs it; "
        "auto: full unless rows are streamed",
    )
    shuffle_buffer: int = option(
        64 << 20,
        "bytes of rows that shuffle blocks mixes at a time, in all ranks together",
        WHOLE_FROM_1,
        kind=Bytes(),
    )
    context: int = option(
        0, "of a text in one piece: tokens of a row; 0: as its file says", WHOLE_FROM_0
    )
    stride: int = option(
        0, "of such a text: tokens from one row to the next; 0: as many as a row has", WHOLE_FROM_0
    )
    augment: tuple[str, ...] = option(
        (),
        "what is done to training rows at random: flip (left to right), crop=PIXELS, noise=DEVIATION",
    )
    model: str = option(
        "mlp",
        "what is trained; FILE.py:NAME: a callable that returns your own model",
        kind=NameOrFile.of(names.MODELS),
    )
    hidden: tuple[int, ...] | None = by_rule(
        "widths of the hidden layers of mlp and wide_and_deep",
        ("whole numbers of at least 1", lambda v: min(v, default=1) >= 1),
        Several.of(Whole()),
        of=_MLP,
    )
    activation: ActivationName = option(
        "relu",
        "of these hidden layers; gelu is the exact one, gelu_tanh that of GPT-2",
        of=_MLP,
    )
    dropout: float = option(
        0.0,
        "share dropped in training of the hidden units of mlp, wide_and_deep, cnn, tcn and the speech models, or of what the gpt's blocks add, in steps of 1/65536",
        FRACTION,
        of=(*_MLP, "gpt", "cnn", "tcn", "speech_cnn", "speech_gru"),
    )
    recompute: int = option(
        0,
        "keep what the backward pass reads of one in so many parts of a network, such as blocks of gpt and resnet, and compute the rest "
        "again: less memory, more time, the same bits; 0: keep all",
        WHOLE_FROM_0,
        of=_NETWORKS,
    )
    activations: Literal["dtype", "bfloat16"] = option(
        "dtype",
        "how what the backward pass reads is kept until then: as --dtype, or rounded to bfloat16, 2 bytes a number: about half the "
        "memory, some more time, gradients off by up to 0.3 %; not with --recompute",
        of=_NETWORKS,
    )
    loss: LossName = option(
        "auto",
        "of the mlp; auto: cross_entropy where y are whole numbers, mse where they are floats; mse and huber "
        "take y as numbers to predict",
    )
    class_weights: str | None = option(
        None,
        "what a row of each class counts in the loss: balanced, n / (classes x rows of the class), or weights, or a .json file of them",
        kind=ClassWeightsText(),
    )
    huber_delta: float = option(
        1.0, "of loss huber: size from which on an error no longer counts by its square", ABOVE_0
    )
    dtype: Literal["float32", "float64"] = option("float32", "of parameters, gradients and batches")
    check_model: bool = option(
        False,
        "compare the model's gradients with finite differences before the first step; what costs no time is checked anyway",
    )
    task: str = option(
        "auto",
        "what y is, and which figures are made of it; auto: as the data say",
        kind=NameOrFile.of(names.TASKS, "auto"),
    )
    strategy: str = option(
        "sync",
        "how gradients become parameters",
        kind=NameOrFile.of(names.STRATEGIES),
    )
    balance: Literal["none", "auto"] = option(
        "none",
        "auto: faster ranks compute more of a step's micro-batches; with sync and delayed the weights stay the same bit for bit",
    )
    hook: tuple[str, ...] = option(
        (),
        "of your own, called at every step and epoch; see lepton_mpi.QuietHook",
        kind=Several.of(PathText("FILE.py:NAME", "FILE.py:NAME")),
    )
    initial: str | None = option(
        None,
        "parameters that a new run begins with: a checkpoint, or the newest of a folder; .safetensors with the names of torch, as "
        "torchvision's ResNet and Hugging Face's GPT-2 have them; .weights.h5 of Keras 3; none: random",
        kind=PathText("FILE|FOLDER"),
    )
    initial_strict: bool = option(
        True,
        "of --initial: the file must have all parameters of the model, in their shapes, and no others; false: what fits is taken, the "
        "rest begins as usual, and both are listed",
    )
    freeze: tuple[str, ...] = option(
        (),
        "parameters that stay as they are, by patterns of their names, as in 'stem*' 'stage[01]*'; a BatchNorm whose running statistics "
        "are among them normalises by these",
        kind=Several.of(Text("PATTERN")),
    )
    epochs: int | None = by_rule("passes over the training rows", WHOLE_FROM_1, Whole())
    global_batch: int | None = by_rule(
        "rows of one optimizer step, over all ranks together", WHOLE_FROM_1, Whole()
    )
    micro_batch: int = option(
        0,
        "rows of one kernel call, the unit of the sum; 0: an eighth of the global batch",
        WHOLE_FROM_0,
    )
    optimizer: str = option(
        "adam",
        "sgd is with momentum, unless that is 0; adamw and lion decay weights apart from the gradient; the end of this help says "
        "which published rule each follows",
        kind=NameOrFile.of(names.OPTIMIZERS),
    )
    learning_rate: float | None = by_rule("step size of the optimizer, at its peak", ABOVE_0, Number())  # fmt: skip
    find_learning_rate: bool = option(
        False,
        "train nothing: a range test (Smith, 2017) raises the rate from 1e-7 to 10 over --find-steps steps, prints the loss by the rate and "
        "suggests a --learning-rate; all other options count as in training",
    )
    find_steps: int = option(
        100,
        "steps of --find-learning-rate",
        ("a whole number of at least 20", lambda value: value >= 20),
    )
    find_out: str | None = option(
        None,
        "file for what --find-learning-rate finds: .json, or .html with a picture",
        kind=PathText("FILE"),
    )
    momentum: float = option(
        0.9,
        "of sgd and nesterov; the learning rate is inside of the velocity, as in Keras, not outside, as in torch",
        FRACTION,
        of=("optimizer", "sgd", "momentum", "nesterov"),
    )
    weight_decay: float = option(
        0.0,
        "pull of the weights towards 0; biases and the scales of norms have none",
        AT_LEAST_0,
    )
    clip_value: float = option(
        0.0,
        "largest value of an element of the mean gradient, after --clip-norm; 0: no limit",
        AT_LEAST_0,
    )
    clip_norm: float = option(
        0.0,
        "largest norm of the mean gradient, of all parameters together; 0: no limit",
        AT_LEAST_0,
    )
    schedule: Literal["constant", "step", "cosine", "plateau"] = option(
        "constant",
        "of the learning rate after the warm-up, as torch's StepLR, CosineAnnealingLR and ReduceLROnPlateau: the first step has the peak, "
        "and cosine would come to 0 in the step after the last; plateau: lower by --schedule-factor after more than --schedule-epochs epochs "
        "without a better score, that of --keep-best, on the validation rows",
    )
    warmup_epochs: int = option(
        0,
        "epochs in which the learning rate grows linearly, from one step's share in the first to the peak in the last",
        WHOLE_FROM_0,
    )
    schedule_epochs: int = option(
        10,
        "of schedule step: epochs of each rate; of plateau: epochs without a better score",
        WHOLE_FROM_1,
    )
    schedule_factor: float = option(
        0.1, "of schedules step and plateau: factor from one rate to the next", ABOVE_0
    )
    base_batch: int = option(
        0,
        "global batch that the learning rate is for, which grows in proportion; 0: as it is",
        WHOLE_FROM_0,
    )
    validation_split: float = option(
        0.2,
        "part of the training rows held out, if the file has none and is not of prepare",
        FRACTION,
    )
    test_split: float = option(
        0.2,
        "part of all rows kept for the final test, if the file has none and is not of prepare",
        FRACTION,
    )
    seed: int = option(0, "decides initial parameters, splits and the order of rows", WHOLE_FROM_0)
    allreduce: AllreduceName = option(
        "auto", "how gradients are summed; auto, host, two_level: same bits on any ranks"
    )
    bucket_bytes: int = option(
        4 << 20,
        "between hosts, and over messages, gradients are summed in buckets of at most this size",
        WHOLE_FROM_1,
        kind=Bytes(),
    )
    compress: str = option(
        "none",
        "codec of what hosts exchange, gradients or differences of parameters, with error feedback: fp16, bf16, int8, int4, sign, topk:SHARE, topk:SHARE,sampled, randomk:SHARE, "
        "powersgd:RANK, or FILE.py:NAME; auto: int8, or CODEC of auto:CODEC, for buckets that are summed sooner with it; within a host "
        "nothing is compressed",
        kind=NameWithOption.of(names.CODECS, "auto"),
    )
    compress_after: int = option(
        0,
        "steps at the run's beginning in which nothing is compressed, a warm-up for --compress",
        WHOLE_FROM_0,
    )
    segment_bytes: int = option(
        256 << 10, "size of one message of the ring", WHOLE_FROM_1, kind=Bytes()
    )
    threads: int = option(
        1,
        "threads of each rank for matrix products of the mlp; those of several are by BLAS, with other bits on other processors; "
        "0 divides the host's cores among its ranks",
        WHOLE_FROM_0,
    )
    timeout: float = option(
        300.0, "seconds without progress after which a rank ends the job", ABOVE_0
    )
    peer_timeout: float = option(
        30.0,
        "seconds without a sign of life from another host after which the job ends",
        ABOVE_0,
    )


@dataclass(frozen=True, kw_only=True)
class Config(Settled, Watching, Saving, Training):
    """Everything that decides a run; equal on every rank (``World.agree_on`` checks it)."""

    own: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options that the chosen model alone has, an object of its class, by ``"model"``; likewise ``"optimizer"`` and ``"strategy"``."""

    def __post_init__(self) -> None:
        """Check every option; a class of own options is filled with its defaults. Raises ConfigurationError.

        Lists, as JSON and TOML have them, become tuples, and a single text where several may stand a tuple of one.
        """
        super().__post_init__()
        choices = {chooser: getattr(self, chooser) for chooser in own.CHOOSERS}
        object.__setattr__(self, "own", own.completed(choices, self.own))

    def check_together(self) -> None:
        """Raises ConfigurationError for options without sense together, or without the one that they belong to."""
        combinations.check(self)

    def for_model(self, threads: int) -> dict[str, Any]:
        """What a model is built from: all options by name, its own among them, and the BLAS ``threads`` of a rank.

        Widths that nobody has chosen and ``run/defaults.py`` has not settled are those of earlier versions.
        """
        own_options = vars(self.own["model"]) if "model" in self.own else {}
        hidden = EARLIER["hidden"] if self.hidden is None else self.hidden
        return {**vars(self), **own_options, "hidden": hidden, "threads": threads}

    @property
    def arrays(self) -> tuple[str | None, str | None]:
        """Names of features and labels in the files; None for usual ones."""
        return self.x, self.y

    @property
    def held_out(self) -> dict[str, float]:
        """Fraction of the rows kept for each purpose, where the file has no such split."""
        return {"validation": self.validation_split, "test": self.test_split}

    @property
    def y_kind(self) -> YKind:
        """What ``y`` of the data must be for the task, or else for the model, or the loss."""
        of_task: dict[str, YKind] = {"classes": "classes", "targets": "targets", "tokens": "tokens"}
        of_model: dict[str, YKind] = {"logistic": "classes", "gpt": "tokens"}
        of_loss: dict[str, YKind] = {"auto": "auto", "cross_entropy": "classes"}
        asked = of_task.get(self.task) or of_model.get(self.model)
        return asked or of_loss.get(self.loss, "targets")


OPTIONS = options_of(Config)


def make_config(options: Mapping[str, Any]) -> Config:
    """Configuration of these options, of which a recipe is no more than a name. Raises ConfigurationError."""
    for name in options.keys() - OPTIONS.keys() - {"own"}:
        raise ConfigurationError(f"unknown option {name!r}{did_you_mean(name, list(OPTIONS))}")
    return Config(**options)
