"""Several hosts on one Linux machine: what runs between real hosts can be run and measured on one.

    network namespace per host      eth0, 10.77.0.1 … .4, joined by a bridge in a namespace of its own
    token bucket on every link      in both directions, so that a host sends and receives at the rate
    UTS, PID and mount namespace    per process started in a host: a host name of its own, no sight of the
                                    other hosts' processes, /dev/shm, MPI's session files, /etc/hosts of its own

    host a [eth0]--rate--[port a]
                                  bridge        A name is ``lepton-ID-a``, the ID is new for every run, and
    host b [eth0]--rate--[port b]               nothing in the machine's own network or /etc is touched.

Open MPI starts its daemon on another host by ``ssh HOST COMMAND``; here it is told to call a script
instead, which runs the command in that host's namespaces. MPI finds different host names, no common
memory, and a wire. What is not real: all hosts share the machine's cores, so only a wire that is slower
than what the cores can feed is emulated faithfully, and packets wait in queues of this kernel alone.

    python -m benchmarks.emulated_hosts --hosts 2 --ranks-per-host 1 2 --rate 1gbit -- python -m lepton_mpi.train
"""

import argparse
import fcntl
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from benchmarks.host_runs import (
    PREFIX,
    RUNS,
    HostsUnavailableError,
    check_machine,
    kill,
    open_mpi_launcher,
    processes_in,
    registry,
    remove_left_overs,
    remove_run,
    run_tool,
    signals_as_exceptions,
)

HOSTS_MAX = 4

# The kernel hands packets of up to 64 KiB to the token bucket, as it does to network cards that cut them
# themselves. A bucket that holds less than such a packet makes the kernel cut, and the timer of the bucket
# run, for every 1.5 KiB: 30 us of a core each on a 2-core virtual machine, which ends at 0.4 Gbit/s.
# Both directions of a 1gbit link at once, by iperf3: bucket of 64 KiB 0.6 Gbit/s with 70 % of the cores busy,
# 128 KiB 0.953 with 8 %, 256 KiB 0.949. The price: a link that was idle passes 128 KiB at once.
_BURST_BYTES = 128 << 10
_LATENCY = "20ms"

_ENTER = """#!/bin/sh
# enter HOST COMMAND...: run a command in a host. What it started ends with it, and it ends with its parent. It is not process 1
# of its namespace, which no process there can end by SIGKILL.
host=$1
shift
exec setpriv --pdeathsig KILL ip netns exec "$host" unshare --uts --pid --fork --kill-child --mount-proc sh -c '
    echo "$1" >/proc/sys/kernel/hostname &&
    mount --bind {folder}/hosts /etc/hosts &&
    mount -t tmpfs tmpfs /dev/shm &&
    mount -t tmpfs tmpfs {folder}/session || exit 4
    shift
    "$@"
    exit $?
' sh "$host" "$@"
"""

_AGENT = """#!/bin/sh
# agent [ssh options] HOST COMMAND...: what Open MPI calls in place of ssh. That ends well once the daemon has left it: how this one ends is no word
# of the host, which may have lost its network.
while [ "${{1#-}}" != "$1" ]; do shift; done
host=$1
shift
{folder}/enter "$host" sh -c "$*"
exit 0
"""


def why_not() -> str | None:
    """The reason why emulated hosts cannot be made here, or None. Makes and removes a pair to find out."""
    try:
        with EmulatedHosts([1, 1], "1gbit") as hosts:
            hosts.run_in(0, ["true"])
    except HostsUnavailableError as error:
        return str(error)
    return None


