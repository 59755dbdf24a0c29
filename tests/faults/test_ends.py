"""A short form of the table of ends (``python -m tests.faults.table_of_ends``): some kinds, on the MPI of this environment."""

import os

import pytest

from tests.faults import ends

# LEPTON_ENDS_KINDS=. for all of them.
_SHORT = r"SIGSEGV|SIGBUS|loops with|exception on one|launcher gets SIGKILL|out of memory|closed"


@pytest.mark.slow(but_every=7)
@pytest.mark.skipif(
    "LEPTON_TEST_LAUNCH" in os.environ,
    reason="the script that starts the jobs makes an environment of its own",
)
@pytest.mark.parametrize(
    "kind",
    ends.by_name(os.environ.get("LEPTON_ENDS_KINDS", _SHORT)),
    ids=lambda kind: kind.name.replace(" ", "_"),
)
def test_an_end_is_as_promised(tmp_path, kind):
    """Named in 12 lines at most, with the exit code of the table, and nothing left behind."""
    seen = ends.see(kind, os.environ.get("LEPTON_MPI", "openmpi"), tmp_path / "job")
    assert seen.faults() == [], "\n".join(seen.lines)
