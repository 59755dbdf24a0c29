"""Outputs of models of torch, torchvision and transformers, with which ``test_pretrained.py`` compares those of the same parameters here.

    PYTHONPATH=. python -m tests.serial.torch_pretrained

with torch, torchvision and transformers writes them anew to ``torch_pretrained.npz`` beside this file: of each model the names and shapes of its
state dict, and its outputs in float64. Parameters and inputs are functions of fixed numbers and need NumPy only.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
ROWS, CLASSES = 3, 5
# Shapes of rows as they are here, channels last; "gpt" has tokens of a vocabulary.
ROW_SHAPES = {
    "resnet18": (65, 70, 3),
    "resnet8": (19, 18, 3),
    "cnn": (10, 9, 3),
    "tcn": (21, 3),
    "speech_cnn": (13, 9, 1),
    "speech_gru": (7, 6),
    "mlp": (12,),
    "logistic": (12,),
    "gpt": (17,),
}
GPT = {"n_layer": 2, "n_embd": 48, "n_head": 4, "n_positions": 40, "vocab_size": 61}
VALUES = (4, 1, 6)


def inputs(case: str) -> dict[str, np.ndarray]:
    """Rows by the names of a batch's arrays: numbers float32, tokens and categories int32."""
    generator = np.random.default_rng(7)
    if case == "wide_and_deep":
        codes = generator.integers(0, VALUES, (ROWS, len(VALUES))).astype("i4")
        return {"x": generator.standard_normal((ROWS, 2)).astype("f4"), "categories": codes}
    shape = (ROWS, *ROW_SHAPES[case])
    if case == "gpt":
        return {"x": generator.integers(0, GPT["vocab_size"], shape).astype("i4")}
    return {"x": generator.standard_normal(shape).astype("f4")}


def parameters(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Of a state dict of these names and shapes, float32: none is 0 or 1 as in a new model, so that every one counts."""
    found = {}
    for number, (name, shape) in enumerate(shapes.items()):
        generator = np.random.default_rng(number)
        if name.endswith("num_batches_tracked"):
            continue
        if len(shape) > 1:
            array = generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("running_var") or name.endswith("weight"):
            array = generator.uniform(0.5, 1.5, shape)
        else:
            array = 0.3 * generator.standard_normal(shape)
        found[name] = array.astype("f4")
    return found


def stored(case: str) -> tuple[dict[str, tuple[int, ...]], np.ndarray]:
    """Names and shapes of torch's state dict, and its outputs."""
    with np.load(FILE) as file:
        shapes = json.loads(str(file[f"{case}/shapes"]))
        return {name: tuple(shape) for name, shape in shapes.items()}, file[f"{case}/outputs"]


def main() -> None:
    """Write the file."""
    import torch

    found = {}
    for case in (*ROW_SHAPES, "wide_and_deep"):
        model = module(case).eval()
        state = model.state_dict()
        # A tied layer is twice in it, and once in a file.
        shapes = {k: tuple(v.shape) for k, v in state.items() if k != "lm_head.weight"}
        given = {k: torch.from_numpy(v) for k, v in parameters(shapes).items()}
        model.load_state_dict(given, strict=False)
        found[f"{case}/shapes"] = np.array(json.dumps(shapes))
        found[f"{case}/outputs"] = outputs(case, model.double())
    np.savez_compressed(FILE, torch=np.array(torch.__version__), **found)


def outputs(case: str, model: Any) -> np.ndarray:
    """Logits of a model of torch for the inputs."""
    import torch

    dtype = next(model.parameters()).dtype
    given = {name: torch.from_numpy(array) for name, array in inputs(case).items()}
    x = given["x"].long() if case == "gpt" else given["x"].to(dtype)
    with torch.no_grad():
        if case == "gpt":
            return model(x).logits.numpy()
        if case == "wide_and_deep":
            return model(x, given["categories"].long()).numpy()
        if case != "speech_gru" and x.ndim > 2:
            x = x.movedim(-1, 1)
        return model(x).numpy()


def module(case: str) -> Any:
    """The model of torch whose state dict has the names."""
    from torch import nn

    if case == "resnet18":
        from torchvision.models import resnet18

        return resnet18(num_classes=CLASSES)
    if case == "gpt":
        from transformers import GPT2Config, GPT2LMHeadModel

        return GPT2LMHeadModel(GPT2Config(**GPT))
    if case == "logistic":
        return nn.Linear(ROW_SHAPES[case][0], 1)
    from tests.serial import torch_modules

    return getattr(torch_modules, case)()


if __name__ == "__main__":
    main()
