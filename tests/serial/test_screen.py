"""What is written to a terminal, and how it is found out that there is one."""

import os
import pty

import pytest

from lepton_mpi.run import report as reports
from lepton_mpi.run import screen as screens
from lepton_mpi.run.progress import SoFar
from lepton_mpi.run.report import Report
from lepton_mpi.run.screen import Screen, find_terminal, folded

_NOW = SoFar(
    *(3, 30, 938, 1875, 61_234.0, 0.12, 3723.0),
    *({"loss": 0.4321, "accuracy": 0.8765}, {"val_loss": 0.5, "val_accuracy": 0.75}),
)
_FIGURES = {
    **{"seconds": 12.3, "samples_per_second": 61_234.0, "loss": 0.4321, "accuracy": 0.8765},
    **{"val_loss": 0.5, "val_accuracy": 0.75},
}


def _report(monkeypatch, columns: int) -> Report:
    monkeypatch.setattr(reports, "find_terminal", lambda: "/nowhere")
    monkeypatch.setenv("COLUMNS", str(columns))
    return Report(True, "auto", None)


def test_nothing_is_wider_than_a_terminal_of_80_columns(monkeypatch, capsys):
    """The line in place leaves out what is least important, the epoch's line takes its short form, others are folded."""
    report = _report(monkeypatch, 80)
    report.epoch_goes_on(_NOW)
    report.epoch_ends(3, 30, _FIGURES)
    report.say(
        "loader", "memory (112 KiB of rows, 20.1 GiB of memory free), all rows shuffled, and more"
    )
    assert capsys.readouterr().out == (
        "\repoch  3/30   938/1875   50%  1:02:03 left  loss 0.4321  61 234 samples/s\x1b[K"
        "\r\x1b[Kepoch  3/30  12.30 s  loss 0.4321 val 0.5000  accuracy 0.8765 val 0.7500\n"
        "loader    memory (112 KiB of rows, 20.1 GiB of memory free), all rows shuffled,\n"
        "          and more\n"
    )


def test_a_wide_terminal_has_all_and_a_bar(monkeypatch, capsys):
    report = _report(monkeypatch, 200)
    report.epoch_goes_on(_NOW)
    report.epoch_ends(3, 30, _FIGURES)
    report.close()
    first, second = capsys.readouterr().out.split("\r\x1b[K")
    assert first == (
        f"\repoch  3/30  {'#' * 15}{'.' * 15}   938/1875   50%  1:02:03 left  loss 0.4321  61 234 samples/s  waiting 12%  "
        "val_loss 0.5000  accuracy 0.8765  val_accuracy 0.7500\x1b[K"
    )
    assert second == (
        "epoch  3/30  12.30 s  61 234 samples/s  loss 0.4321  accuracy 0.8765  val_loss 0.5000  val_accuracy 0.7500\n"
    )


def test_a_file_has_plain_lines(capsys):
    """Whatever their length, and no control code; the same words as on a terminal."""
    report = Report(True, "plain", None)
    assert report.progress_seconds == 10.0
    report.epoch_goes_on(_NOW)
    report.close()
    assert capsys.readouterr().out == (
        "step      938/1875 of epoch 3/30  1:02:03 left  loss 0.4321  61 234 samples/s  waiting 12%  val_loss 0.5000  accuracy 0.8765  "
        "val_accuracy 0.7500\n"
    )


def test_a_name_of_a_file_moves_no_cursor(capsys):
    """A line stays one, whatever characters the user's names have."""
    report = Report(True, "plain", None)
    report.say("checkpoint", "ru\nns\x1b[2J/Größe\udcff.h5")
    report.close()
    assert capsys.readouterr().out == "checkpoint ru\\nns\\x1b[2J/Größe\\udcff.h5\n"


def test_others_and_none_are_silent(capsys):
    for report in (Report(False, "bar", None), Report(True, "none", None)):
        assert report.progress_seconds == 0.0
        report.epoch_goes_on(_NOW)
        report.say("a", "b")
        report.close()
    assert capsys.readouterr().out == ""


def test_the_width_is_that_of_the_terminal_now(monkeypatch):
    """Not what the environment says; unknown it is 80, and never less than 40."""
    import fcntl
    import struct
    import termios

    main, other = pty.openpty()
    try:
        screen = Screen(os.ttyname(other))
        monkeypatch.setenv("COLUMNS", "77")
        for set_to, columns in ((132, 132), (20, 40), (0, 77)):
            fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, set_to, 0, 0))
            assert screen.columns == columns
        monkeypatch.setenv("COLUMNS", "wide")
        assert screen.columns == 80
    finally:
        os.close(main)
        os.close(other)


@pytest.mark.parametrize("columns", [40, 80, 81, 200])
def test_folded_lines_fit_and_keep_every_word(columns):
    text = "strategy  " + " ".join("x" * (1 + i % 13) for i in range(60))
    lines = folded(text, columns).split("\n")
    assert all(len(line) < columns for line in lines)
    assert " ".join(lines).split() == text.split()
    assert all(line.startswith(" " * 10) for line in lines[1:])


def test_a_terminal_is_looked_for_where_the_launcher_writes(monkeypatch):
    """Of two launchers, one of which started the other, at the first; not if it marks lines, and not if it cannot be seen."""
    main, other = pty.openpty()
    try:
        terminal = os.ttyname(other)
        under = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}
        parents = {os.getpid(): 70, 70: 50, 50: None}
        monkeypatch.setattr(screens, "launcher_of", parents.__getitem__)
        asked = []
        monkeypatch.setattr(screens, "_is_terminal", lambda path: asked.append(path) or True)
        monkeypatch.setattr(screens, "_marks_lines", lambda process: False)
        assert find_terminal(under) == "/proc/50/fd/1" == asked[0]
        monkeypatch.setattr(screens, "_marks_lines", lambda process: True)
        assert find_terminal(under) == ""
        assert find_terminal(under | {"LEPTON_TERMINAL": "1"}) == "/proc/50/fd/1"
        monkeypatch.setattr(screens, "launcher_of", lambda process: None)  # as under srun
        assert find_terminal(under) == ""
        monkeypatch.undo()
        assert screens._is_terminal(terminal) and not screens._is_terminal("/dev/null")
        assert not screens._is_terminal("/nowhere")
    finally:
        os.close(main)
        os.close(other)
