"""A switch through which packets take a while: what stands in for the bridge of emulated hosts whose links have a delay.

    python benchmarks/delay_line.py MILLISECONDS PORT PORT…       in the network namespace that has the ports; ends with them

What comes in at a port leaves so much later, and in the order in which it came, by the port behind which its receiver was heard, or by
all others as long as none was. That is what netem does, which not every kernel has. Packets are handed on as the kernel has them, up to 64 KiB in one
piece with what a network card would need to cut them, so that 100 Mbit/s are a few hundred packets a second. A packet
that the port's queue has no room for is dropped, as by any switch.
"""

import errno
import os
import selectors
import socket
import sys
import time
from collections import deque
from contextlib import suppress

# Of <linux/if_packet.h> and <linux/if_ether.h>.
_SOL_PACKET, _VNET_HEADER, _IGNORE_OUTGOING, _ALL_PROTOCOLS = 263, 15, 23, 3
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
# Before a packet, struct virtio_net_hdr: how a card would cut it, and what it would add up.
_VNET_BYTES, _ADDRESS_BYTES = 10, 6
_PACKET_BYTES, _BUFFER_BYTES = 128 << 10, 32 << 20
_BROADCAST_BIT = 1


def main(words: list[str]) -> None:
    """Forward until the ports are removed."""
    seconds, ports = float(words[0]) * 1e-3, [_opened(name) for name in words[1:]]
    # A wire does not wait for a core: packets that come in bursts overflow the port's queue, and TCP slows down for seconds.
    with suppress(OSError):
        os.sched_setscheduler(
            0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO))
        )
    ready = selectors.DefaultSelector()
    for number, port in enumerate(ports):
        ready.register(port, selectors.EVENT_READ, number)
    heard: dict[bytes, int] = {}
    late: deque[tuple[float, list[int], bytes]] = deque()
    print("ready", flush=True)
    while True:
        wait = max(0.0, late[0][0] - time.monotonic()) if late else None
        for key, _ in ready.select(wait):
            try:
                packet = ports[key.data].recv(_PACKET_BYTES)
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise
                return  # the hosts are being removed
            late.append(
                (time.monotonic() + seconds, _targets(packet, key.data, heard, len(ports)), packet)
            )
        while late and late[0][0] <= time.monotonic():
            _, targets, packet = late.popleft()
            for number in targets:
                _send(ports[number], packet)


def _targets(packet: bytes, source: int, heard: dict[bytes, int], count: int) -> list[int]:
    """By which ports a packet leaves; who has sent it is behind ``source`` from now on.

    >>> heard = {}
    >>> _targets(bytes(10) + b"bbbbbbdddddd", 0, heard, 3), heard
    ([1, 2], {b'dddddd': 0})
    >>> _targets(bytes(10) + b"ddddddbbbbbb", 2, heard, 3)
    [0]
    """
    start = _VNET_BYTES
    receiver = packet[start : start + _ADDRESS_BYTES]
    heard[packet[start + _ADDRESS_BYTES : start + 2 * _ADDRESS_BYTES]] = source
    if receiver in heard and not receiver[0] & _BROADCAST_BIT:
        return [] if heard[receiver] == source else [heard[receiver]]
    return [number for number in range(count) if number != source]


def _opened(name: str) -> socket.socket:
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    port.setsockopt(_SOL_PACKET, _VNET_HEADER, 1)
    port.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
    port.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    port.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
    port.bind((name, 0))
    port.setblocking(False)
    return port


def _send(port: socket.socket, packet: bytes) -> None:
    try:
        port.send(packet)
    except OSError as error:
        if error.errno not in (errno.ENOBUFS, errno.EAGAIN, errno.ENETDOWN):
            raise


if __name__ == "__main__":
    main(sys.argv[1:])
