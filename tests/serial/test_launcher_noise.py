"""Banners of launchers are left out behind a report of ours, and nothing else is."""

import pytest

from lepton_mpi import wording
from lepton_mpi.starting.launcher_noise import Filter

_DASHES, _EQUALS = b"-" * 74 + b"\n", b"=" * 83 + b"\n"
_REPORT = (
    b"lepton_mpi: rank 1 of 3 (process 7) died: compute in step 2 of sync for 0.0 s, SIGKILL\n"
)
_OPEN_MPI = (
    _DASHES
    + b"prterun noticed that process rank 1 with PID 7 on node vm exited on\nsignal 9 (Killed).\n"
    + _DASHES
)
_ABORT = (
    _DASHES
    + b"MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD\n  Errorcode: 5\n\nNOTE: more\n"
    + _DASHES
    + b" \0\n"
)
_MPICH = (
    b"\n"
    + _EQUALS
    + b"=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n=   EXIT CODE: 9\n"
    + _EQUALS
    + b"YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)\n"
)
_OF_RANKS = (
    b"[node1:00024] *** An error occurred in Socket closed\n"
    b"[node1:00024] ***    and MPI will try to terminate your MPI job as well)\n"
    b" [node1:00025] Delaying for 3 seconds before aborting\n"
)
_OTHER = _DASHES + b"The help of something else\n" + _DASHES


def _shown(content: bytes, size: int, is_explained: bool | None = None) -> bytes:
    """What a filter shows of content that comes in parts of ``size`` bytes."""
    made = Filter()
    out = b"".join(made.shown(content[at : at + size]) for at in range(0, len(content), size))
    return out + made.rest(made.has_report if is_explained is None else is_explained)


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
@pytest.mark.parametrize(
    "banner",
    [_OPEN_MPI, _ABORT, _MPICH.lstrip(), _OF_RANKS],
    ids=["Open MPI", "abort", "MPICH", "ranks"],
)
@pytest.mark.parametrize("of", [b"", b" explain-model"], ids=["job", "command"])
def test_a_report_makes_banners_superfluous(banner, size, of):
    """Before it and behind it: a launcher may be faster than a rank; also that of a command."""
    report = _REPORT.replace(b"lepton_mpi:", b"lepton_mpi" + of + b":")
    assert _shown(report + banner, size) == report
    assert _shown(b"\0" + report + b"\0" + banner, size) == report
    assert _shown(banner + report, size) == report
    assert _shown(banner, size, is_explained=True) == b""


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
@pytest.mark.parametrize("banner", [_OPEN_MPI, _ABORT, _MPICH])
def test_without_a_report_all_of_it_is_shown(banner, size):
    """A job that dies without a word of ours is explained by its launcher."""
    content = b"a line\n" + banner
    assert _shown(content, size).split() == content.replace(b"\0", b"").split()


@pytest.mark.parametrize("size", [1, 5, 1 << 16])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no end",
        b"\rprogress 1\rprogress 2\n",
        b"[1, 2]\n[a:1] b\n",
        _OTHER,
        b"--- a title ---\n\n",
        _DASHES + b"never closed\n",
        b"lepton_mpi",
    ],
)
def test_what_is_no_banner_passes(content, size):
    """Also behind a report, and if it looks like the begin of one."""
    assert _shown(content, size) == content
    assert _shown(_REPORT + content, size) == _REPORT + content


def test_parts_of_lines_are_shown_at_once():
    """A progress line has no end for long."""
    made = Filter()
    assert made.shown(b"epoch 1 ") == b"epoch 1 "
    assert made.shown(b"step 2") == b"step 2"
    assert made.shown(b"\nlepton_mpi: x\n-----") == b"\nlepton_mpi: x\n"
    assert made.has_report
    assert made.shown(b" a list\n") == b"----- a list\n"


@pytest.mark.parametrize("rule", [_DASHES, _EQUALS, b"=" * 60 + b"\n", b"=" * 90 + b"\n"])
def test_a_rule_of_the_users_own_holds_nothing_back(rule):
    """The second line decides, its first letters even; a report behind it is one."""
    made = Filter()
    assert made.shown(b"a\n" + rule) == b"a\n"
    assert made.shown(b"epoch") == rule + b"epoch"
    assert made.shown(b" 1\n" + rule + rule) == b" 1\n" + rule
    assert made.shown(_REPORT) == rule + _REPORT
    assert made.has_report and made.has_death
    assert made.shown(rule) + made.rest(is_explained=True) == rule


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_a_report_between_the_lines_of_a_banner(size):
    """Ranks and the launcher write to the same stream."""
    begin, end = _OPEN_MPI.split(b"signal 9")
    content, made = begin + _REPORT + b"signal 9" + end, Filter()
    parts = [made.shown(content[at : at + size]) for at in range(0, len(content), size)]
    assert made.has_report and made.has_death
    assert b"".join(parts).startswith(_REPORT)
    assert b"prterun noticed" not in b"".join(parts) + made.rest(is_explained=True)


def test_a_banner_without_an_end_is_shown():
    """It may not be one; and what comes behind it is not held back."""
    made, lines = Filter(), [b"MPI_ABORT was invoked on rank 1\n", *[b"text\n"] * 80]
    content = _DASHES + b"".join(lines)
    shown = made.shown(content)
    assert content.startswith(shown) and shown.count(b"text") >= 55
    assert shown + made.rest(is_explained=True) == content


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_a_report_of_one_of_several_ranks_is_of_a_death(size):
    """Where nothing tells which one was the first."""
    made, content = Filter(), b"lepton_mpi: one of ranks 0, 2 of 3 died: all of them were gone\n"
    for at in range(0, len(content), size):
        made.shown(content[at : at + size])
    assert made.has_death


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_a_warning_explains_no_end(size):
    """The job goes on behind it, and may die of something else."""
    warning = f"{wording.WARNING}x.h5: Stale file handle; tried again for 60 s\n".encode()
    assert _shown(warning + _OPEN_MPI, size) == warning + _OPEN_MPI
    assert _shown(warning + _OPEN_MPI + _REPORT, size) == warning + _REPORT
