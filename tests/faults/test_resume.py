"""A job that is killed goes on from its folder on another number of ranks, and ends as if nothing had happened."""

import re

import pytest

from tests.faults import jobs

# 1 150 rows in batches of 100: 12 steps an epoch, the last one short; saved after 5, 10, 12, 15, 20, 24, …
_OPTIONS = {
    **{"epochs": 3, "global_batch": 100, "optimizer": "adam", "learning_rate": 0.003},
    **{"dropout": 0.2, "augment": ("flip", "crop=1", "noise=0.1"), "clip_norm": 1.0},
    **{"schedule": "cosine", "warmup_epochs": 1},
}
_PROGRAM = f"""
import os, resource, signal, sys
from lepton_mpi.run import checkpoint, checkpoint_folder
from lepton_mpi import durable, fit
from lepton_mpi.launcher import launched_rank
from lepton_mpi.data.order import draws
from lepton_mpi.models.mlp import Mlp

OPTIONS = {_OPTIONS!r}
SAVED = {{"checkpoint": "runs", "checkpoint_steps": 5, "resume": "runs"}}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_saving(step):
    \"\"\"When all has been written but the name.\"\"\"
    put = durable.replace_durably
    durable.replace_durably = lambda *paths: die() if str(step) in paths[1].name else put(*paths)


def fill_the_disk():
    \"\"\"When a checkpoint is to be written; shared memory counts as files, too.\"\"\"
    save = checkpoint_folder.save

    def limited(*arguments, **more):
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        return save(*arguments, **more)

    checkpoint_folder.save = limited


def die_in_step(step, rank):
    \"\"\"In the middle of the computing, between two checkpoints.\"\"\"
    draw, compute = draws(0, step - 1, 1)[0], Mlp.loss_and_gradient

    def loss_and_gradient(self, parameters, batch, gradient, sync):
        if batch.draw == draw and launched_rank() == rank:
            die()
        return compute(self, parameters, batch, gradient, sync)

    Mlp.loss_and_gradient = loss_and_gradient


exec(sys.argv[1])
"""


def _run(folder, ranks: int, text: str) -> jobs.Ended:
    (folder / "own.py").write_text(_PROGRAM)
    return jobs.run(ranks, "own.py", text, cwd=folder)


def _saved(folder) -> set[str]:
    return {path.name for path in (folder / "runs").glob("*.h5")}


def _others(folder) -> list[str]:
    """What else is in the folder, without the names of runs."""
    names = [path.name for path in (folder / "runs").iterdir() if path.suffix != ".h5"]
    return sorted(re.sub(r"h5\.[0-9a-f]{12}\.tmp", "h5.RUN.tmp", name) for name in names)


def _end(job: jobs.Ended) -> list[str]:
    """Test figures and digest, as printed."""
    assert job.code == 0, job.text
    return re.findall(r"^(?:test|weights) .*$", job.out, re.MULTILINE)


@pytest.fixture(scope="module")
def killed_twice(tmp_path_factory):
    """A folder of a run that rank 0 of 2 left while it wrote, and rank 2 of 3 while it computed."""
    folder = tmp_path_factory.mktemp("killed")
    first = _run(folder, 2, "die_while_saving(15); fit(**OPTIONS, **SAVED)")
    assert first.code != 0, first.text
    assert "begins anew" in first.out, first.text
    assert _saved(folder) == {"step-00000010.h5", "step-00000012.h5"}
    assert _others(folder) == ["owner-0001.lock", "step-00000015.h5.RUN.tmp"]
    second = _run(folder, 3, "die_in_step(23, rank=2); fit(**OPTIONS, **SAVED)")
    assert second.code != 0, second.text
    assert "goes on from runs/step-00000012.h5, epoch 2, row 0, step 12\n" in second.out
    assert "runs: taken over from process" in second.out
    assert _saved(folder) == {"step-00000015.h5", "step-00000020.h5"}
    assert _others(folder) == ["owner-0002.lock"]
    return folder


@pytest.mark.slow
def test_wrong_options_end_in_one_line(killed_twice):
    """On all ranks, before the first step, and with the folder as it was."""
    before = _saved(killed_twice)
    job = _run(killed_twice, 3, "fit(**OPTIONS | {'seed': 1}, **SAVED)")
    assert job.code == 2, job.text
    assert "Traceback" not in job.text, job.text
    (line,) = job.lines("lepton_mpi")
    assert line.startswith("lepton_mpi: --seed: expected 0 as in runs/step-00000020.h5, got 1;")
    assert _saved(killed_twice) == before


def test_a_run_that_was_killed_twice_ends_as_one_that_was_not(killed_twice):
    """2 ranks, then 3, then 1; with dropout, augmentation, clipping and a schedule: the same bits."""
    last = _run(killed_twice, 1, "fit(**OPTIONS, **SAVED)")
    assert "goes on from runs/step-00000020.h5, epoch 2, row 800, step 20\n" in last.out, last.text
    assert _end(last) == _end(_run(killed_twice, 4, "fit(**OPTIONS)"))
    assert _saved(killed_twice) == {"step-00000035.h5", "step-00000036.h5"}
    assert _others(killed_twice) == []


@pytest.mark.slow
def test_training_goes_on_where_the_disk_is_full(tmp_path):
    """It is said once, nothing of the file that does not fit is left, and the code of the end is that of the README."""
    job = _run(tmp_path, 2, "fill_the_disk(); fit(epochs=3, checkpoint='runs')")
    assert job.code == 4, job.text
    assert "Traceback" not in job.text, job.text
    assert "epoch 3/3" in job.out and "\ntest      accuracy" in job.out, job.text
    (said,) = [line for line in job.out.splitlines() if "cannot write" in line]
    assert "tries again" in said and "none is written yet" in said, job.text
    (line,) = job.lines("lepton_mpi")
    assert line.startswith(
        "lepton_mpi: training is over, but the newest checkpoint was not written to runs: "
    )
    assert _saved(tmp_path) == set()
