"""``--csv`` and ``--tensorboard``: what stands in the files after a run, one that was cut, and one that went on."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.options.config import Config
from lepton_mpi.run import build
from lepton_mpi.run.csv_table import CsvTable
from lepton_mpi.run.progress import SoFar, Ticks
from lepton_mpi.run.records import open_sinks
from lepton_mpi.run.resume import Start
from lepton_mpi.run.tensorboard import TensorBoard
from lepton_mpi.world.alone import Alone


def _row(epoch: int, loss: float = 0.1) -> dict[str, float]:
    return {"epoch": epoch, "step": 10 * epoch, "loss": loss, "learning_rate": 0.001}


def _written(path, begins, *rows) -> str:
    table = CsvTable(str(path), begins)
    for row in rows:
        table.epoch_ends(row)
    table.close()
    return path.read_text()


def test_rows_have_all_digits_and_one_head(tmp_path):
    text = _written(tmp_path / "t.csv", None, _row(1, 1 / 3), _row(2, float("nan")))
    assert text == (
        "epoch,step,loss,learning_rate\n1,10,0.3333333333333333,0.001\n2,20,nan,0.001\n"
    )


def test_a_run_that_goes_on_replaces_epochs_that_it_trains_again(tmp_path):
    """Epoch 3 was written and its checkpoint was not; a kill has cut the line of epoch 4."""
    path = tmp_path / "t.csv"
    _written(path, None, _row(1), _row(2), _row(3))
    path.write_text(path.read_text() + "4,4")
    text = _written(path, 3, _row(3, 0.5))
    assert [line.split(",")[0] for line in text.splitlines()] == ["epoch", "1", "2", "3"]
    assert text.endswith("3,30,0.5,0.001\n")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("left", ["", "epo"])
def test_not_even_the_head_was_written(tmp_path, left):
    path = tmp_path / "t.csv"
    path.write_text(left)
    assert _written(path, 1, _row(1)) == "epoch,step,loss,learning_rate\n1,10,0.1,0.001\n"


def test_what_is_no_table_of_ours_is_left_alone(tmp_path):
    path = tmp_path / "t.csv"
    for text, begins, said in (
        ("a,b\n1,2\n", 2, "whose first column is epoch"),
        ("\n1,2\n", 2, "whose is an empty line"),
        ("epoch,loss\nmine,2\n", 2, "rows that begin with the number of an epoch"),
        ("epoch,loss\n1,2\n", None, "expected a file that is new or empty"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=said):
            CsvTable(str(path), begins)
        assert path.read_text() == text
    table = CsvTable(str(path), 2)
    with pytest.raises(ConfigurationError, match="to have the columns epoch, step, loss"):
        table.epoch_ends(_row(2))
    table.close()
    with pytest.raises(LauncherError, match="cannot write"):
        CsvTable(str(tmp_path / "no/t.csv"), None)


def _events(folder):
    """(step, tag, value) of all scalars of a folder, and the steps from which on earlier files count no more."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found, restarts = [], []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            if event.session_log.status == SessionLog.START:
                restarts.append(event.step)
            found += [(event.step, each.tag, each.simple_value) for each in event.summary.value]
    return found, restarts


def test_scalars_of_tensorboard(tmp_path):
    """Figures of training and validation under one name; a run that goes on has later steps dropped."""
    pytest.importorskip("tensorboardX")
    board = TensorBoard(str(tmp_path / "tb"), None)
    now = SoFar(1, 2, 5, 10, 640.0, 0.25, 3.0, {"loss": 0.75}, {})
    board.epoch_goes_on(now, 5, 0.001)
    board.epoch_ends({"epoch": 1, "step": 10, "loss": 0.5, "val_loss": 0.25, "seconds": 2.0})
    board.close()
    found, restarts = _events(tmp_path / "tb")
    assert restarts == []
    assert found == [
        (5, "within_epoch/loss", 0.75),
        (5, "within_epoch/learning_rate", pytest.approx(0.001)),
        (5, "within_epoch/samples_per_second", 640.0),
        (5, "within_epoch/waiting_share", 0.25),
        (10, "epoch", 1.0),
        (10, "loss/training", 0.5),
        (10, "loss/validation", 0.25),
        (10, "time/seconds", 2.0),
    ]
    with pytest.raises(ConfigurationError, match="--tensorboard: expected a folder without files"):
        TensorBoard(str(tmp_path / "tb"), None)
    TensorBoard(str(tmp_path / "tb"), 7).close()
    assert _events(tmp_path / "tb")[1] == [8]


def test_a_disk_that_is_full_ends_tensorboard(tmp_path):
    """Whatever was handed over before: nobody waits for a writer that has given up."""
    pytest.importorskip("tensorboardX")
    program = """
import resource, sys
from lepton_mpi.errors import LauncherError
from lepton_mpi.run.tensorboard import TensorBoard
board = TensorBoard(sys.argv[1], None)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for epoch in range(1, 1000):
    try:
        board.epoch_ends({"epoch": epoch, "step": epoch, "loss": 0.5})
    except LauncherError as error:
        print(epoch, error)
        break
try:
    board.close()
except LauncherError as error:
    print(error)
"""
    job = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "tb")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = job.stdout.splitlines()
    assert job.returncode == 0, job.stderr
    assert 2 < int(said[0].split()[0]) < 100
    assert all(f"cannot write to {tmp_path / 'tb'}: File too large" in line for line in said)


def test_tensorboard_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(ConfigurationError, match="pip install 'tensorboardX"):
        TensorBoard(str(tmp_path), None)


@pytest.mark.parametrize(
    "start", [Start(begins_again=True), Start(2, 0, 10, path=Path("step-00000010.h5"))]
)
def test_a_run_that_a_loss_has_ended_appends_to_all_of_its_files(tmp_path, start):
    """From a copy, or from its beginning where there was none yet."""
    pytest.importorskip("tensorboardX")
    names = {name: str(tmp_path / name) for name in ("csv", "tensorboard", "metrics")}
    config, world = Config(**names, progress="none"), Alone()

    def write(start):
        sinks = open_sinks(config, world, start)
        report = build.open_report(config, world, start)
        sinks[0].epoch_ends(_row(1))
        report.record("start")
        for file in (*sinks, report):
            file.close()

    write(Start())
    write(start)
    for kept in names:
        with pytest.raises(ConfigurationError, match=f"--{kept}: expected a f"):
            one = Config(**{kept: names[kept]}, progress="none")
            open_sinks(one, world, Start())
            build.open_report(one, world, Start())


@pytest.mark.parametrize(("step_seconds", "looks"), [(1e-4, 60), (0.02, 60), (3.0, 7)])
def test_ticks_come_as_often_as_they_are_asked_for(monkeypatch, step_seconds, looks):
    """A minute of steps of one length, every second: not late by more than a look, and few looks at the clock."""
    now, asked = [0.0], [0]

    def clock() -> float:
        asked[0] += 1
        return now[0]

    monkeypatch.setattr("lepton_mpi.run.progress.perf_counter", clock)
    ticks, due = Ticks(1.0), []
    ticks.begin()
    while now[0] < 20 * min(looks, 3):
        now[0] += step_seconds
        if ticks.is_due():
            due.append(now[0])
    gaps = [b - a for a, b in zip([0.0, *due], due, strict=False)]
    assert max(gaps) <= max(1.0 + 0.1, step_seconds) + 1e-6
    assert len(due) >= 20 * min(looks, 3) / max(1.1, step_seconds) - 1
    assert asked[0] <= 20 * 3 / 0.04 + 60
