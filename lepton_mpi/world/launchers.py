"""Ends a launcher that stays when its job has failed: the ranks have ended themselves, and nobody else would.

Open MPI's launcher can wait for ever, for its own daemons, after a rank has died or a host has gone: 2 of 60 jobs over two
hosts did, on a busy machine. So the first rank of a host that fails starts this file as a program, which outlives it. The
program waits until the launcher's process of that host has ended, or ends it: SIGTERM, SIGTERM again, by which Open MPI's
gives up waiting, SIGKILL.

The launcher waits for ever, too, for a host that is lost while the ranks end. So the leaders of hosts that can be lost leave their
connections (``host_links.py``) to this program, which ends the launcher if one of them fails, and ends itself with the launcher: then
the connections are closed, and all is well. Needs the standard library alone.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

if not __package__:  # started as a file, or imported by one
    sys.path.append(str(Path(__file__).resolve().parents[2]))
from lepton_mpi.processes import look_at

# As /proc/PID/comm has them, 15 characters. Slurm's own processes belong to another user, and end their steps reliably.
_LAUNCHERS = {
    *("prterun", "prted", "prte", "orterun", "orted", "mpirun", "mpiexec"),
    *("mpiexec.hydra", "hydra_pmi_proxy", "hydra_bstrap_pr"),
}
_ANCESTORS_MAX = 8
# Of Open MPI's: seconds after which it looks for a host, none for 0.
_LOOKS_AFTER = "oob_tcp_keepalive_time"

# Between one signal and the next.
_SIGNALS = (*[(signal.SIGTERM, 0.4)] * 4, (signal.SIGKILL, 0.0))


def launcher_of(process_id: int) -> int | None:
    """The launcher's process that a rank's process belongs to, of the same user; None if it has none."""
    for _ in range(_ANCESTORS_MAX):
        found = look_at(process_id)
        if found is None:
            return None
        process_id = found.parent
        try:
            name = name_of(process_id)
            owner = Path(f"/proc/{process_id}").stat().st_uid
        except OSError:
            return None
        if name in _LAUNCHERS and owner == os.getuid():
            return process_id
        if process_id <= 1:
            return None
    return None


def outwaits_lost_hosts(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> bool:
    """Whether Open MPI's launcher, started by ``words``, never looks for hosts that it hears nothing of: it would end the job with one.

    >>> outwaits_lost_hosts(["mpirun", "--prtemca", "oob_tcp_keepalive_time", "0"], {})
    True
    """
    found = [environment.get(f"PRTE_MCA_{_LOOKS_AFTER}", "")]
    found += [value for name, value in pairwise(words) if name == _LOOKS_AFTER]
    return found[-1].lstrip("-").isdigit() and int(found[-1]) <= 0


def name_of(process_id: int) -> str:
    """Of a process, as Linux has it; empty if it is gone."""
    try:
        return Path(f"/proc/{process_id}/comm").read_text().strip()
    except OSError:
        return ""


def end_launcher(
    process_id: int | None,
    patience_seconds: float,
    behind: Sequence[int] = (),
    if_lost: Sequence[int] = (),
) -> None:
    """See to it that this launcher has ended in about ``patience_seconds`` from now, or from the end of the processes ``behind``. Returns at once.

    With ``if_lost``, descriptors of connections to other hosts, only if one of these hosts is lost before the launcher ends.
    """
    if process_id is None or not hasattr(os, "pidfd_open"):
        return
    numbers = ",".join(map(str, behind)), ",".join(map(str, if_lost))
    with suppress(OSError):  # a machine without room for one more process
        subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", __file__, str(process_id), str(patience_seconds)),
                *numbers,
            ],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=if_lost,
        )


def main(
    process_id: int, patience_seconds: float, behind: Sequence[int], if_lost: Sequence[int]
) -> None:
    """Wait for a process, then end it; but not before the others, and perhaps only if a host is lost."""
    try:
        descriptor = os.pidfd_open(process_id)
    except OSError:
        return
    for other in behind:
        with suppress(OSError):
            select.select([os.pidfd_open(other)], [], [])
    if if_lost and not _is_host_lost(descriptor, [socket.socket(fileno=one) for one in if_lost]):
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    wait = patience_seconds
    for number, pause in _SIGNALS:
        if poll.poll(1000 * wait):
            return
        with suppress(OSError):
            signal.pidfd_send_signal(descriptor, number)
        wait = pause


def _is_host_lost(launcher: int, links: list[socket.socket]) -> bool:
    """Whether a connection fails before the launcher ends, or all of them are closed. What they say does not matter any more."""
    poll = select.poll()
    waited_for = {link.fileno(): link for link in links}
    for descriptor in (launcher, *waited_for):
        poll.register(descriptor, select.POLLIN)
    while waited_for:
        for descriptor, _ in poll.poll():
            if descriptor == launcher:
                return False
            try:
                is_open = bool(waited_for[descriptor].recv(4096))
            except BlockingIOError:
                continue
            except ConnectionError:  # the processes that had it were killed
                is_open = False
            except OSError:
                return True
            if not is_open:
                poll.unregister(descriptor)
                del waited_for[descriptor]
    return False


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), _numbers(sys.argv[3]), _numbers(sys.argv[4]))
