"""A process that says which rank of a host has died where the launcher ends all others at once, so that none of them can.

Hydra, the launcher of MPICH and Intel MPI, sends SIGKILL to the ranks that are left some milliseconds after one has died. So the first rank
of a host starts this file as a program, which belongs to no rank: it sleeps on the process descriptors of all of them, and reports as
they would (``World.died``), unless one of them has: one that was killed while it reported has not. It ends with them. Needs the standard
library alone.

Its arguments are a ``Host`` as JSON and a descriptor of the file of ``heartbeats.py``.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import suppress

_HYDRA = ("hydra_pmi_proxy", "hydra_bstrap_pr", "mpiexec.hydra", "mpiexec")


def start(host_json: str, heartbeat_file: int) -> subprocess.Popen[bytes] | None:
    """Start it on the first rank of a host; None with launchers that give ranks time to report."""
    from lepton_mpi.world.launchers import name_of

    if name_of(os.getppid()) not in _HYDRA or not hasattr(os, "pidfd_open"):
        return None
    words = [sys.executable, "-I", "-S", __file__, host_json, str(heartbeat_file)]
    with suppress(OSError):  # a machine without room for one more process
        return subprocess.Popen(
            words,
            start_new_session=True,
            pass_fds=[heartbeat_file],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    return None


def main(host_json: str, file: int) -> None:
    """Wait until a rank has died, or all have ended."""
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    import deaths
    import heartbeats

    host = heartbeats.Host(**json.loads(host_json)[0])
    file = _own(file)
    memory_kills = deaths.MemoryKills()
    stacks = [_opened(p, f) for p, f in zip(host.process_ids, host.stack_files, strict=True)]
    poll, ranks = select.poll(), dict[int, int]()
    for local_rank, process_id in enumerate(host.process_ids):
        with suppress(OSError):
            descriptor = os.pidfd_open(process_id)
            ranks[descriptor] = local_rank
            poll.register(descriptor, select.POLLIN)
    while ranks:
        ended = []
        ready = [descriptor for descriptor, _ in poll.poll()]
        content = os.pread(file, heartbeats.file_bytes(len(host.ranks)), 0)
        beats = heartbeats.heartbeats_of(content)
        for descriptor in ready:
            local_rank = ranks.pop(descriptor)
            poll.unregister(descriptor)
            if beats[local_rank].phase == "over":
                continue
            status = deaths.wait_status(host.process_ids[local_rank], descriptor)
            stack = stacks[local_rank]
            text = os.pread(stack, 1 << 16, 0).decode(errors="replace") if stack >= 0 else ""
            ended.append(deaths.Ended(local_rank, status, text))
        if ended:
            text = "\n".join(deaths.report(host, beats, ended, memory_kills))
            if heartbeats.is_first_report(file):
                with suppress(OSError):
                    print(text, file=sys.stderr, flush=True)
            return


def _own(file: int) -> int:
    """The same file opened anew: what is inherited shares the lock of the first rank, who could not be waited for, and would never lose it."""
    with suppress(OSError):
        inherited, file = file, os.open(f"/proc/self/fd/{file}", os.O_RDWR)
        os.close(inherited)
    return file


def _opened(process_id: int, file: int) -> int:
    try:
        return os.open(f"/proc/{process_id}/fd/{file}", os.O_RDONLY)
    except OSError:
        return -1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
