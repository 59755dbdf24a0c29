"""The torch program that ``export --torch`` prints loads the file and says what the engine says, for every model.

    python -m pytest tests/serial/test_export_torch.py

in an environment with torch, safetensors, transformers (for GPT-2) and this package. Without torch it is skipped.
"""

import numpy as np
import pytest

from lepton_mpi.exporting import export, torch_program
from lepton_mpi.options.names import MODELS
from tests.serial.exported import CASES, exported, loaded, outputs_of, saved

torch = pytest.importorskip("torch", reason="needs torch, whose outputs are compared")
_TOLERANCES = {"float32": 1e-5, "float64": 1e-11}


def test_every_built_in_model_has_a_program():
    assert set(torch_program.PROGRAMS) == set(MODELS)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"], ids=["f4", "f8"])
def test_the_program_gives_the_same_outputs(tmp_path, monkeypatch, case, dtype):
    """Carried out as it is printed, beside the file."""
    path = saved(tmp_path, case, dtype)
    found = loaded(path)
    exported(path, tmp_path / "m.safetensors", torch=True)
    text = torch_program.program(export.subject_of(found, None), "m.safetensors")
    if "transformers" in text:
        pytest.importorskip("transformers", reason="needs transformers, which has GPT-2")
    assert max(map(len, text.splitlines())) <= 140 and len(text.splitlines()) < 90
    monkeypatch.chdir(tmp_path)
    program: dict = {"__name__": "program"}
    exec(compile(text, "program.py", "exec"), program)
    rows = case.rows(7, dtype)
    given = [torch.from_numpy(array) for array in rows.values()]
    expected = outputs_of(found, rows)
    if case.targets:
        _check_close(program["prediction"](*given).numpy(), expected, dtype)
        return
    logits = program["logits"](*given).numpy()
    if case.model == "gpt":
        assert logits.shape == (7, *case.shape, found.data.output_count)
        logits = logits[:, -1]
    assert logits.dtype == dtype
    likely = expected > 1e-3
    own = logits - np.log(np.exp(logits.astype("f8")).sum(axis=1, keepdims=True))
    centred = np.log(expected, where=likely, out=np.zeros_like(expected))
    _check_close(np.where(likely, own, 0), centred, dtype)


def _check_close(came, expected, dtype) -> None:
    """Numbers of size 1, or relative to their size."""
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(came, expected, rtol=0, atol=_TOLERANCES[dtype] * scale)
