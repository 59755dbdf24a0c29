"""When a play ends: with its faults, or with the steps in which they could come."""

from pathlib import Path

from lepton_mpi.__main__ import main
from lepton_mpi.chaos import play
from lepton_mpi.chaos.start import Ended
from lepton_mpi.run import checkpoint_folder
from tests.serial.made_checkpoints import small_checkpoint


def _trains_on(words, ranks, faults, folder, limit_seconds):
    """A start that ends as if nothing had happened to it, after step 3."""
    checkpoints = Path(words[words.index("--checkpoint") + 1])
    checkpoint_folder.save(checkpoints, small_checkpoint(3))
    return Ended(0, 1.0, 0.0, [], 0, False, folder / "output.txt")


def test_a_run_that_is_over_is_not_started_again(tmp_path, monkeypatch):
    """No fault can come in it any more, and none that has not come has harmed it."""
    monkeypatch.setattr(play, "start", _trains_on)
    plan = play.Plan((), 7, ("raise",), (1, 2), 1, tmp_path / "chaos", 20.0, True)
    said = []
    found = play.play(plan, lambda title, text: said.append(title))
    assert said == ["undisturbed", "start 1"]
    assert (found.last_step, found.lost_steps, found.hung) == (3, 0, 0)
    assert found.is_good(promises_bits=True)


def test_the_end_of_a_failed_training_is_shown_line_by_line(tmp_path, monkeypatch, capsys):
    """As it was printed, but for what would move a terminal's cursor."""

    def fails(words, ranks, faults, folder, limit_seconds):
        output = tmp_path / "output.txt"
        before = "".join(f"line {number}\n" for number in range(20))
        output.write_text(f"{before}lepton_mpi: --elastic: refused\n\n\tcode\x1b[2J 2\n", "utf-8")
        return Ended(2, 1.0, 0.0, [], 0, False, output)

    monkeypatch.setattr(play, "start", fails)
    folder = str(tmp_path / "chaos")
    assert main(["chaos", "--kills", "1", "--folder", folder, "--", "--recipe", "digits"]) == 5
    first, *shown = capsys.readouterr().err.splitlines()
    assert first == (
        "lepton_mpi chaos: the training failed without a fault, exit code 2; "
        f"{tmp_path}/output.txt ends with:"
    )
    assert shown == [
        *(f"line {number}" for number in range(11, 20)),
        *("lepton_mpi: --elastic: refused", "", "        code\\x1b[2J 2"),
    ]
