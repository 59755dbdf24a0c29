"""Backend ``lepton`` under real programs of torch, and what becomes of jobs in which a rank fails.

The programs stand in ``programs/``; they check themselves, and print a line for each part that is through.
"""

import os
import re
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch, which is not installed")

from tests import pages
from tests.faults import jobs

_PROGRAMS = Path(__file__).with_name("programs")
# Each rank loads torch, which takes 2 s of a core, and the test of trainers much more.
_LIMIT_SECONDS = 300.0
pytestmark = pytest.mark.timeout(_LIMIT_SECONDS + 20)


def _run(ranks: int, program: str, *words: str, **variables: str) -> jobs.Ended:
    return jobs.run(
        *(ranks, str(_PROGRAMS / program), *words),
        cwd=jobs.ROOT,
        limit_seconds=_LIMIT_SECONDS,
        **{"PYTHONPATH": str(jobs.ROOT), "PYTHONWARNINGS": "ignore", **variables},
    )


def _passes(ranks: int, name: str, *words: str, **variables: str) -> list[str]:
    ended = _run(ranks, f"{name}.py", *words, **variables)
    assert ended.code == 0, ended.text
    return ended.out.splitlines()


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_every_call_gives_what_torch_computes_on_one_rank(ranks):
    """All verbs, types, operations, layouts, subgroups, messages and refusals."""
    lines = _passes(ranks, "verbs")
    assert lines[-1] == "refusals" and len(lines) == 8


def test_the_program_of_the_page_prints_what_the_page_shows(tmp_path):
    """On 2 ranks, in any order."""
    page = jobs.ROOT / "lepton_mpi/torch/README.md"
    program = tmp_path / "my_ddp.py"
    program.write_text(pages.programs(page)["my_ddp.py"])
    shown = next(each for each in pages.console(page) if "my_ddp.py" in each.text)
    ended = _run(2, str(program))
    assert ended.code == 0, ended.text
    assert sorted(ended.out.splitlines()) == sorted(shown.output)


def test_losses_of_ddp_are_those_of_gloo():
    """The tutorial's program and the MNIST example's network, 100 steps on 4 ranks, to a millionth."""
    assert _passes(4, "tutorial").count("losses agree") == 4


def test_the_canonical_hook_gives_the_same_bits_on_any_number_of_ranks():
    """Also where ranks hold no whole node of the tree."""
    found = {line for ranks in (1, 2, 3, 4) for line in _passes(ranks, "canonical", "5", "8")}
    weights = {tuple(line.split()[1:]) for line in found if line.startswith("weights")}
    assert len(weights) == 2, weights


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_fsdp_zero_dtensor_and_checkpoints(ranks, tmp_path):
    """Losses are those of the same network on one process; a checkpoint comes back bit for bit."""
    assert _passes(ranks, "sharded", str(tmp_path)) == ["dtensor", "zero", "fsdp"]


@pytest.mark.parametrize(
    "name, library", [("hugging_face", "transformers"), ("lightning", "lightning")]
)
def test_trainers_of_other_libraries(name, library, tmp_path):
    """A run of some steps, after which all ranks have the same weights and a smaller loss."""
    if find_spec(library) is None:
        pytest.skip(f"needs {library}, which is not installed")
    assert _passes(2, "trainers", name, str(tmp_path)).count(name) == 2


@pytest.mark.parametrize("ranks", [1, 3])
def test_ddp_sums_its_buckets_where_they_lie(ranks):
    """The values; buckets that are made anew; ranks that cannot share their memory; files, maps and descriptors."""
    parts = ["values", "moved", "not shared", "left behind"]
    assert sorted(_passes(ranks, "shared_buckets")) == sorted(parts * ranks)


def test_a_killed_rank_whose_memory_others_write_to():
    """Ends the job, which names it; nothing stays in /dev/shm."""
    before = set(os.listdir("/dev/shm"))
    ended = _run(2, "shared_buckets.py", "killed")
    assert ended.code != 0
    assert re.search(r"lepton_mpi: rank 1 of 2 \(process \d+\) died", ended.err), ended.text
    assert not {name for name in set(os.listdir("/dev/shm")) - before if name.startswith("torch")}