class EmulatedHosts:
    """Context manager: 2 to 4 emulated hosts; ``mpirun`` gives the command that starts a job over them.

    Leaving the block kills what still runs in the hosts and removes them, also after an exception, Ctrl-C,
    SIGTERM or SIGHUP. What a run that was killed by SIGKILL left behind is removed by the next one.

    Parameters
    ----------
    ranks_per_host : sequence of int
        One number per host.
    rate : str or None
        Of every link, in each direction, as tc writes it: ``1gbit``, ``100mbit``; None for no limit.
    burst_bytes : int
        What a link that was idle lets pass at once.
    offload : bool
        Whether the kernel hands over packets of up to 64 KiB, as to network cards that cut them themselves.
    congestion_control : str
        TCP's, in the hosts; the machine's own where the kernel lacks it.
    delay_ms : float
        Milliseconds from one host to another, beside what the rate takes; a program forwards the packets then (``delay_line.py``).

    Attributes
    ----------
    names, addresses : list of str
        Of the hosts, in order.
    """

    def __init__(
        self,
        ranks_per_host: Sequence[int],
        rate: str | None = "1gbit",
        burst_bytes: int = _BURST_BYTES,
        offload: bool = True,
        congestion_control: str = "cubic",
        delay_ms: float = 0.0,
    ) -> None:
        if not 2 <= len(ranks_per_host) <= HOSTS_MAX or min(ranks_per_host) < 1:
            raise ValueError(
                f"expected 2 to {HOSTS_MAX} hosts with at least 1 rank each, got {list(ranks_per_host)}"
            )
        self.ranks_per_host = list(ranks_per_host)
        self.rate, self.burst_bytes, self.offload = rate, burst_bytes, offload
        self.congestion_control, self.delay_ms = congestion_control, delay_ms
        self._delay_line: subprocess.Popen | None = None
        self.rate_gbit_s = None if rate is None else gbit_per_second(rate)

    # -- what a user calls -----------------------------------------------------------------------

    def mpirun(self, command: Sequence[str], options: Sequence[str] = ()) -> list[str]:
        """Command line that starts ``command`` on all ranks; ``options`` are further ones of mpirun.

        Run it with ``environment()``. The options given here are those that emulation needs: ranks of
        different hosts must not be pinned to the same core, and must yield it when they wait. Everything
        else is as Open MPI does it between real hosts.
        """
        hosts = ",".join(
            f"{name}:{ranks}" for name, ranks in zip(self.names, self.ranks_per_host, strict=True)
        )
        launch = [open_mpi_launcher(), "--prtemca", "plm_ssh_agent", str(self._folder / "agent")]
        launch += ["--prtemca", "prte_tmpdir_base", str(self._folder / "session")]
        launch += ["--host", hosts, "-n", str(sum(self.ranks_per_host)), "--bind-to", "none"]
        return self.command_in(
            0, [*launch, "--mca", "mpi_yield_when_idle", "1", *options, *command]
        )

    def environment(self) -> dict[str, str]:
        """Environment for ``mpirun``: the caller's, and the permission to run as root."""
        allow = ("ALLOW_RUN_AS_ROOT", "ALLOW_RUN_AS_ROOT_CONFIRM")
        return os.environ | {
            f"{library}_{name}": "1" for library in ("OMPI", "PRTE") for name in allow
        }

    def command_in(self, host: int, command: Sequence[str]) -> list[str]:
        """Command line that runs ``command`` in one host."""
        return [str(self._folder / "enter"), self.names[host], *command]

    def run_in(
        self, host: int, command: Sequence[str], timeout_seconds: float | None = None
    ) -> str:
        """Run ``command`` in one host and return what it printed; CalledProcessError if it failed."""
        process = self.start(self.command_in(host, command), stdout=subprocess.PIPE, text=True)
        try:
            output, _ = process.communicate(timeout=timeout_seconds)
        finally:
            kill(process)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, list(command), output)
        return output

    def start(self, command: Sequence[str], **options) -> subprocess.Popen:
        """Popen of a command line made by ``mpirun`` or ``command_in``; end it early with ``kill``.

        It is killed when the thread that called this ends.
        """
        return subprocess.Popen(
            command, env=self.environment(), stdin=subprocess.DEVNULL, **options
        )

    def processes(self) -> list[int]:
        """Numbers, in this machine, of all that runs in the hosts."""
        return [pid for name in self.names for pid in processes_in(name)]

    def cut_network(self, host: int) -> None:
        """Have a host send and receive nothing more."""
        run_tool("ip", "-n", self.names[host], "link", "set", "eth0", "down")

    def bytes_sent(self) -> list[int]:
        """Bytes that each host has sent over its link so far, headers included."""
        links = [
            run_tool("ip", "-n", name, "-s", "-j", "link", "show", "dev", "eth0")
            for name in self.names
        ]
        return [json.loads(link)[0]["stats64"]["tx"]["bytes"] for link in links]

    # -- making and removing ---------------------------------------------------------------------

    def __enter__(self) -> "EmulatedHosts":
        check_machine()
        with ExitStack() as undo:
            undo.enter_context(signals_as_exceptions())
            with registry():
                remove_left_overs()
                self._name_run()
                undo.callback(self._remove)
            try:
                self._make()
            except subprocess.CalledProcessError as error:
                raise HostsUnavailableError(
                    f"cannot make emulated hosts: {shlex.join(error.cmd)}: {error.stderr.strip()}"
                ) from None
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exception) -> None:
        self._undo.close()

    def _name_run(self) -> None:
        run = secrets.token_hex(3)
        self._folder = RUNS / run
        self._folder.mkdir()
        self._lock = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.names = [f"{PREFIX}{run}-{letter}" for letter in "abcd"[: len(self.ranks_per_host)]]
        self.addresses = [f"10.77.0.{1 + host}" for host in range(len(self.names))]
        self._switch = f"{PREFIX}{run}-switch"

    def _make(self) -> None:
        lines = [
            f"{address} {name}" for address, name in zip(self.addresses, self.names, strict=True)
        ]
        (self._folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        (self._folder / "session").mkdir()
        for name, script in (("enter", _ENTER), ("agent", _AGENT)):
            (self._folder / name).write_text(script.format(folder=self._folder))
            (self._folder / name).chmod(0o755)
        run_tool("ip", "netns", "add", self._switch)
        run_tool("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge")
        run_tool("ip", "-n", self._switch, "link", "set", "bridge", "up")
        for name, address in zip(self.names, self.addresses, strict=True):
            self._make_host(name, address, port="port-" + name[-1])
        if self.delay_ms:
            self._start_delay_line()
        self.run_in(0, ["true"])

    def _make_host(self, name: str, address: str, port: str) -> None:
        run_tool("ip", "netns", "add", name)
        pair = ("eth0", "netns", name, "type", "veth", "peer", "name", port, "netns", self._switch)
        run_tool("ip", "link", "add", *pair)
        for namespace, device in ((name, "eth0"), (self._switch, port)):
            if not self.offload:
                run_tool("ip", "-n", namespace, "link", "set", device, "gso_max_segs", "1")
            if self.rate is not None:
                bucket = ("tbf", "rate", self.rate, "burst", str(self.burst_bytes))
                limit = (*bucket, "latency", _LATENCY)
                run_tool("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", *limit)
        master = () if self.delay_ms else ("master", "bridge")
        run_tool("ip", "-n", self._switch, "link", "set", port, *master, "up")
        run_tool("ip", "-n", name, "address", "add", address + "/24", "dev", "eth0")
        run_tool("ip", "-n", name, "link", "set", "eth0", "up")
        run_tool("ip", "-n", name, "link", "set", "lo", "up")
        setting = "/proc/sys/net/ipv4/tcp_congestion_control"
        with suppress(subprocess.CalledProcessError):
            command = f"echo {self.congestion_control} >{setting}"
            run_tool("ip", "netns", "exec", name, "sh", "-c", command)

    def _start_delay_line(self) -> None:
        """In place of the bridge; it ends with the thread that called this, or with its ports."""
        program = [sys.executable, str(Path(__file__).with_name("delay_line.py"))]
        ports = ["port-" + name[-1] for name in self.names]
        command = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self._switch, *program]
        line = self.start([*command, str(self.delay_ms), *ports], stdout=subprocess.PIPE, text=True)
        assert line.stdout
        with line.stdout:
            said = line.stdout.readline()
        if said != "ready\n":
            raise HostsUnavailableError("cannot make emulated hosts: the delay line has ended")
        self._delay_line = line

    def _remove(self) -> None:
        with registry():
            remove_run(self._folder.name)
            os.close(self._lock)
        if self._delay_line:
            kill(self._delay_line)
            self._delay_line.wait()


