"""The comparison of ``test_pretrained.py`` with the libraries themselves, where they are: models that they make and files that they write.

    python -m pytest tests/serial/test_pretrained_live.py

in an environment with torch, torchvision, transformers and this package. Without them it is skipped.
"""

import numpy as np
import pytest

from lepton_mpi.batch import Batch
from tests.serial import torch_pretrained as torchs
from tests.serial.test_pretrained import begun, centred_logits, made

torch = pytest.importorskip("torch", reason="needs torch, whose outputs are compared")
_TOLERANCE = 1e-5


def _centred(logits: np.ndarray) -> np.ndarray:
    return logits - logits.mean(axis=-1, keepdims=True)


def test_a_resnet18_of_torchvision(tmp_path):
    """Written by torch as safetensors, after a batch in training mode, so that its running statistics are its own."""
    torchvision = pytest.importorskip("torchvision", reason="needs torchvision")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=torchs.CLASSES)
    theirs.train()(torch.randn(8, 3, 65, 70))
    path = tmp_path / "resnet18.safetensors"
    save_file(theirs.state_dict(), path)
    model = made("resnet18")
    views, notes = begun(model, path)
    assert notes == [note for note in notes if "takes all 102 parameters" in note]
    expected = _centred(torchs.outputs("resnet18", theirs.eval()))
    found = centred_logits(model, views, "resnet18")
    np.testing.assert_allclose(found, expected, rtol=0, atol=_TOLERANCE)


def test_a_gpt2_of_hugging_face(tmp_path):
    """Written by its ``save_pretrained``, at every position."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(**torchs.GPT, bos_token_id=0, eos_token_id=0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():  # the initial weights give all tokens nearly the same logit
        for parameter in theirs.parameters():
            parameter.mul_(2).add_(0.02 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    for length in (1, 8, 17):
        model = made("gpt", length=length)
        views, _ = begun(model, tmp_path / "model.safetensors")
        expected = _centred(torchs.outputs("gpt", theirs)[:, length - 1])
        found = centred_logits(model, views, "gpt", length)
        assert np.ptp(expected) > 0.5, "outputs that say nothing"
        np.testing.assert_allclose(found, expected, rtol=0, atol=_TOLERANCE)


def test_a_loss_of_hugging_face(tmp_path):
    """The mean over positions of a text is that of ``evaluate``."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    torch.manual_seed(1)
    config = transformers.GPT2Config(**torchs.GPT, bos_token_id=0, eos_token_id=0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path)
    model = made("gpt")
    views, _ = begun(model, tmp_path / "model.safetensors")
    tokens = np.random.default_rng(0).integers(0, 61, (4, 18)).astype("i4")
    x, y = (np.ascontiguousarray(part) for part in (tokens[:, :-1], tokens[:, 1:]))
    loss = model.evaluate(views, Batch(x, y), np.empty(y.shape, np.int32)) / y.size
    with torch.no_grad():
        whole = torch.from_numpy(tokens).long()
        expected = float(theirs(whole, labels=whole).loss)
    assert loss == pytest.approx(expected, abs=_TOLERANCE)


@pytest.mark.parametrize(
    "case",
    ["resnet8", "cnn", "tcn", "speech_cnn", "speech_gru", "mlp", "logistic", "wide_and_deep"],
)
def test_torch_s_own_modules(tmp_path, case):
    """Of the names of ``models/torch_names.py``, with torch's initial weights, in float32."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    theirs = torchs.module(case).eval()
    path = tmp_path / f"{case}.safetensors"
    save_file(theirs.state_dict(), path)
    model = made(case)
    views, _ = begun(model, path)
    logits = torchs.outputs(case, theirs)
    if case == "logistic":
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    found = centred_logits(model, views, case)
    np.testing.assert_allclose(found, _centred(logits), rtol=0, atol=_TOLERANCE)
