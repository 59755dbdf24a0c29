"""A run says why it cannot take ranks that ask to join: its strategy, its hosts, the memory that they would take."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lepton_mpi.run import announcement, joins
from lepton_mpi.run.joins import Joins

_MIB = 1 << 20


def _run(folder: Path, **other) -> SimpleNamespace:
    """What is asked of a run, of 2 ranks on one host, with 100 MiB free."""
    given = {"strategy": "sync", "allreduce": "auto", "hosts": 1, "free": 100 * _MIB} | other
    world = SimpleNamespace(
        host_count=given["hosts"],
        size=2,
        is_first=True,
        memory_available=lambda: given["free"],
        broadcast=lambda value: value,
    )
    config = SimpleNamespace(
        checkpoint=str(folder), strategy=given["strategy"], allreduce=given["allreduce"]
    )
    return SimpleNamespace(world=world, config=config, folder=SimpleNamespace(path=folder))


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Whether a run takes 3 ranks that want 20 MiB each, with two copies of 10 MiB; and what they are told."""
    monkeypatch.setattr(joins, "rank_bytes", lambda run: 20 * _MIB)
    monkeypatch.setattr(joins.snapshot, "memory_bytes", lambda run: 10 * _MIB)

    def ask(**other):
        request, run, made = announcement.announce(tmp_path, 3), _run(tmp_path, **other), Joins()
        made.attach(run)
        return made.look(run), announcement.answer_to(tmp_path, request)

    return ask


def test_they_are_taken_where_nothing_is_against_it(asked):
    assert asked() == (True, None)
    assert asked(free=80 * _MIB) == (True, None)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"hosts": 2}, "expected a run on one host, got 2 hosts"),
        ({"strategy": "local"}, "got local with auto"),
        ({"allreduce": "ring"}, "got sync with ring"),
        ({"free": 80 * _MIB - 1}, "expected 80 MiB of memory for 3 more ranks"),
    ],
)
def test_the_reason_is_told(asked, other, reason):
    taken, said = asked(**other)
    assert not taken
    assert not said.is_well and reason in said.text, said
