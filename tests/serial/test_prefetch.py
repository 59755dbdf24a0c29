"""A thread that works ahead: order, errors, its end, and memory that is not touched before it is given back."""

import threading
import time
from collections.abc import Iterator
from itertools import count

import pytest

from lepton_mpi.data.prefetch import Prefetch

_SECONDS = 20.0


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Neither by the test before nor by this one."""
    assert not _threads()
    yield
    deadline = time.monotonic() + _SECONDS
    while _threads() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not _threads()


@pytest.mark.parametrize("slot_count", [1, 2, 3, 20])
def test_results_come_in_the_order_of_the_jobs(slot_count):
    """With any number of slots, each of which is filled again only when it has been given back."""
    lent: set[int] = set()
    slots = [[number] for number in range(slot_count)]

    def fill(job: int, slot: list) -> str:
        assert id(slot) not in lent
        slot.append(job)
        return f"result {job}"

    prefetch = Prefetch(range(50), slots, fill)
    held = []
    for job in range(50):
        result, slot = prefetch.take()
        lent.add(id(slot))
        assert result == f"result {job}" and slot[-1] == job
        held.append(slot)
        if len(held) == slot_count:
            lent.remove(id(held[0]))
            prefetch.give_back(held.pop(0))
    prefetch.close()
    assert sorted(job for slot in slots for job in slot[1:]) == list(range(50))


def test_it_works_ahead_as_far_as_there_are_slots():
    """Three jobs are done before the first is asked for, and no fourth."""
    done: list[int] = []
    third = threading.Event()

    def fill(job: int, slot: int) -> int:
        done.append(job)
        if len(done) == 3:
            third.set()
        return job

    prefetch = Prefetch(count(), [0, 1, 2], fill)
    assert third.wait(_SECONDS)
    for expected in range(3):
        assert prefetch.take()[0] == expected
    assert done == [0, 1, 2]
    prefetch.give_back(0)
    assert prefetch.take() == (3, 0)
    prefetch.close()


def test_an_error_is_raised_by_the_take_that_wanted_its_result():
    """What was done before is still there; whoever asks again is told again instead of waiting for ever."""

    def fill(job: int, slot: int) -> int:
        if job == 2:
            raise ZeroDivisionError("job 2")
        return job

    prefetch = Prefetch(range(5), [0, 1, 2, 3], fill)
    assert prefetch.take()[0] == 0
    assert prefetch.take()[0] == 1
    for _ in range(3):
        with pytest.raises(ZeroDivisionError, match="job 2"):
            prefetch.take()
    prefetch.close()


@pytest.mark.parametrize("error", [ValueError("bad job"), MemoryError("none"), SystemExit(3)])
def test_an_error_of_the_jobs_is_raised_too(error):
    """Of whatever kind."""

    def jobs() -> Iterator[int]:
        yield 1
        raise error

    prefetch = Prefetch(jobs(), [0, 1], lambda job, slot: job)
    assert prefetch.take()[0] == 1
    with pytest.raises(type(error)) as raised:
        prefetch.take()
    assert raised.value is error
    prefetch.close()


def test_asking_for_more_than_there_is_raises():
    """It does not wait for a job that never comes."""
    prefetch = Prefetch([1], [0, 1], lambda job, slot: job)
    assert prefetch.take()[0] == 1
    for _ in range(2):
        with pytest.raises(LookupError):
            prefetch.take()
    prefetch.close()


def test_nothing_to_do():
    """No jobs and no slots, as on a rank without micro-batches."""
    Prefetch([], [], lambda job, slot: job).close()


def test_it_is_closed_while_it_waits_for_a_slot():
    """At once, and a second time."""
    filled = threading.Event()

    def fill(job: int, slot: int) -> int:
        filled.set()
        return job

    prefetch = Prefetch(count(), [0], fill)
    assert filled.wait(_SECONDS)
    prefetch.close()
    prefetch.close()


def test_it_is_closed_while_it_fills():
    """After the job that it is doing, although slots are free and jobs are left."""
    done: list[int] = []
    begun, may_end = threading.Event(), threading.Event()

    def fill(job: int, slot: int) -> int:
        begun.set()
        assert may_end.wait(_SECONDS)
        done.append(job)
        return job

    prefetch = Prefetch(count(), [0, 1, 2, 3], fill)
    assert begun.wait(_SECONDS)
    closing = threading.Thread(target=prefetch.close)
    closing.start()
    while not prefetch._is_over:
        time.sleep(0.001)
    may_end.set()
    closing.join(_SECONDS)
    assert not closing.is_alive() and done == [0]


def test_the_time_that_is_waited_counts():
    """What was ready costs nothing worth mentioning; what is not takes as long as it takes."""
    may_fill, second = threading.Event(), threading.Event()

    def fill(job: int, slot: int) -> int:
        if job == 1:
            second.set()
            assert may_fill.wait(_SECONDS)
        return job

    prefetch = Prefetch(range(2), [0, 1], fill)
    assert second.wait(_SECONDS) and prefetch.wait_seconds == 0  # so the first is ready
    prefetch.take()
    before = prefetch.wait_seconds
    threading.Timer(0.05, may_fill.set).start()
    began = time.perf_counter()
    prefetch.take()
    waited = prefetch.wait_seconds - before
    assert 0.04 < waited <= time.perf_counter() - began
    prefetch.close()


def test_threads_that_interfere_keep_the_order():
    """Many jobs of random length, with a consumer that is sometimes the slower one."""
    prefetch = Prefetch(range(300), [0, 1, 2], lambda job, slot: time.sleep(job % 3 * 1e-5) or job)
    for job in range(300):
        result, slot = prefetch.take()
        assert result == job
        time.sleep((job + 1) % 3 * 1e-5)
        prefetch.give_back(slot)
    prefetch.close()
