"""A short torch program that loads a safetensors file of a built-in model and gives the same outputs.

Each program ends with a function, ``logits`` or ``prediction``, of arrays as a batch has them: rows in front, channels last, normalised.
Modules have the names of ``models/torch_names.py``. A user's own model has no program: its formula is the user's.
"""

from collections.abc import Callable, Mapping

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.exporting import torch_gpt, torch_images, torch_sequences, torch_tables
from lepton_mpi.exporting.subject import Subject

PROGRAMS: Mapping[str, Callable[[Subject], str]] = {
    "mlp": torch_tables.mlp,
    "logistic": torch_tables.logistic,
    "wide_and_deep": torch_tables.wide_and_deep,
    "cnn": torch_images.cnn,
    **dict.fromkeys(("resnet8", "resnet20", "resnet32", "resnet18"), torch_images.resnet),
    "speech_cnn": torch_images.speech_cnn,
    "speech_gru": torch_sequences.speech_gru,
    "tcn": torch_sequences.tcn,
    "gpt": torch_gpt.gpt,
}
_CALLS = {
    # Softmax of these is what the engine says: of one logit against 0.
    "logistic": "nn.functional.pad(model({}), (1, 0))",
    "gpt2": "model({}.long()).logits",
}


def check(name: str, text: str) -> None:
    """Raises ConfigurationError for a model without a program; ``text`` says what it is."""
    if name not in PROGRAMS:
        raise ConfigurationError(
            f"--torch: expected a built-in model, {', '.join(PROGRAMS)}, got {text}; the file is written without --torch"
        )


def program(subject: Subject, file_name: str) -> str:
    """Text of a Python program, which reads ``file_name`` in the folder that it runs in. Raises ConfigurationError."""
    check(subject.name, str(subject.model))
    body = PROGRAMS[subject.name](subject)
    is_gpt2 = "GPT2LMHeadModel" in body
    strict = ", strict=False" if is_gpt2 and "lm_head.weight" not in body else ""
    names = ", ".join(subject.arguments().values())
    call = _CALLS.get("gpt2" if is_gpt2 else subject.name, "model({})").format(names)
    result = "logits" if subject.model.task != "targets" else "prediction"
    imports = ["import torch", "from safetensors.torch import load_file", "from torch import nn"]
    if "OrderedDict" in body:
        imports = ["from collections import OrderedDict", "", *imports]
    double = ".double()" if subject.dtype.itemsize == 8 else ""
    return f'''"""{subject.model}, trained by lepton_mpi, in torch."""

{chr(10).join(imports)}
{body}
model{double}.load_state_dict(load_file({file_name!r}){strict})
model.eval()


@torch.inference_mode()
def {result}({names}):
    """{_docstring(subject)}"""
    return {call}
'''


def _docstring(subject: Subject) -> str:
    """What goes in and what comes out."""
    data, parts, names = subject.data, [], subject.arguments()
    for key, spec in data.inputs.items():
        name = names[key]
        kind = "int32 codes" if spec.kind != "numbers" else f"{subject.dtype}, normalised"
        parts.append(f"{name}: {kind}, (batch{''.join(f', {size}' for size in spec.shape)})")
    length = f", {next(iter(data.inputs.values())).shape[0]}" if subject.name == "gpt" else ""
    return f"{'; '.join(parts)}; returns (batch{length}, {data.output_count})."
