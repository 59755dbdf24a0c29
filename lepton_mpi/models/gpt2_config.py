"""What Hugging Face's ``config.json`` says of a GPT-2 that its parameters do not: heads, and what is computed between them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.wording import one_line

_BYTES_MAX = 1 << 20
# By their names there, those of ``--feed-forward``.
_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
# What this engine computes, and nothing else.
_FIXED = {
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
}


def check(path: Path, options: Mapping[str, Any]) -> list[str]:
    """Compare the file with the options of a gpt; returns what is to be said where there is none.

    Raises
    ------
    ConfigurationError
        For other heads, or another computation: parameters would fit, and outputs be wrong.
    """
    about = _read(path)
    if about.get("model_type") != "gpt2":
        return [
            f"heads are no part of the file: takes --heads {options['heads']} for what it was trained with"
        ]
    heads = about.get("n_head")
    if heads != options["heads"]:
        raise ConfigurationError(
            f"{path}: n_head: expected --heads {options['heads']}, got {one_line(heads)}: give --heads {one_line(heads)}"
        )
    name = about.get("activation_function", "gelu_new")
    between = _ACTIVATIONS.get(name) if isinstance(name, str) else None
    if between != options["feed_forward"]:
        known = f": give --feed-forward {between}" if between else ", which is not built in"
        raise ConfigurationError(
            f"{path}: activation_function: expected that of --feed-forward {options['feed_forward']}, got {one_line(name)}{known}"
        )
    for key, value in _FIXED.items():
        if about.get(key, value) != value:
            raise ConfigurationError(
                f"{path}: {key}: expected {value}, which is built in, got {one_line(about[key])}"
            )
    return []


def _read(path: Path) -> dict[str, Any]:
    """Its content; empty if there is none that can be read."""
    try:
        if not path.is_file() or path.stat().st_size > _BYTES_MAX:
            return {}
        about = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}
