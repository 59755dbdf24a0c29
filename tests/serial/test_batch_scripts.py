"""Scripts for batch systems: what they ask for, that a shell takes them, and that they stop, save and start again as they say.

The programs of the batch systems are stand-ins; ``tests/faults/test_batch_jobs.py`` has ranks in place of the one for ``python``.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from lepton_mpi.__main__ import main
from lepton_mpi.commands.batch_script import PBS, SLURM

_SIZE = ["--nodes", "4", "--ranks-per-node", "16", "--time", "2:00:00"]
_TRAIN = ["--data", "train.h5", "--global-batch", "4096", "--micro-batch", "64"]
_SYSTEMS = ("slurm", "pbs", "lsf")


def _script(capsys, system: str, *words: str, train=tuple(_TRAIN)) -> str:
    assert main([system, *_SIZE, *words, "--", *train]) == 0
    return capsys.readouterr().out


def _refused(capsys, system: str, *words: str) -> str:
    assert main([system, *words]) == 2
    out, err = capsys.readouterr()
    assert not out
    (line,) = err.splitlines()
    return line


def _directives(text: str, mark: str) -> list[str]:
    return [line.removeprefix(f"{mark} ") for line in text.splitlines() if line.startswith(mark)]


# -- what is asked for -------------------------------------------------------------------------------


def test_slurm(capsys):
    text = _script(capsys, "slurm", "--queue", "long", "--account", "me", "--warn", "10min")
    assert _directives(text, "#SBATCH") == [
        "--job-name=lepton",
        "--nodes=4",
        "--ntasks-per-node=16",
        "--cpus-per-task=1",
        "--time=02:00:00",
        "--signal=B:USR1@600",
        "--requeue",
        "--open-mode=append",
        "--output=lepton-%j.out",
        "--partition=long",
        "--account=me",
    ]
    assert "launch=(srun --mpi=pmix --cpu-bind=cores --cpus-per-task=1)\n" in text
    assert 'scontrol requeue "$SLURM_JOB_ID"' in text


def test_pbs(capsys):
    """Of the whole time without the warning, timeout lets 6900 s pass."""
    text = _script(capsys, "pbs", "--cores-per-rank", "2", "--queue", "long")
    assert _directives(text, "#PBS") == [
        "-N lepton",
        "-l select=4:ncpus=32:mpiprocs=16:ompthreads=2",
        "-l place=scatter",
        "-l walltime=02:00:00",
        "-r y",
        "-j oe",
        "-q long",
    ]
    assert 'mpirun -n 64 --hostfile "$PBS_NODEFILE" --map-by ppr:16:node:PE=2' in text
    assert "--signal=USR1 6900 " in text


def test_lsf(capsys):
    """Times are minutes there, rounded so that none is too short."""
    text = _script(capsys, "lsf", "--warn", "90s", "--account", "me")
    assert _directives(text, "#BSUB") == [
        '-J "lepton"',
        "-n 64",
        '-R "span[ptile=16]"',
        "-W 2:00",
        "-wt 2",
        "-wa USR1",
        "-r",
        '-Q "75"',
        "-o /dev/null",
        "-P me",
    ]


@pytest.mark.parametrize("system", _SYSTEMS)
def test_without_requeue_nothing_starts_the_job_again(capsys, system):
    _, _, text = _script(capsys, system, "--requeue", "false").partition("# Submit")
    for word in ("scontrol", "qsub -v", "-Q", "#BSUB -r", "#PBS -r y", "--requeue"):
        assert word not in text
    assert ("--no-requeue" in text) == (system == "slurm")


@pytest.mark.parametrize(
    ("mpi", "slurm", "pbs"),
    [
        ("openmpi", "--mpi=pmix", "mpirun -n 64 --hostfile"),
        ("mpich", "--mpi=pmi2", "mpiexec -n 64 -f"),
        ("intel", "--mpi=pmi2", "mpirun -n 64 -machinefile"),
    ],
)
def test_each_mpi_has_its_launcher(capsys, mpi, slurm, pbs):
    assert slurm in _script(capsys, "slurm", "--mpi", mpi)
    assert pbs in _script(capsys, "pbs", "--mpi", mpi)


def test_the_run_is_saved_and_goes_on_whatever_is_given(capsys):
    """In the folder of --name, of --checkpoint, of --resume, or of the file of --config."""
    for train, folder in (
        ([], "lepton"),
        (["--checkpoint", "runs"], "runs"),
        (["--resume", "runs"], "runs"),
        (["--checkpoint", "runs", "--resume", "runs/"], "runs"),
    ):
        text = _script(capsys, "slurm", train=[*_TRAIN, *train])
        assert f"    --checkpoint {folder}\n" in text and f"    --resume {folder}" in text


def test_a_configuration_file_counts(capsys, tmp_path, monkeypatch):
    """Its threads are cores, and its folder is gone on from."""
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text('data = "a.h5"\nthreads = 4\ncheckpoint = "saved"\n')
    text = _script(capsys, "slurm", train=["--config", "run.toml", "--micro-batch", "1"])
    assert "--cpus-per-task=4\n" in text and "OMP_NUM_THREADS=4\n" in text
    assert "    --resume saved\n" in text and "--checkpoint" not in text.partition("options=(")[2]


def test_words_reach_train_as_they_are(capsys):
    """Whatever a shell would make of them; a home stays that of who runs the script."""
    odd = "it's $HOME; `x`.h5"
    text = _script(capsys, "slurm", "--environment", "~/my env", train=["--data", odd, *_TRAIN[2:]])
    part = text.partition("options=(")[2].partition("\n)")[0]
    printed = subprocess.run(
        ["bash", "-c", f"options=({part}\n); printf '%s\\n' \"${{options[@]}}\""],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert printed == ["--data", odd, *_TRAIN[2:], "--checkpoint", "lepton", "--resume", "lepton"]
    assert "environment=\"$HOME\"/'my env'\n" in text


def test_scripts_are_written_over_scripts_only(capsys, tmp_path):
    """Not over a file of the user's."""
    path = tmp_path / "job.sh"
    for nodes in ("2", "3"):
        words = [*_SIZE[2:], "--nodes", nodes, "--out", str(path), "--", *_TRAIN]
        assert main(["slurm", *words]) == 0
        assert capsys.readouterr().out == f"wrote     {path}\n"
        assert f"--nodes={nodes}\n" in path.read_text()
    path.write_text("#!/bin/bash\necho mine\n")
    assert "--out: expected a new file" in _refused(capsys, "slurm", *words)
    assert path.read_text() == "#!/bin/bash\necho mine\n"


