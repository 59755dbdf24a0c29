"""Graphs run by onnxruntime, and how near they come."""

from pathlib import Path

import numpy as np
import pytest

_REASON = "needs onnx and onnxruntime: pip install '.[test]'"
onnx = pytest.importorskip("onnx", reason=_REASON)
onnxruntime = pytest.importorskip("onnxruntime", reason=_REASON)

# Erf of onnxruntime is float32 in a float64 model, too.
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}


def session_of(model) -> "onnxruntime.InferenceSession":
    """Of a file, or of a model in memory."""
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"])


def outputs_by(session, rows) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, rows), strict=True))


def check_close(came, expected, dtype, has_erf=False) -> None:
    """Numbers of size 1, or relative to their size."""
    tolerance = 1e-6 if has_erf and dtype == "float64" else TOLERANCES[dtype]
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(came, expected, rtol=0, atol=tolerance * scale)
