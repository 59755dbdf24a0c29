"""Interfaces, and between hosts: latency, bandwidth and the difference of the clocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from lepton_mpi.doctor.finding import Finding, fault, note, ok, plural

# Ethernet of 1 Gbit/s carries 117 MB/s, in 0.05 ms.
_SLOW_BYTES_PER_SECOND, _SLOW_SECONDS = 100e6, 500e-6
# A host with less than this part of what the others have has another fault than the network's speed.
_ODD_PART = 0.4
# Of what the interface is for.
_OF_INTERFACE = 0.3
_SKEW_FAULT_SECONDS, _SKEW_NOTE_SECONDS = 1.0, 0.05


@dataclass(frozen=True)
class Interface:
    """A network interface that is up; ``megabits`` per second, 0 where it does not say."""

    name: str
    megabits: int = 0
    is_virtual: bool = False


@dataclass(frozen=True)
class Link:
    """What rank 0 measured with the first rank of another host: one way, and the other clock minus its own."""

    seconds: float
    bytes_per_second: float
    skew_seconds: float


@dataclass(frozen=True)
class Facts:
    """Of the job: interfaces by host, links by host, those of rank 0's host excluded, and the MPI library."""

    interfaces: Mapping[str, list[Interface]]
    links: Mapping[str, Link] = field(default_factory=dict)
    library: str = ""


def gather(root: Path = Path("/")) -> list[Interface]:
    """Interfaces of this host that are up, without the loopback. ``root`` is where sys is; another one is for tests."""
    found = []
    folder = root / "sys/class/net"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name == "lo" or _text(path / "operstate") not in ("up", "unknown"):
            continue
        speed = _text(path / "speed")
        is_virtual = not (path / "device").exists()
        found.append(Interface(path.name, int(speed) if speed.isdigit() else 0, is_virtual))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # an interface that is down has no speed
        return ""


def findings(facts: Facts) -> Iterator[Finding]:
    """All about the network."""
    here = next(iter(facts.interfaces.values()), [])
    named = [
        f"{each.name} ({each.megabits / 1000:g} Gbit/s)" if each.megabits else each.name
        for each in here
    ]
    hosts = len(facts.interfaces)
    text = f"interfaces {', '.join(named) if named else 'none but the loopback'}"
    yield ok("network", f"{text}; {plural(hosts, 'host')}")
    if facts.links:
        yield from _latency(facts.links)
        yield from _bandwidth(facts, here)
        yield from _clocks(facts.links)


def _latency(links: Mapping[str, Link]) -> Iterator[Finding]:
    times = {host: link.seconds for host, link in links.items()}
    worst = max(times, key=times.__getitem__)
    span = _span(min(times.values()) * 1e6, times[worst] * 1e6, "us", len(links))
    if times[worst] > _SLOW_SECONDS:
        yield note(
            "latency",
            f"{span}, the longest to {worst}: every step waits that long several times",
            "python -m lepton_mpi.train --strategy diloco",
        )
    else:
        yield ok("latency", span)


def _bandwidth(facts: Facts, here: list[Interface]) -> Iterator[Finding]:
    speeds = {host: link.bytes_per_second for host, link in facts.links.items()}
    worst = min(speeds, key=speeds.__getitem__)
    least, most = speeds[worst], max(speeds.values())
    span = _span(least / 1e6, most / 1e6, "MB/s", len(speeds))
    fastest = max(here, key=lambda each: (not each.is_virtual, each.megabits), default=None)
    expected = fastest.megabits * 1e6 / 8 if fastest and not fastest.is_virtual else 0.0
    name = fastest.name if fastest else "eth0"
    if least < _ODD_PART * median(speeds.values()):
        yield fault(
            "bandwidth",
            f"{span}: {worst} has much less than the others",
            f"mpirun --host HOSTS COMMAND  # without {worst}",
            f"ethtool {name}  # on {worst}: speed and duplex",
        )
    elif least < _OF_INTERFACE * expected:
        yield fault(
            "bandwidth",
            f"{span}, but {name} carries {expected / 1e6:.0f} MB/s: MPI takes another way",
            _choose_interface(facts.library, name),
        )
    elif least < _SLOW_BYTES_PER_SECOND:
        yield note(
            "bandwidth",
            f"{span}, a slow network: send fewer bytes",
            "python -m lepton_mpi.train --compress int8",
            "python -m lepton_mpi.train --strategy diloco",
        )
    else:
        yield ok("bandwidth", span)


def _span(least: float, most: float, unit: str, hosts: int) -> str:
    """Such as ``20 to 30 us to 3 other hosts``."""
    both = f"{least:.0f}" if f"{least:.0f}" == f"{most:.0f}" else f"{least:.0f} to {most:.0f}"
    return f"{both} {unit} to {plural(hosts, 'other host')}"


def _choose_interface(library: str, name: str) -> str:
    if library.startswith("Open MPI"):
        return f"export OMPI_MCA_btl_tcp_if_include={name}"
    if library.startswith("Intel MPI"):
        return f"export FI_TCP_IFACE={name}"
    return f"export MPIR_CVAR_OFI_USE_PROVIDER=tcp FI_TCP_IFACE={name}"


def _clocks(links: Mapping[str, Link]) -> Iterator[Finding]:
    skews = {host: link.skew_seconds for host, link in links.items()}
    worst = max(skews, key=lambda host: abs(skews[host]))
    size = abs(skews[worst])
    text = f"the clock of {worst} is {size:.3g} s {'ahead' if skews[worst] > 0 else 'behind'}"
    if size > _SKEW_FAULT_SECONDS:
        yield fault(
            "clocks",
            f"{text}: times of files and of messages contradict each other",
            f"ssh {worst} sudo chronyc makestep",
            f"ssh {worst} sudo timedatectl set-ntp true",
        )
    elif size > _SKEW_NOTE_SECONDS:
        yield note("clocks", text, f"ssh {worst} sudo chronyc makestep")
    else:
        yield ok("clocks", f"at most {size * 1000:.2g} ms apart")
