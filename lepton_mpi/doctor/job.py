"""The facts of a job, and every finding that follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lepton_mpi.doctor import (
    core_latency,
    cores,
    kernel_cache,
    launching,
    memory,
    network,
    pages,
    storage,
    threads,
    versions,
)
from lepton_mpi.doctor.finding import Finding, Level, fault, numbers_text
from lepton_mpi.doctor.host_facts import HostFacts

# Where findings stand; the rest follows.
_ORDER = (
    *("MPI", "mpirun", "root", "binding", "oversubscribed", "hyperthreads", "quota", "threads"),
    *(
        "other work",
        "core latency",
        "memory",
        "/dev/shm",
        "leftovers",
        "huge pages",
        "shared pages",
    ),
    *("kernel cache", "HDF5", "file locks", "disk", "disk read"),
    *("network", "latency", "bandwidth", "clocks", "versions"),
)


@dataclass(frozen=True)
class RankFacts:
    """What every rank says of itself: host, cores, and the thread counts in its environment."""

    host: str
    cores: list[int]
    variables: Mapping[str, str]


@dataclass
class JobFacts:
    """All that rank 0 knows, which grows during the examination.

    Attributes
    ----------
    launching : launching.Facts
    ranks : dict of int to RankFacts
    hosts : dict of str to HostFacts
        In the order of their first ranks.
    links : dict of str to network.Link
    silent : dict of int to str
        Ranks that did not answer in time, and what they were asked for.
    stuck : str
        What rank 0 itself did when its time was over; empty otherwise.
    limit_seconds : float
        For each check.
    """

    launching: launching.Facts
    ranks: dict[int, RankFacts] = field(default_factory=dict)
    hosts: dict[str, HostFacts] = field(default_factory=dict)
    links: dict[str, network.Link] = field(default_factory=dict)
    silent: dict[int, str] = field(default_factory=dict)
    stuck: str = ""
    limit_seconds: float = 20.0

    def ranks_of(self, host: str) -> dict[int, list[int]]:
        """Ranks of a host and their cores."""
        return {rank: facts.cores for rank, facts in self.ranks.items() if facts.host == host}


def findings(job: JobFacts) -> list[Finding]:
    """All, by subject; with several hosts, what differs between them has their names."""
    found = list(launching.findings(job.launching))
    for host, facts in job.hosts.items():
        of_host = _of_host(job, host, facts)
        found += (
            (replace(each, hosts=(host,)) for each in of_host) if len(job.hosts) > 1 else of_host
        )
    whole = {host: facts.found for host, facts in job.hosts.items()}
    if of_versions := {h: found["versions"] for h, found in whole.items() if "versions" in found}:
        found += versions.findings(of_versions)
    if interfaces := {h: found["network"] for h, found in whole.items() if "network" in found}:
        found += network.findings(network.Facts(interfaces, job.links, job.launching.library))
    found += _unanswered(job)
    places = {check: place for place, check in enumerate(_ORDER)}
    return sorted(
        _merged(found, len(job.hosts)), key=lambda each: places.get(each.check, len(places))
    )


def _of_host(job: JobFacts, host: str, facts: HostFacts) -> Iterator[Finding]:
    found, launcher = facts.found, job.launching.launcher
    if "cores" in found:
        yield from cores.findings(found["cores"], launcher)
        ranks = job.ranks_of(host)
        variables: dict[str, str] = {}
        for rank in ranks:
            variables |= job.ranks[rank].variables
        room = cores.usable(found["cores"])
        yield from threads.findings(threads.Facts(variables, len(ranks), room))
    if "memory" in found:
        yield from memory.findings(found["memory"], launcher)
    simple: dict[str, Any] = {
        "pages": pages.findings,
        "kernel cache": kernel_cache.findings,
        "storage": storage.findings,
        "core latency": core_latency.findings,
    }
    for name, derive in simple.items():
        if name in found:
            yield from derive(found[name])
    for name in facts.late:
        yield _late(name, job.limit_seconds)
    for name, reason in facts.failed.items():
        yield fault(name, f"the check failed: {reason}", "python -m lepton_mpi --version")


def _late(name: str, seconds: float) -> Finding:
    remedy = {
        "storage": "python -m lepton_mpi doctor --data FILE  # on another file system",
        "kernel cache": 'export LEPTON_CACHE_DIR="${TMPDIR:-/tmp}/lepton_mpi-$USER"',
    }.get(name, f"python -m lepton_mpi doctor --timeout {3 * seconds:g}")
    return fault(name, f"the check had not ended after {seconds:g} s and was left behind", remedy)


def _unanswered(job: JobFacts) -> Iterator[Finding]:
    longer = f"python -m lepton_mpi doctor --timeout {3 * job.limit_seconds:g}"
    by_question: dict[str, list[int]] = {}
    for rank, question in job.silent.items():
        by_question.setdefault(question, []).append(rank)
    for question, ranks in by_question.items():
        names = f"rank{'s' * (len(ranks) > 1)} {numbers_text(sorted(ranks))}"
        where = sorted({job.ranks[rank].host for rank in ranks if rank in job.ranks})
        place = f" on {', '.join(where)}" if where else ""
        yield fault("silent ranks", f"{names}{place} did not answer in time: {question}", longer)
    if job.stuck:
        yield fault("stuck", f"rank 0 had not ended in time: {job.stuck}", longer)


def _merged(found: Iterable[Finding], host_count: int) -> list[Finding]:
    """The same finding of several hosts as one; what is ok on several hosts, as the first of them has it."""
    kept: dict[tuple[object, ...], list[Finding]] = {}
    for each in found:
        key: tuple[object, ...] = each.check, each.level
        if each.level is not Level.OK or not each.hosts:
            key = *key, each.text, each.remedies
        kept.setdefault(key, []).append(each)
    merged = []
    for same in kept.values():
        hosts = tuple(host for each in same for host in each.hosts)
        is_everywhere = len(hosts) == host_count and len({each.text for each in same}) == 1
        merged.append(replace(same[0], hosts=() if is_everywhere else hosts))
    return merged
