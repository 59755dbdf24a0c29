"""What the ranks of a host find out as they meet with different calls, with threads as ranks."""

import threading
import time

import numpy as np
import pytest

from lepton_mpi.collectives.within_host import meeting_kernels as kernels
from lepton_mpi.collectives.within_host.plan_words import control_block, encode_meeting
from tests.serial.plan_host import PlanHost


class _Call:
    """One rank's plan without vectors, of elements [start, stop)."""

    def __init__(self, group, start=0, stop=100, purpose="gradients", folds=()):
        self.words = control_block(group)
        scratch = np.zeros((1, 8), np.float32)
        self.plan, self.meeting = encode_meeting(
            *(group, self.words, [], scratch, start, stop, "sum", list(folds)), purpose=purpose
        )
        self.row = group.clock.row

    def meet(self, step: int) -> threading.Thread:
        self.row[0] = step
        args = (self.plan.view(np.float32),)
        thread = threading.Thread(target=kernels.host_allreduce, args=args, daemon=True)
        thread.start()
        return thread


def _until(is_so) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def _meet(calls: list[_Call], steps: list[int]) -> bool:
    """One meeting of all, who arrive in this order; whether they differ. Those who stay in it are let go."""
    words, threads = calls[0].words, []
    for number, (call, step) in enumerate(zip(calls, steps, strict=True)):
        threads.append(call.meet(step))
        _until(lambda n=number: words[kernels.ARRIVED] & 0xFFFF == n + 1)
    _until(lambda: words[kernels.DIFFERS] or not any(thread.is_alive() for thread in threads))
    differs = bool(words[kernels.DIFFERS])
    while any(thread.is_alive() for thread in threads):
        words[kernels.NEVER] = 1
        words[kernels.DONE] = words[kernels.OPEN] = 1 << 40
        time.sleep(0.001)
    return differs


@pytest.mark.parametrize("steps", [[3, 5, 4], [5, 3, 4], [0, 8, 4], [10**6, 10**6 + 2, 10**6 + 1]])
def test_steps_that_differ_do_not_cancel(steps):
    """The last to arrive has their mean: were what ranks tell linear in the step, the sum would be that of equal steps."""
    calls = [_Call(group) for group in PlanHost(3).groups]
    assert _meet(calls, steps)


@pytest.mark.parametrize("step", [0, 1, 4, 10**9])
def test_equal_steps_meet(step):
    calls = [_Call(group) for group in PlanHost(3).groups]
    assert not _meet(calls, [step] * 3)


def test_other_elements_are_named():
    """As many, elsewhere: the text of a call says which."""
    host = PlanHost(2)
    first = _Call(host.groups[0])
    assert _meet([first, _Call(host.groups[1], 100, 200)], [4, 4])
    assert host.groups[0].looks[0]() == (
        "the ranks sum different things, and nothing was summed: rank 10 calls sum of gradients [0, 100) of float32 in step 4, call 1, "
        "rank 11 sum of gradients [100, 200) of float32 in step 4, call 1; all ranks must make the same calls in the same steps"
    )


def test_plans_of_one_text_are_told_apart():
    """Of other folds: by the digits of their fingerprints, without an error in who watches."""
    host = PlanHost(3)
    calls = [_Call(group, folds=[[]] * (group.local_rank == 1)) for group in host.groups]
    assert _meet(calls, [4, 4, 4])
    said = host.groups[2].looks[0]()
    told = [f"{call.plan[kernels.TOLD]:012x}" for call in calls]
    assert told[0] == told[2] != told[1]
    text = "sum of gradients [0, 100) of float32 in step 4, call 1, plan 1"
    assert f"rank 11 calls {text} ({told[1]}), rank 10 {text} ({told[0]});" in said


def test_ranks_that_wait_in_two_equal_plans_are_told_apart():
    """By the numbers of the plans, where all else is the same."""
    host = PlanHost(2)
    plans = [[_Call(group), _Call(group)] for group in host.groups]
    threads = [plans[0][0].meet(4), plans[1][1].meet(4)]
    _until(lambda: plans[0][0].plan[kernels.EPOCH] and plans[1][1].plan[kernels.EPOCH])
    look = host.groups[0].looks[0]
    assert not look()  # they may be on their way
    said = look()
    (told,) = {f"{call.plan[kernels.TOLD]:012x}" for calls in plans for call in calls}
    text = "sum of gradients [0, 100) of float32 in step 4, call 1, plan"
    assert f"rank 10 calls {text} 1 ({told}), rank 11 {text} 2 ({told});" in said
    threads += [plans[0][1].meet(4), plans[1][0].meet(4)]
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
