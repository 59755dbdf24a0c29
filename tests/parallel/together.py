"""Verdicts that all ranks share: a test that fails on one rank fails on every rank, at the same place.

A plain assert would let one rank leave a test while the others wait for it in the next collective.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lepton_mpi.errors import LeptonError


@contextmanager
def together(world) -> Iterator[None]:
    """A block of plain asserts, and of no collective call, that passes on all ranks or on none. Collective."""
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    verdicts = world.comm.allgather(failure and f"{type(failure).__name__}: {failure}")
    failed = [f"rank {rank} of {world.size}: {text}" for rank, text in enumerate(verdicts) if text]
    if failed:
        raise AssertionError("\n".join(failed)) from failure


def check(world, condition: Any, message: str = "") -> None:
    """Assert ``condition`` on all ranks. Collective."""
    with together(world):
        assert condition, message


def equal_everywhere(world, value: Any) -> None:
    """Assert that every rank has the same ``value``. Collective."""
    values = world.comm.allgather(value)
    check(world, all(other == values[0] for other in values), f"ranks differ: {values}")


@contextmanager
def refused(world, kind: type[LeptonError], *words: str) -> Iterator[None]:
    """A collective block that must raise the same error of ``kind`` on every rank, its text with ``words``."""
    raised = None
    try:
        yield
    except LeptonError as error:
        raised = error
    equal_everywhere(world, raised and (type(raised).__name__, str(raised)))
    with together(world):
        assert type(raised) is kind, f"expected {kind.__name__}, got {raised!r}"
        assert raised.agreed, "raised, but not by agreement"
        for word in words:
            assert word in str(raised), f"{word!r} is not in: {raised}"
