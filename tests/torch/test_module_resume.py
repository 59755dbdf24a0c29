"""A torch run goes on from its folder on another number of ranks, with dropout and running statistics, bit for bit."""

import pytest

pytest.importorskip("torch", reason="needs torch, which is not installed")

from lepton_mpi import launcher
from tests.faults import jobs

_PROGRAM = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, feature_shape, output_count):
        super().__init__(
            nn.Flatten(), nn.Linear(64, 50), nn.BatchNorm1d(50), nn.ReLU(), nn.Dropout(0.2), nn.Linear(50, output_count)
        )
"""


@pytest.mark.skipif(launcher.launched_size() > 1, reason="starts jobs, which ranks of a job cannot")
def test_another_number_of_ranks_goes_on(tmp_path):
    """Weights of 3 ranks from the middle of an epoch of 2 ranks are those of one rank that never stopped."""
    (tmp_path / "net.py").write_text(_PROGRAM)
    options = (
        *(*jobs.TRAIN, "--data", "digits", "--model", "net.py:Net", "--threads", "1"),
        *("--epochs", "2", "--global-batch", "64", "--progress", "plain"),
    )
    saving = (*options, "--checkpoint", "runs", "--checkpoint-steps", "10")
    whole = jobs.run(1, *options, cwd=tmp_path)
    assert whole.code == 0, whole.text
    assert jobs.run(2, *saving, cwd=tmp_path).code == 0
    # 18 steps an epoch; the two newest are kept: after step 30, in the middle of an epoch, and after the last.
    *_, middle, last = sorted((tmp_path / "runs").glob("*.h5"))
    assert middle.stem.endswith("30") and last.stem.endswith("36")
    last.unlink()
    rest = jobs.run(3, *saving, "--resume", "runs", cwd=tmp_path)
    assert rest.code == 0, rest.text
    assert rest.lines("weights") == whole.lines("weights") != []