# -- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time", "2h"], "--ranks-per-node: expected the ranks of each node"),
        (["--ranks-per-node", "4"], "--time: expected the job's time limit"),
        (["--ranks-per-node", "4", "--time", "120"], "--time: expected a time with its unit"),
        (["--ranks-per-node", "4", "--time", "2:00"], "--time: expected a time with its unit"),
        (["--ranks-per-node", "4", "--time", "30s"], "from 1 minute to 1000 days, got 30 s"),
        ([*_SIZE, "--warn", "2h"], "--warn: expected a time from 1 s that is shorter than --time"),
        ([*_SIZE, "--epochs", "3"], "--epochs is an option of train: it stands behind --"),
        ([*_SIZE, "--", "--epoch", "3"], "unknown option --epoch, did you mean --epochs?"),
        ([*_SIZE, "--", "--epochs", "0"], "--epochs: expected a whole number of at least 1"),
        ([*_SIZE, "--", "--keep-best", "loss", "--restore-best", "x"], "expected options only"),
        ([*_SIZE, "--", "--resume", "a.h5"], "--resume: expected the folder of --checkpoint"),
        ([*_SIZE, "--", "--config", "none.toml"], "--config: cannot read none.toml"),
        ([*_SIZE, "--name", "a b"], "--name: expected letters"),
        ([*_SIZE, "--launcher", "srun; rm"], "--launcher: expected words of a shell"),
        ([*_SIZE, "--directives", "--mem=1"], "unknown option --mem"),
        ([*_SIZE, "--directives=--mem=1\n#SBATCH x"], "--directives: expected texts on one line"),
    ],
)
def test_what_is_wrong_is_said_before_a_script_is_printed(capsys, words, said):
    assert said in _refused(capsys, "slurm", *words)


