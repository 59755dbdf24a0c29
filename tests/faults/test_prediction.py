"""``predict`` as a job: a rank that dies leaves no file, and the file is the same on 1, 2, 3 and 8 ranks."""

import json

import pytest

from tests.faults import command_driver, jobs
from tests.serial.raw_files import write_csv

_DYING = """
import os, signal, sys
from lepton_mpi.__main__ import main
from lepton_mpi.prediction import encoder, streaming

place, rank = sys.argv[1], int(sys.argv[2])
mine = int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("PMI_RANK") or 0)
calls = []

def dying(original):
    def call(*given):
        calls.append(given)
        if mine == rank and len(calls) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*given)
    return call

if place == "encoding":
    encoder.Encoder.encoded = dying(encoder.Encoder.encoded)
else:
    streaming._gathered = dying(streaming._gathered)
raise SystemExit(main(sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table, a checkpoint that was trained on it, and the program above."""
    made = tmp_path_factory.mktemp("predict")
    rows = [[i % 89, (i * 7) % 13, ["a", "b", "c"][i % 3], i % 2] for i in range(4000)]
    write_csv(made / "t.csv", rows, "n", "m", "kind", "label")
    (made / "dying.py").write_text(_DYING)
    for words in (
        ("-m", "lepton_mpi", "prepare", "t.csv", "t.h5"),
        ("-m", "lepton_mpi.train", "--data", "t.h5", "--epochs", "1", "--checkpoint", "runs"),
    ):
        job = jobs.run(0, *words, cwd=made)
        assert job.code == 0, job.text
    return made


@pytest.mark.slow
@pytest.mark.parametrize(("place", "rank"), [("encoding", 0), ("encoding", 2), ("sending", 0), ("sending", 1)])  # fmt: skip
def test_a_rank_that_is_killed_leaves_no_file(folder, place, rank):
    """The job names it, and a file that was there before stays as it was; the next run ends well."""
    (folder / "old.csv").write_text("what was there\n")
    words = ("predict", "runs", "t.csv", "--out", "old.csv", "--force", "--prepare=--block 1K")
    job = jobs.run(3, "dying.py", place, str(rank), *words, cwd=folder)
    assert job.code not in (0, None), job.text
    assert f"rank {rank} of 3" in job.text, job.text
    assert (folder / "old.csv").read_text() == "what was there\n"
    job = jobs.run(2, "-m", "lepton_mpi", *words, cwd=folder)
    assert job.code == 0, job.text
    assert len((folder / "old.csv").read_text().splitlines()) == 4001
    assert not [path for path in folder.iterdir() if "partial" in path.name]


_FILES = ("p.csv", "p.npz", "p.h5")


def _written(folder, ranks):
    """The bytes of the files of all formats that need no other library, by as many ranks."""
    words = ("-m", "lepton_mpi", "predict", "runs", "t.csv", "--proba", "--force", "--prepare=--block 4K")  # fmt: skip
    commands = [[*words, "--out", name] for name in _FILES]
    (folder / "commands.json").write_text(json.dumps(commands))
    job = jobs.run(ranks, command_driver.__file__, "commands.json", cwd=folder)
    assert job.code == 0 and len(job.lines("wrote ")) == len(_FILES), job.text
    return [(folder / name).read_bytes() for name in _FILES]


@pytest.fixture(scope="module")
def of_one(folder):
    """The files that a process without a launcher writes."""
    return _written(folder, 0)


@pytest.mark.slow(but_every=3)
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_the_same_bytes_on_any_number_of_ranks(folder, of_one, ranks):
    """In every format."""
    assert _written(folder, ranks) == of_one


def test_wrong_words(folder):
    """One line, and exit code 2."""
    job = jobs.run(0, "-m", "lepton_mpi", "predict", "runs", "t.csv", cwd=folder)
    assert job.code == 2 and "--out: expected a file to write, got none" in job.text
    job = jobs.run(0, "-m", "lepton_mpi", "predict", "runs", cwd=folder)
    assert job.code == 2 and "expected CHECKPOINT INPUT" in job.text
    job = jobs.run(2, "-m", "lepton_mpi", "predict", "runs", "t.csv", "--out", "t.csv", cwd=folder)
    assert job.code == 2 and len(job.lines("lepton_mpi: --out: t.csv exists; --force")) == 1
