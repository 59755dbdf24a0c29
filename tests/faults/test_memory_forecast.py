"""A run takes the memory that was predicted before its first step, by the peak that Linux counts."""

import json

import pytest

from tests.faults import jobs
from tests.pages import ROOT


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("validation", ["0", "0.5"])
def test_the_peak_is_within_5_percent(ranks, validation, tmp_path):
    """Of a rank, in which what is shared counts in full, and of its host; with an evaluation and without."""
    rows = tmp_path / "rows.json"
    case = ("--case", "mlp-10m", "--rows-per-rank", "256", "--micro-rows", "64", "--steps", "2")
    more = ("--epochs", "2", "--validation", validation, "--json", str(rows))
    job = jobs.run(ranks, "-m", "benchmarks.engines.memory_ranks", *case, *more, cwd=ROOT)
    assert job.code == 0, job.text
    (row,) = json.loads(rows.read_text())
    assert row["predicted"] > 200 << 20
    assert row["measured"] == pytest.approx(row["predicted"], rel=0.05)
    assert row["measured_host"] == pytest.approx(row["predicted_host"], rel=0.05)
    # Sums of 4 micro-batches of a rank are two vectors more than the one that is handed over.
    assert row["own"]["vectors"] == 2 * row["own"]["result"]


@pytest.mark.slow
def test_the_prediction_is_printed(tmp_path):
    """Before the first step, with --report-memory, and nowhere else."""
    words = (*jobs.TRAIN, "--epochs", "1")
    job = jobs.run(2, *words, "--report-memory", cwd=tmp_path)
    assert job.code == 0, job.text
    lines = job.out.splitlines()
    found = [number for number, line in enumerate(lines) if line.startswith("predicted")]
    assert len(found) == 3, job.text
    assert found[-1] < next(n for n, line in enumerate(lines) if line.startswith("epoch"))
    first, own, shared = (lines[number] for number in found)
    assert "a rank will take" in first
    assert "activations" in own
    assert all(word in shared for word in ("parameters", "state", "gradients", "rows"))
    assert "predicted" not in jobs.run(2, *words, cwd=tmp_path).out
