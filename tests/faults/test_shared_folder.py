"""Many jobs with one folder of checkpoints: one has it, or each has its own; nothing is lost."""

import json
import re
import subprocess
import sys

import pytest

from lepton_mpi.run import checkpoint
from tests.faults import jobs

# Each job is a process of one rank with an MPI of its own; what takes long to import is there before they begin.
_PROGRAM = """
import json, os, sys
import lepton_mpi.data.loader, lepton_mpi.models.registry, lepton_mpi.run.checkpoint, lepton_mpi.run.defaults, lepton_mpi.strategies.registry

def begin(number, name, variables):
    child = os.fork()
    if child:
        return child
    os.environ |= variables
    out = os.open(f"out-{number}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1), os.dup2(out, 2)
    code = 0
    try:
        from lepton_mpi import fit
        fit(model="logistic", data="breast_cancer", epochs=3, checkpoint=name, progress="none", seed=number, keep=3)
    except SystemExit as error:
        code = error.code
    sys.stdout.flush()
    os._exit(code)

for words in json.loads(sys.argv[1]):
    children = [begin(*each) for each in words]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps([children, codes]), flush=True)
"""


def _run(folder, *rounds):
    """Process numbers and exit codes of the jobs of each round."""
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps(rounds)],
        cwd=folder,
        env=jobs.clean_environment() | {"PYTHONPATH": str(jobs.ROOT)},
        capture_output=True,
        text=True,
        timeout=115,
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("[[")]


def _seeds(folder):
    """Of every checkpoint, whole as it is."""
    return [checkpoint.load(path).attributes["seed"] for path in sorted(folder.glob("step-*.h5"))]


@pytest.mark.slow
def test_jobs_in_one_folder_are_refused_or_come_one_after_the_other(tmp_path):
    """Two, five and twenty at once: a refused one names the owner and writes nothing, and the checkpoints are those of jobs that were not."""
    counts = (2, 5, 20)
    rounds = [[(100 * count + n, f"runs{count}", {}) for n in range(count)] for count in counts]
    for count, (children, codes) in zip(counts, _run(tmp_path, *rounds), strict=True):
        said = [(tmp_path / f"out-{100 * count + n}.txt").read_text() for n in range(count)]
        assert set(codes) <= {0, 2} and 0 in codes and (2 in codes or count < 20), said
        owners = {child for child, code in zip(children, codes, strict=True) if code == 0}
        for code, text in zip(codes, said, strict=True):
            if code == 2:
                pattern = rf"--checkpoint runs{count}: it belongs to process (\d+) on host "
                (pid,) = re.findall(pattern, text)
                assert int(pid) in owners and "{job}" in text and "Traceback" not in text, text
        runs = tmp_path / f"runs{count}"
        seeds = _seeds(runs)
        assert len(seeds) == 3 and {codes[seed - 100 * count] for seed in seeds} == {0}
        assert [path.suffix for path in runs.iterdir()] == 3 * [".h5"]


@pytest.mark.slow
def test_jobs_with_folders_of_their_own(tmp_path):
    """By the number of the batch job, or by process and time."""
    batch = [(n, "batch/{job}", {"SLURM_JOB_ID": str(70 + n)}) for n in range(4)]
    others = [(n, "others/{job}", {}) for n in range(4)]
    for _, codes in _run(tmp_path, batch, others):
        assert codes == [0] * 4, [(tmp_path / f"out-{n}.txt").read_text() for n in range(4)]
    folders = sorted((tmp_path / "batch").iterdir())
    assert [folder.name for folder in folders] == ["70", "71", "72", "73"]
    assert [_seeds(folder) for folder in folders] == [3 * [n] for n in range(4)]
    assert sorted(map(_seeds, (tmp_path / "others").iterdir())) == [3 * [n] for n in range(4)]
