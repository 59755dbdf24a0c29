"""What a link between two emulated hosts carries, both directions at once: the limit of benchmarks/hosts.py.

iperf3 measures it where it is installed, otherwise the small stream below: two processes, one in each host,
one TCP connection for each direction. Counted are the bytes of the user at the receiver, headers excluded.
"""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from benchmarks.emulated_hosts import EmulatedHosts
from benchmarks.host_runs import HostsUnavailableError, kill

_PORT = 5201
# TCP finds the rate of the link in this time, and it does not count.
_WARM_UP_SECONDS = 1.0
_BLOCK_BYTES = 128 << 10
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Wire:
    """Rate of each direction in Gbit/s (1e9 bits), and what measured it."""

    forth_gbit_s: float
    back_gbit_s: float
    tool: str

    @property
    def gbit_s(self) -> float:
        """The better direction, so that nothing is measured against too low a limit."""
        return max(self.forth_gbit_s, self.back_gbit_s)


def measure_wire(hosts: EmulatedHosts, seconds: float = 2.0) -> Wire:
    """Rate between the first two hosts, measured for ``seconds`` after a second of warm-up."""
    return with_iperf3(hosts, seconds) if shutil.which("iperf3") else with_stream(hosts, seconds)


def with_iperf3(hosts: EmulatedHosts, seconds: float) -> Wire:
    """By iperf3, one stream in each direction."""
    command = ["iperf3", "--client", hosts.addresses[1], "--bidir", "--json"]
    command += ["--time", f"{max(1, round(seconds))}", "--omit", f"{_WARM_UP_SECONDS:.0f}"]
    server = hosts.start(
        hosts.command_in(1, ["iperf3", "--server", "--one-off"]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _CONNECT_SECONDS
        # The server does not say when it listens, so the first tries may come too early.
        while (rates := _iperf3_rates(hosts, command, 10 * seconds + _CONNECT_SECONDS)) is None:
            if time.monotonic() > deadline:
                raise HostsUnavailableError("iperf3 could not measure the rate between two hosts")
            time.sleep(0.1)
    finally:
        kill(server)
    return Wire(*rates, "iperf3")


def _iperf3_rates(
    hosts: EmulatedHosts, command: list[str], limit_seconds: float
) -> list[float] | None:
    """Gbit/s there and back; None if iperf3 reports an error, which it may do with exit code 0."""
    try:
        end = json.loads(hosts.run_in(0, command, limit_seconds))["end"]
        return [
            end[name]["bits_per_second"] * 1e-9
            for name in ("sum_received", "sum_received_bidir_reverse")
        ]
    except (subprocess.CalledProcessError, KeyError):
        return None


def with_stream(hosts: EmulatedHosts, seconds: float) -> Wire:
    """By this module's own stream."""
    program = [sys.executable, "-m", "benchmarks.wire"]
    server = hosts.start(
        hosts.command_in(1, [*program, "listen", str(seconds)]), stdout=subprocess.PIPE, text=True
    )
    try:
        limit = 10 * seconds + _CONNECT_SECONDS
        back = hosts.run_in(0, [*program, hosts.addresses[1], str(seconds)], limit)
        forth, _ = server.communicate(timeout=limit)
    finally:
        kill(server)
    return Wire(float(forth) * 1e-9, float(back) * 1e-9, "TCP stream of benchmarks/wire.py")


def sent_bytes(table: str) -> int:
    """Bytes sent by the host's interface, from the text of /proc/net/dev, which has those of the reader's network.

    >>> sent_bytes("    lo: 7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\\n  eth0: 52 1 0 0 0 0 0 0 93 2 0 0 0 0 0 0")
    93
    """
    (line,) = [line for line in table.splitlines() if line.strip().startswith("eth0:")]
    return int(line.partition(":")[2].split()[8])


def main() -> None:
    """One end of the stream: ``listen SECONDS`` or ``ADDRESS SECONDS``; prints the bits per second received."""
    address, seconds = sys.argv[1], float(sys.argv[2])
    if address == "listen":
        with socket.create_server(("", _PORT)) as server:
            incoming, outgoing = (server.accept()[0] for _ in range(2))
    else:
        outgoing, incoming = _connect(address), _connect(address)
    threading.Thread(target=_send, args=(outgoing,), daemon=True).start()
    print(_receive(incoming, seconds))


def _connect(address: str) -> socket.socket:
    deadline = time.monotonic() + _CONNECT_SECONDS
    while True:
        try:
            return socket.create_connection((address, _PORT), _CONNECT_SECONDS)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _send(connection: socket.socket) -> None:
    block = bytes(_BLOCK_BYTES)
    try:
        while True:
            connection.sendall(block)
    except OSError:
        return  # the other end has finished


def _receive(connection: socket.socket, seconds: float) -> float:
    """Bits per second between the end of the warm-up and ``seconds`` later; keeps receiving a little longer."""
    block, received = memoryview(bytearray(_BLOCK_BYTES)), 0
    began = time.monotonic() + _WARM_UP_SECONDS
    first = last = 0
    first_at = last_at = 0.0
    # The other end began a little later or earlier: let it count to its own end on a loaded link.
    while (now := time.monotonic()) < began + seconds + 0.5:
        count = connection.recv_into(block)
        if not count:
            break
        received += count
        if now < began:
            first, first_at = received, now
        elif now < began + seconds:
            last, last_at = received, now
    return 8 * (last - first) / (last_at - first_at)


if __name__ == "__main__":
    main()