def gbit_per_second(rate: str) -> float:
    """A rate as tc writes it, in Gbit/s.

    >>> gbit_per_second("250mbit")
    0.25
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)bit", rate.lower())
    if not match:
        raise ValueError(
            f"rate: expected a number and kbit, mbit or gbit, as in 1gbit, got {rate!r}"
        )
    return float(match[1]) * {"": 1e-9, "k": 1e-6, "m": 1e-3, "g": 1.0}[match[2]]


def add_host_options(parser: argparse.ArgumentParser) -> None:
    """Options that describe the emulated hosts."""
    parser.add_argument(
        "--hosts", type=int, default=2, metavar="H", help=f"2 to {HOSTS_MAX} (default 2)"
    )
    parser.add_argument(
        "--ranks-per-host",
        type=int,
        nargs="+",
        default=[2],
        metavar="N",
        help="one number, or one for each host",
    )
    parser.add_argument(
        "--rate",
        default="1gbit",
        help="of each link and direction, as in 1gbit or 250mbit; or none",
    )
    parser.add_argument(
        "--delay",
        dest="delay_ms",
        type=float,
        default=0.0,
        metavar="MILLISECONDS",
        help="from one host to another (default 0)",
    )


def hosts_from(options: argparse.Namespace) -> EmulatedHosts:
    """The hosts that ``add_host_options`` described; ValueError if they make no sense."""
    ranks = options.ranks_per_host
    if len(ranks) not in (1, options.hosts):
        raise ValueError(
            f"--ranks-per-host: expected 1 or {options.hosts} numbers, got {len(ranks)}"
        )
    ranks = ranks * options.hosts if len(ranks) == 1 else ranks
    rate = None if options.rate == "none" else options.rate
    return EmulatedHosts(ranks, rate, delay_ms=options.delay_ms)


def main(arguments: list[str] | None = None) -> int:
    """Run one command over emulated hosts; its exit code, 4 if the hosts cannot be made."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.emulated_hosts",
        description="Run a command on all ranks of several emulated hosts.",
    )
    add_host_options(parser)
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="after --, the command of each rank"
    )
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        hosts = hosts_from(options)
        if not command:
            raise ValueError("no command given: put it after --")
    except ValueError as error:
        parser.error(str(error))
    try:
        with hosts:
            return hosts.start(hosts.mpirun(command)).wait()
    except HostsUnavailableError as error:
        print(f"benchmarks.emulated_hosts: {error}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