def test_ranks_without_work_are_named(capsys):
    """The script is printed all the same: training does not refuse it either."""
    assert main(["slurm", *_SIZE, "--", "--data", "a.h5", "--global-batch", "512"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("#!/bin/bash\n")
    assert "64 ranks, but a step has 8 micro-batches: 56 ranks would have no work" in err
    assert "--micro-batch 8 gives" in err


# -- as programs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", _SYSTEMS)
def test_shells_and_shellcheck_take_them(capsys, tmp_path, system):
    for number, words in enumerate(([], ["--requeue", "false"], ["--modules", "a", "b c"])):
        path = tmp_path / f"{number}.sh"
        path.write_text(_script(capsys, system, *words))
        subprocess.run(["bash", "-n", path], check=True)
        if shutil.which("shellcheck"):
            checked = subprocess.run(["shellcheck", path], capture_output=True, text=True)
            assert checked.returncode == 0, checked.stdout


# In place of training: says that it has begun, and ends as the file "ends" says, or as soon as a signal comes.
_PYTHON = """#!/bin/bash
echo "$*" >>words
trap 'echo told >>told; exit 75' USR1
echo begun >>begun
[[ ! -e ends ]] || exit "$(cat ends)"
for _ in {1..600}; do sleep 0.05; done
"""
# Launchers replace themselves; their own options end where the program begins.
_LAUNCHER = """#!/bin/bash
while [[ $1 != python ]]; do shift; done
exec "$@"
"""
_AGAIN = """#!/bin/bash
echo "$(basename "$0") $*" >>again
[[ ! -e refuses ]]
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch, capsys):
    """A folder with stand-ins, and a function that starts a script of a system there."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        *(("python", _PYTHON), ("srun", _LAUNCHER), ("mpirun", _LAUNCHER)),
        *(("scontrol", _AGAIN), ("qsub", _AGAIN)),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)

    def start(system: str, *words: str, **variables: str) -> subprocess.Popen:
        (tmp_path / "job.sh").write_text(_script(capsys, system, *words))
        usual = {"PATH": f"{programs}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
        usual |= {"PBS_NODEFILE": "nodes", "LSB_DJOB_HOSTFILE": "nodes", "LSB_JOBID": "17"}
        usual |= {"PBS_O_WORKDIR": str(tmp_path)}
        return subprocess.Popen(["bash", "job.sh"], env=usual | variables)

    return start


def _has(name: str) -> None:
    end = time.monotonic() + 20
    while not Path(name).exists():
        assert time.monotonic() < end, name
        time.sleep(0.01)


_STARTS_AGAIN = {
    "slurm": ("scontrol requeue 17\n", 75),
    "pbs": ("qsub -v LEPTON_RESTARTS=1 job.sh\n", 75),
    "lsf": ("", 75),
}


@pytest.mark.parametrize("system", _SYSTEMS)
def test_a_warning_reaches_the_ranks_and_the_job_starts_again(cluster, system):
    """LSF does that by itself, by the exit code."""
    job = cluster(system)
    _has("begun")
    job.send_signal(signal.SIGUSR1)
    again, code = _STARTS_AGAIN[system]
    assert job.wait(20) == code
    assert Path("told").read_text() == "told\n"
    assert (Path("again").read_text() if again else "") == again


def test_pbs_is_warned_by_timeout(cluster):
    """Nobody signals the script."""
    job = cluster("pbs", "--time", "1min", "--warn", "59s")
    assert job.wait(20) == 75
    assert Path("told").read_text() == "told\n"


@pytest.mark.parametrize("system", _SYSTEMS)
def test_a_job_that_is_cancelled_is_told_and_not_started_again(cluster, system):
    job = cluster(system)
    _has("begun")
    job.terminate()
    assert job.wait(20) == (143 if system == "lsf" else 75)
    assert Path("told").exists() and not Path("again").exists()


@pytest.mark.parametrize("system", _SYSTEMS)
@pytest.mark.parametrize("code", [0, 5])
def test_other_ends_are_ends(cluster, tmp_path, system, code):
    Path("ends").write_text(str(code))
    assert cluster(system).wait(20) == code
    assert not Path("again").exists()
    words = Path("words").read_text().split()
    assert words[:2] == ["-m", "lepton_mpi.train"] and words[2:6] == _TRAIN[:4]


def test_a_job_that_does_not_come_on_is_not_started_for_ever(cluster):
    """Stopped before its first step a hundred times; or where nobody may put a job back."""
    Path("ends").write_text("75")
    assert cluster("slurm", SLURM_RESTART_COUNT="100").wait(20) == 75
    assert cluster("pbs", LEPTON_RESTARTS="100").wait(20) == 75
    assert not Path("again").exists()
    Path("refuses").touch()
    assert cluster("slurm", SLURM_RESTART_COUNT="99").wait(20) == 75
    assert Path("again").read_text() == "scontrol requeue 17\n"


def test_help_names_the_command_that_submits():
    assert "sbatch job.sh" in SLURM.help() and "qsub job.sh" in PBS.help()
