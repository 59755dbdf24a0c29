"""Options that have no sense together, or without another one. Imports no NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_mpi.data import augmentation
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.options.duration import duration_text

if TYPE_CHECKING:
    from lepton_mpi.options.config import Config

# Those with which a codec may be chosen: between hosts they have lanes, whose messages it compresses.
_FOR_CODECS = ("auto", "host", "two_level")
_OF_CHECKPOINTS = ("checkpoint_steps", "save_every", "async_save")
# What --elastic needs: with any other value a copy may be of no use, or ranks wait where no lost rank ends it.
_FOR_ELASTIC = {"on_nan": "stop", "compress": "none", "balance": "none"}


def check(config: Config) -> None:
    """Raises ConfigurationError."""
    if config.elastic:
        _check_elastic(config)
    augmentation.check_words(config.augment)
    if not config.initial_strict and config.initial is None:
        raise ConfigurationError("--initial-strict false: expected a file, --initial, got none")
    for name in _OF_CHECKPOINTS:
        if getattr(config, name) and not config.checkpoint:
            option = f"--{name.replace('_', '-')}"
            raise ConfigurationError(
                f"{option}: expected a folder for checkpoints, --checkpoint, got none"
            )
    if config.find_out and not config.find_learning_rate:
        raise ConfigurationError("--find-out: expected --find-learning-rate, got none")
    if config.find_out and not config.find_out.endswith((".json", ".html")):
        raise ConfigurationError(
            f"--find-out: expected a file that ends in .json or .html, got {config.find_out}"
        )
    if config.find_learning_rate and config.resume:
        raise ConfigurationError(
            "--find-learning-rate: expected no --resume, got one; a test from a checkpoint's parameters takes --initial"
        )
    if config.on_drift != "stop" and not config.check_every:
        raise ConfigurationError("--on-drift: expected --check-every, such as 100, got none")
    if config.keep_best and not config.checkpoint:
        raise ConfigurationError(
            "--keep-best: expected a folder for best.h5, --checkpoint, got none"
        )
    if config.restore_best and not config.keep_best:
        raise ConfigurationError(
            "--restore-best: expected a score that says which epoch is the best, --keep-best, got none; --keep-best auto takes the usual one"
        )
    if config.time_limit == 0:
        raise ConfigurationError("--time-limit: expected a time above 0, got 0 s")
    if config.time_limit is not None and (config.stop_before or 0.0) >= config.time_limit:
        raise ConfigurationError(
            f"--stop-before: expected a time that is shorter than --time-limit, {duration_text(config.time_limit)}, got "
            f"{duration_text(config.stop_before or 0.0)}"
        )
    if config.activations != "dtype" and config.recompute:
        raise ConfigurationError(
            f"--activations {config.activations}: expected --recompute 0, got {config.recompute}: what is computed again from rounded "
            "numbers has other gradients; take one of the two"
        )
    if config.compress != "none" and config.allreduce not in _FOR_CODECS:
        raise ConfigurationError(
            f"--compress {config.compress}: expected --allreduce auto, host or two_level, got {config.allreduce}, whose messages "
            "no codec is for"
        )
    if config.compress_after and config.compress == "none":
        raise ConfigurationError(
            "--compress-after: expected a codec, such as --compress sign, got none"
        )
    if config.compress != "none" and config.freeze:
        raise ConfigurationError(
            f"--compress {config.compress}: expected no --freeze, whose parameters have no gradient that a codec could take for one"
        )


def _check_elastic(config: Config) -> None:
    """Raises ConfigurationError for what the option needs that options alone tell."""
    if config.find_learning_rate:
        raise ConfigurationError("--elastic: is for training; --find-learning-rate goes without it")
    for name, value in _FOR_ELASTIC.items():
        if getattr(config, name) != value:
            option = f"--{name.replace('_', '-')}"
            raise ConfigurationError(
                f"--elastic: expected {option} {value}, got {getattr(config, name)}"
            )
