"""What ``./run_local.sh train`` does at a terminal: Ctrl-C saves and says so, twice ends, and nothing is left whatever ends it.

The program that it puts before the launcher is started here in a terminal of its own, since the script would make an environment.
"""

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lepton_mpi.run import checkpoint
from lepton_mpi.starting import foreground
from tests.faults import jobs

_TRAIN = (*jobs.TRAIN, "--progress", "plain", "--epochs", "100000", "--hidden", "8")


class _Terminal:
    """A program in a session of its own, whose terminal this is."""

    def __init__(self, words, cwd):
        variables = jobs.clean_environment()
        self.process_id, self._file = pty.fork()
        if self.process_id == 0:
            try:
                os.chdir(cwd)
                os.execvpe(words[0], words, variables)
            finally:
                os._exit(127)  # never a second pytest
        self.text = ""

    def read(self, seconds=0.1):
        """What has come; False when nobody writes any more."""
        if select.select([self._file], [], [], seconds)[0]:
            try:
                self.text += os.read(self._file, 65536).decode(errors="replace")
            except OSError:
                return False
        return True

    def until(self, condition, seconds=90):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.text[-3000:]
            if not self.read():
                time.sleep(0.05)

    def press(self, letter):
        os.write(self._file, letter)

    def close(self):
        os.close(self._file)

    def exit_code(self, seconds=60):
        end = time.monotonic() + seconds
        while self.read() and time.monotonic() < end:
            pass
        while time.monotonic() < end:
            done, status = os.waitpid(self.process_id, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        raise AssertionError(self.text[-3000:])


def _words(folder):
    launch = shlex.split(os.environ.get("LEPTON_TEST_LAUNCH", "")) or [
        *(str(jobs.ROOT / "run_local.sh"), "mpi")
    ]
    program = [sys.executable, "-I", "-S", foreground.__file__, *launch, "2", sys.executable]
    saved = ("--checkpoint", str(folder / "saved"), "--metrics", str(folder / "run.jsonl"))
    return [*program, *_TRAIN, *saved]


@contextmanager
def _training(folder):
    """A terminal in which ranks train; whatever is left is killed."""
    terminal = _Terminal(_words(folder), folder)
    path = folder / "run.jsonl"
    try:
        terminal.until(lambda: path.exists() and path.read_text().count("epoch") > 4)
        terminal.until(lambda: any((folder / "saved").glob("step-*.h5")))
        yield terminal
    finally:
        for process in jobs.processes_with(str(folder)):
            with suppress(Exception):
                process.kill()
        with suppress(OSError):
            terminal.close()


def _all_gone(folder):
    end = time.monotonic() + 30
    while left := jobs.processes_with(str(folder)):
        assert time.monotonic() < end, left
        time.sleep(0.1)


def _newest(folder) -> Path:
    return max((folder / "saved").glob("step-*.h5"))


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    with _training(tmp_path) as terminal:
        terminal.press(b"\x03")
        assert terminal.exit_code() == 75, terminal.text
    assert "run_local.sh: the ranks finish a step, save, and end" in terminal.text
    found = re.search(
        r"lepton_mpi: SIGUSR1: stopped after step (\d+), .*; saved, go on with --resume",
        terminal.text,
    )
    assert found, terminal.text[-2000:]
    assert _newest(tmp_path).name == f"step-{int(found[1]):08}.h5"
    checkpoint.verify(_newest(tmp_path))
    _all_gone(tmp_path)


@pytest.mark.slow
def test_ctrl_c_twice_ends_the_ranks(tmp_path):
    """The second one comes before they could save, or just after: in both cases all end soon."""
    with _training(tmp_path) as terminal:
        began = time.monotonic()
        terminal.press(b"\x03")
        time.sleep(0.01)
        terminal.press(b"\x03")
        assert terminal.exit_code() in (130, 75), terminal.text
        assert time.monotonic() - began < 30
    _all_gone(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["terminal closed", "killed"])
def test_nothing_outlives_it(tmp_path, how):
    """Ranks that lose their terminal save first; a kill leaves them no time for that, but a whole checkpoint."""
    with _training(tmp_path) as terminal:
        if how == "killed":
            os.kill(terminal.process_id, signal.SIGKILL)
            terminal.exit_code()
        else:
            terminal.close()
            os.waitpid(terminal.process_id, 0)
        _all_gone(tmp_path)
    checkpoint.verify(_newest(tmp_path))


# -- without ranks -----------------------------------------------------------------------------------

_PROGRAM = """
import signal, sys, time
def heard(number, frame):
    print(signal.Signals(number).name, flush=True)
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGTSTP, signal.SIGCONT):
    signal.signal(number, heard)
print("begun", flush=True)
end = time.monotonic() + 30
while time.monotonic() < end:
    time.sleep(0.05)
"""


@contextmanager
def _heard(**options):
    words = [sys.executable, "-I", "-S", foreground.__file__]
    # A pipe of its own, whose end is seen when the last process is gone.
    job = subprocess.Popen(
        [*words, "sh", "-c", 'exec "$0" -c "$1"', sys.executable, _PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        assert job.stdout is not None
        yield job, job.stdout.readline
    finally:
        job.kill()
        job.communicate(timeout=40)


@pytest.mark.slow
def test_signals_are_translated():
    """A second Ctrl-C is SIGTERM, again after 5 s, and SIGKILL: a launcher that does not mind them ends all the same."""
    with _heard() as (job, line):
        line()
        for number, said in (
            *((signal.SIGUSR2, "SIGUSR2"), (signal.SIGUSR1, "SIGUSR1"), (signal.SIGINT, "SIGUSR1")),
            (signal.SIGINT, "SIGTERM"),
        ):
            job.send_signal(number)
            assert line() == f"{said}\n"
        assert line() == "SIGTERM\n"
        assert job.wait(20) == 130


def test_a_terminal_s_stop_stops_both():
    with _heard() as (job, line):
        line()
        job.send_signal(signal.SIGTSTP)
        assert line() == "SIGTSTP\n"
        state = Path(f"/proc/{job.pid}/stat")
        end = time.monotonic() + 20
        while state.read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < end
            time.sleep(0.02)
        job.send_signal(signal.SIGCONT)
        assert line() == "SIGCONT\n"


def test_what_was_ignored_stays_ignored():
    """As nohup has it."""
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with _heard(**ignored) as (job, line):
        line()
        job.send_signal(signal.SIGHUP)
        job.send_signal(signal.SIGUSR2)
        assert line() == "SIGUSR2\n"


@pytest.mark.parametrize("flags", [(), ("--without-sigpipe",)])
def test_a_pipe_that_nobody_reads_ends_the_launcher_but_that_of_intel_mpi(flags):
    """As the script has it: Python ignores SIGPIPE, which what it starts would inherit."""
    words = [sys.executable, "-I", "-S", foreground.__file__, *flags]
    ended = subprocess.run(
        [*words, "grep", "SigIgn", "/proc/self/status"], capture_output=True, text=True, timeout=60
    )
    is_ignored = int(ended.stdout.split()[1], 16) >> (signal.SIGPIPE - 1) & 1
    assert is_ignored == bool(flags)


@pytest.mark.parametrize(("program", "code"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_code_is_the_launcher_s(program, code):
    words = [sys.executable, "-I", "-S", foreground.__file__, "sh", "-c", program]
    assert subprocess.run(words, timeout=60).returncode == code


def test_run_local_puts_it_before_the_launcher():
    """Of training alone: other programs may not know what SIGUSR1 asks for."""
    text = (jobs.ROOT / "run_local.sh").read_text()
    training = text.partition("run_training() {")[2].partition("\n}")[0]
    assert 'in_front=(python -I -S "$root/lepton_mpi/starting/foreground.py")' in training
    assert text.count("in_front=(python") == 1
    assert (jobs.ROOT / "lepton_mpi/starting/foreground.py").samefile(foreground.__file__)


_EARLY = """
import os, signal, subprocess, sys
from lepton_mpi.starting import foreground

start = subprocess.Popen

def interrupted(*words, **named):
    os.kill(os.getpid(), signal.SIGUSR1)
    return start(*words, **named)

subprocess.Popen = interrupted
program = "import signal; print(signal.pthread_sigmask(0, []), flush=True); signal.pause()"
sys.exit(foreground.main([sys.executable, "-c", program]))
"""


def test_a_signal_that_comes_before_the_launcher_has_started_reaches_it():
    """It waits until there is somebody to tell; the launcher itself has no signal blocked."""
    job = subprocess.run(
        [sys.executable, "-c", _EARLY], capture_output=True, text=True, timeout=60, check=False
    )
    # By SIGUSR1, which the program does not handle, before or after it has printed.
    assert job.returncode == 128 + signal.SIGUSR1, job.stderr
    assert job.stdout in ("", "set()\n") and not job.stderr


_BANNER = (
    "-" * 74
    + "\nprterun noticed that process rank 1 with PID 7 on node a exited on\nsignal 9.\n"
    + "-" * 74
)


@pytest.mark.parametrize("stream", [1, 2], ids=["standard output", "standard error"])
@pytest.mark.parametrize("is_explained", [True, False])
def test_a_banner_that_adds_nothing_is_left_out(stream, is_explained):
    """A rank has said why the job ends; if none has, the launcher explains it. Everything else stays in its stream."""
    report = "lepton_mpi: something" if is_explained else "something else"
    program = f"echo figures; echo '{report}' >&2; echo '{_BANNER}' >&{stream}; exit 137"
    words = [sys.executable, "-I", "-S", foreground.__file__, "sh", "-c", program]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60)
    said = ["figures\n", f"{report}\n"]
    if not is_explained:
        said[stream - 1] += f"{_BANNER}\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (137, *said)


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full"])
def test_streams_that_take_nothing(redirection):
    """What is written there is dropped, and nothing else is."""
    program = "echo out; echo err >&2; exit 9"
    words = [sys.executable, "-I", "-S", foreground.__file__, "sh", "-c", program]
    command = f"exec {shlex.join(words)} {redirection}"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    expected = (
        "" if "2>&-" in redirection else "err\n",
        "" if ">&-" in redirection.split("2")[0] or "full" in redirection else "out\n",
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (9, *expected)


def test_what_outlives_the_launcher_keeps_nobody_waiting():
    """It may hold the launcher's output open."""
    program = "sleep 30 & echo out; exit 3"
    words = [sys.executable, "-I", "-S", foreground.__file__, "sh", "-c", program]
    began = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as job:
        assert job.wait(20) == 3
        assert time.monotonic() - began < 15
        assert job.stdout.readline() == "out\n"


def test_a_reader_that_leaves_ends_the_launcher():
    """As it does where nothing stands between them."""
    program = "while :; do echo line; sleep 0.01; done"
    words = [sys.executable, "-I", "-S", foreground.__file__, "sh", "-c", program]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout.readline() == "line\n"
        job.stdout.close()
        assert job.wait(20) == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("report", "code", "expected"),
    [
        (
            "lepton_mpi: rank 1 of 3 (process 7) died: compute in step 2 of sync for 0.0 s, SIGKILL",
            9,
            5,
        ),
        ("lepton_mpi: ranks 1, 2 of 3 made no progress for 3 s (--timeout)", 137, 5),
        ("lepton_mpi: rank 1 of 3 (process 7) died: compute in step 2, exit code 0", 0, 5),
        ("lepton_mpi: rank 1 of 3: rows.h5: /train/x: row 5: the file has become shorter", 3, 3),
        ("rank 1 died", 9, 9),
    ],
)
def test_a_death_has_one_exit_code_whatever_the_launcher_says(report, code, expected):
    program = f"echo '{report}' >&2; exit {code}"
    words = [sys.executable, "-I", "-S", foreground.__file__, "sh", "-c", program]
    assert subprocess.run(words, timeout=60, stderr=subprocess.DEVNULL).returncode == expected
