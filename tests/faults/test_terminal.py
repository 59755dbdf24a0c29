"""A run as it is seen on a terminal, in a file, and with a launcher that marks lines."""

import os
import pty
import re
import select
import shlex
import struct
import subprocess
import sys
import time
from fcntl import ioctl
from termios import TIOCSWINSZ

import pytest

from tests.faults import jobs

# Long enough for what changes in place; on any machine.
_HOOK = """
import time
from lepton_mpi import QuietHook

class Slow(QuietHook):
    def __init__(self, run):
        pass

    def after_step(self, run):
        time.sleep(0.05)
"""
_WORDS = ("--epochs", "2", "--hook", "slow.py:Slow")


def _on_terminal(columns: int, command: list[str], cwd) -> str:
    """What a terminal of this width is sent by a command that ends by itself."""
    main, other = pty.openpty()
    ioctl(other, TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    job = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdin=other,
        stdout=other,
        stderr=other,
        start_new_session=True,
    )
    os.close(other)
    sent, limit = b"", time.monotonic() + 100
    try:
        while time.monotonic() < limit:
            if select.select([main], [], [], 0.2)[0]:
                try:
                    sent += os.read(main, 1 << 16)
                except OSError:  # the last process has closed it
                    break
            elif job.poll() is not None:
                break
        assert job.wait(timeout=20) == 0, sent.decode(errors="replace")
    finally:
        job.kill()
        job.wait()
        os.close(main)
    return sent.decode()


def _launch(ranks: int) -> list[str]:
    words = shlex.split(os.environ.get("LEPTON_TEST_LAUNCH", ""))
    return [*(words or [str(jobs.ROOT / "run_local.sh"), "mpi"]), str(ranks)]


@pytest.mark.slow(but_every=3)
@pytest.mark.parametrize(("ranks", "columns"), [(2, 80), (0, 80), (2, 200)])
def test_a_terminal_is_written_to_without_a_wrapped_line(tmp_path, ranks, columns):
    """The line in place changes some times in an epoch and is gone at the end; of control codes there is the one that clears it."""
    (tmp_path / "slow.py").write_text(_HOOK)
    program = [sys.executable, *jobs.TRAIN, *_WORDS]
    sent = _on_terminal(columns, [*(_launch(ranks) if ranks else []), *program], tmp_path)
    lines = sent.replace("\r\n", "\n").split("\n")
    assert lines.pop() == ""
    # What stands in a line in the end, and everything that stood in it before.
    pieces = [part.replace("\x1b[K", "") for line in lines for part in line.split("\r")]
    assert all(piece.isprintable() and len(piece) < columns for piece in pieces), pieces
    assert "\x1b" not in sent.replace("\x1b[K", "")
    in_place = [piece for piece in pieces if re.match(r"epoch \d/2 .* left  loss ", piece)]
    assert len(in_place) >= 4 and any("##" in piece for piece in in_place) == (columns == 200)
    left = [line.rpartition("\r")[2].replace("\x1b[K", "") for line in lines]
    assert sum(line.startswith("epoch ") for line in left) == 2
    assert "left" not in "".join(left) and left[-1].startswith("weights ")


def test_a_file_has_no_control_code(tmp_path):
    """Nor has what a launcher's daemon, or ``srun --label``, puts its marks before; a line is never folded."""
    (tmp_path / "slow.py").write_text(_HOOK)
    job = jobs.run(2, *jobs.TRAIN, *_WORDS, cwd=tmp_path)
    assert job.code == 0, job.text
    lines = job.out.split("\n")
    assert lines.pop() == ""
    assert all(line.isprintable() and re.match(r"[a-z]+ +\S", line) for line in lines), job.out
    assert sum(line.startswith("epoch ") for line in lines) == 2
