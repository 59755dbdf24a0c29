"""What a launcher prints when a rank has failed, and the rank has said why itself: banners, which are left out then.

    Open MPI           a line of 74 dashes, some lines, the same line again
    MPICH, Intel MPI   a line of equals signs, some lines that begin with =, the same line again, on standard output; lines of MPI_Abort

The line behind the first line of dashes or equals signs says whether it is a banner. Everything else passes as it comes, also parts of lines,
but zeros: Open MPI prints some behind its banners. Banners are kept to the end of the job, and shown if no report of ours that ends a job
(``lepton_mpi: …`` or, of a command, ``lepton_mpi train: …``, but ``lepton_mpi: warning: …``) has come by then: a job that dies without one is explained by its launcher.
Needs the standard library alone.
"""

from __future__ import annotations

import re

_OURS = re.compile(rb"lepton_mpi( [a-z-]+)?: ")
# A job goes on behind these (``wording.WARNING``).
_WARNING = b"lepton_mpi: warning: "
# A rank has died, or hangs: reports that end a job with exit code 5. Of launchers some have that code then, others 128 + the signal's
# number, the number alone, or the code of the rank that died, 0 even.
_DEATH = re.compile(rb"lepton_mpi: (one of )?ranks? .*( died: | made no progress for )")
_BEGIN_BYTES = 400
_RULE = re.compile(rb"-{74}|={60,90}")
_RULE_BEGINS = (b"-" * 74, b"=" * 60)
# How banners begin that say no more than that a rank has ended.
_BANNERS = (
    b"prterun has exited due to process rank",
    b"prterun noticed that process rank",
    b"prterun detected that one or more processes exited",
    b"MPI_ABORT was invoked on rank",
    b"mpirun has exited due to process rank",
    b"mpirun noticed that process rank",
    b"mpirun detected that one or more processes exited",
    b"Primary job  terminated normally, but",
    b"=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES",
)
# Lines alone: of MPI_Abort, and what Hydra says around its banner.
_LINE_BEGINS = (
    b"Abort(",
    b"application called MPI_Abort(",
    b"YOUR APPLICATION TERMINATED WITH THE EXIT STRING",
    b"This typically refers to a problem with your application",
    b"Please see the FAQ page for debugging suggestions",
    b"[proxy",
    b"[mpiexec@",
    b"[unset]: aborting job",
    b"Abort is in progress...hit ctrl-c again",
)
# Of Open MPI's ranks whose connection to a dead one was closed: [node1:00024] *** An error occurred in Socket closed
_OF_RANKS = re.compile(rb"\[[\w.-]+:\d+\] (\*\*\* |Delaying for )")
_BLOCK_LINES_MAX = 60


class Filter:
    """What of one stream of a launcher is shown, and when."""

    def __init__(self) -> None:
        # A line of ours that ends a job has come, and one of _DEATH.
        self.has_report = self.has_death = False
        self._line = b""  # the present one, not shown yet
        self._is_shown, self._begin = False, b""  # a part of it has been; how it begins
        # A line of dashes or equals signs; from the second line on a banner that has not ended yet.
        self._block: list[bytes] = []
        self._banners: list[bytes] = []
        self._is_after_banner = False

    def shown(self, content: bytes) -> bytes:
        """What is to be shown now that ``content`` has come."""
        *whole, rest = (self._line + content.replace(b"\0", b"")).split(b"\n")
        out = b"".join(self._of_line(line + b"\n") for line in whole)
        self._line = rest
        if rest and len(self._block) == 1 and not _may_begin(rest, _BANNERS):
            out += self._plain(*self._taken_block())
        if rest and (self._is_shown or not (self._block or _may_be_noise(rest))):
            self._note(rest)
            self._line, self._is_shown = b"", True
            out += rest
        return out

    def rest(self, is_explained: bool) -> bytes:
        """What was kept until the end; without banners where a report of ours explains them."""
        if is_explained:
            self._banners = []
        last = b"" if self._is_after_banner and not self._line.strip() else self._line
        return b"".join((*self._banners, *self._block, last))

    def _of_line(self, line: bytes) -> bytes:
        text = line.strip()
        if self._is_shown:
            self._note(line)
            self._is_shown, self._begin = False, b""
            return line
        if len(self._block) == 1 and not text.startswith(_BANNERS):
            return self._plain(*self._taken_block()) + self._of_line(line)
        if self._block and _OURS.match(text):  # of a rank, between the lines of the launcher
            return self._keep(*self._taken_block()) + self._of_line(line)
        if self._block:
            self._block.append(line)
            if _RULE.fullmatch(text):
                return self._keep(*self._taken_block())
            is_banner = len(self._block) < _BLOCK_LINES_MAX
            return b"" if is_banner else self._plain(*self._taken_block())
        if _RULE.fullmatch(text):
            self._block = [line]
            return b""
        is_noise = text.startswith(_LINE_BEGINS) or _OF_RANKS.match(text) is not None
        if is_noise or (not text and self._is_after_banner):
            return self._keep(line)
        return self._plain(line)

    def _taken_block(self) -> list[bytes]:
        block, self._block = self._block, []
        return block

    def _plain(self, *lines: bytes) -> bytes:
        """Whole lines that are shown."""
        for line in lines:
            self._begin = b""
            self._note(line)
        self._begin = b""
        return b"".join(lines)

    def _keep(self, *lines: bytes) -> bytes:
        self._banners += lines
        self._is_after_banner = True
        return b""

    def _note(self, part: bytes) -> None:
        """A part of the present line is shown."""
        self._begin = (self._begin + part)[:_BEGIN_BYTES]
        is_report = _OURS.match(self._begin) and not _may_begin(self._begin, (_WARNING,))
        self.has_report = self.has_report or bool(is_report)
        self.has_death = self.has_death or _DEATH.match(self._begin) is not None
        self._is_after_banner = False


def _may_be_noise(part: bytes) -> bool:
    """Whether a line that begins so may be noise, so that nothing of it is shown before it is whole."""
    return part.lstrip().startswith(b"[") or _may_begin(part, (*_RULE_BEGINS, *_LINE_BEGINS))


def _may_begin(part: bytes, known: tuple[bytes, ...]) -> bool:
    """Whether a line that begins so begins with one of ``known``, or may yet."""
    begin = part.lstrip()
    return any(begin.startswith(each) or each.startswith(begin) for each in known)
