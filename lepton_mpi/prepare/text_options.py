"""What options of ``prepare`` about texts ask for together: --tokens bpe, --vocabulary, --tokenizer, --document-separator."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from lepton_mpi.errors import ConfigurationError

if TYPE_CHECKING:
    from lepton_mpi.prepare.options import Options


def check(options: Options) -> None:
    """Raise ConfigurationError for those that contradict each other."""
    if options.tokenizer is not None and options.tokens == "bytes":
        raise ConfigurationError("--tokenizer: is for --tokens bpe, got bytes")
    if options.tokenizer is not None and options.vocabulary is not None:
        raise ConfigurationError("--vocabulary: is that of the file of --tokenizer")
    is_like_text = options.like is not None and options.stream
    if options.vocabulary is not None and options.tokens != "bpe" and not is_like_text:
        raise ConfigurationError(f"--vocabulary: is for --tokens bpe, got {options.tokens}")
    separator = options.document_separator
    if separator is not None and not (
        options.stream or options.tokenizer or options.tokens == "bpe"
    ):
        raise ConfigurationError("--document-separator: expected --stream beside it")
    if separator is not None and (not separator or not _is_text(separator)):
        raise ConfigurationError("--document-separator: expected a text, got none")


def completed(options: Options) -> Options:
    """With what follows: a tokenizer is one of BPE, and such tokens are a text in one piece."""
    if options.tokenizer is not None:
        options = dataclasses.replace(options, tokens="bpe")
    return dataclasses.replace(options, stream=True) if options.tokens == "bpe" else options


def _is_text(text: str) -> bool:
    """False for bytes of a command line that are no UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
