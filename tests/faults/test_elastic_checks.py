"""``--check-every`` with ``--elastic``: digests are compared by the ranks that are left."""

from tests.faults import jobs
from tests.faults.recoveries import LAUNCH, needs_ulfm

_TRAIN = (*jobs.TRAIN, "--recipe", "digits", "--epochs", "20", "--progress", "plain")
_FLIPS = """
import numpy as np
from lepton_mpi import QuietHook

class Flips(QuietHook):
    def __init__(self, run):
        pass

    def after_step(self, run):
        # Behind the check of step 300, by a rank that was rank 3 before the death.
        if run.step == 300 and run.world.rank == run.world.size - 1 == 2:
            run.parameters["layer1/bias"].view(np.uint32)[3] ^= np.uint32(4)
"""


@needs_ulfm
def test_a_flipped_bit_behind_a_death_is_found(tmp_path, monkeypatch):
    """At rest, and what the death has left behind is no flip."""
    monkeypatch.setenv("LEPTON_TEST_LAUNCH", LAUNCH)
    (tmp_path / "flips.py").write_text(_FLIPS)
    words = (*_TRAIN, "--elastic", "--check-every", "20", "--hook", "flips.py:Flips")
    job = jobs.run(4, *words, cwd=tmp_path, LEPTON_FAULT="step@step=100:rank=1:kill")
    assert job.code == 5, job.text
    assert job.lines("elastic   rank 1 of 4 died: 3 ranks went on"), job.text
    assert "parameters of layer1/bias changed at rest on host 0" in job.text