def test_calls_groups_and_cycles_leave_nothing_behind():
    """2 000 calls in flight, 200 groups, 20 times init and destroy."""
    assert _passes(2, "lifetimes") == ["groups", "cycles"]


def _ending(how: str, ranks: int = 3) -> tuple[jobs.Ended, float]:
    """What the job left, and seconds from the misdeed of rank 1 to its end."""
    ended = _run(ranks, "ending.py", how)
    return ended, time.time() - float(re.search(r"now (\S+)", ended.out)[1])


def test_a_killed_rank_ends_the_job_and_is_named():
    """Within 3 s."""
    ended, seconds = _ending("kill")
    assert ended.code != 0 and seconds < 3
    assert re.search(r"lepton_mpi: rank 1 of 3 \(process \d+\) died", ended.err), ended.text


def test_an_exception_of_one_rank_ends_the_job_and_is_shown():
    """Although torch's own hook holds back what is printed."""
    ended, seconds = _ending("raise")
    assert ended.code == 5 and seconds < 5
    assert "lepton_mpi: rank 1 of 3 failed" in ended.err, ended.text
    assert "ZeroDivisionError: of rank 1" in ended.err


def test_a_rank_that_skips_a_call_is_named_with_where_it_is():
    """Within the timeout of 3 s, and a quarter of it for looking."""
    ended, seconds = _ending("skip")
    assert ended.code == 5 and seconds < 6
    assert "lepton_mpi: rank 1 of 3 did not come to all_reduce" in ended.err, ended.text
    assert "time.sleep(60)" in ended.err


def test_a_rank_that_leaves_is_named():
    """Others wait for it in a call; it has ended without an error."""
    ended, _ = _ending("leave")
    assert ended.code == 5
    assert "lepton_mpi: rank 1 of 3 did not come to all_reduce" in ended.err, ended.text
    assert "left the program" in ended.err


def test_ranks_that_make_different_calls_are_told():
    """By an error of the call, with both of them."""
    ended, _ = _ending("other")
    assert ended.code == 5
    assert re.search("broadcast", ended.err) and re.search("allreduce", ended.err), ended.text


def test_processes_that_mpi_does_not_know_are_told_what_to_do():
    """As torchrun starts them."""
    words = ("-m", "torch.distributed.run", "--nproc-per-node", "2", str(_PROGRAMS / "verbs.py"))
    ended = jobs.run(0, *words, cwd=jobs.ROOT, PYTHONPATH=str(jobs.ROOT), limit_seconds=100)
    assert ended.code != 0
    assert "mpirun -n 2 python" in ended.err, ended.text


def test_torchrun_s_variables_are_taken():
    """Rank and store of one process, as ``torchrun`` gives them."""
    variables = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    assert _passes(0, "verbs", **variables)[-1] == "refusals"


def test_a_program_without_a_launcher_is_a_job_of_one_rank():
    """Nothing has to be set."""
    assert _passes(0, "verbs")[-1] == "refusals"


def test_without_torch_the_import_says_what_to_install(tmp_path):
    """One line, with the command."""
    (tmp_path / "torch.py").write_text("raise ImportError('none here')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import lepton_mpi.torch"
    ended = jobs.run(0, "-c", code, cwd=jobs.ROOT)
    assert ended.code == 1 and "pip install 'torch>=2.8'" in ended.err, ended.text


def test_an_old_torch_is_refused(tmp_path):
    """One line, with what is needed, what is there, and the command."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("__version__ = '2.7.1+cpu'")
    (tmp_path / "torch/distributed.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import lepton_mpi.torch"
    ended = jobs.run(0, "-c", code, cwd=jobs.ROOT)
    assert ended.code == 1 and "needs torch 2.8 or later, got 2.7.1+cpu: pip install" in ended.err
