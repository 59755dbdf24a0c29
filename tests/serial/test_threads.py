"""The transport between threads, on which the tests of all schedules stand."""

import numpy as np
import pytest

from lepton_mpi.collectives.messages.threads import ThreadWorld, run_ranks


@pytest.mark.parametrize("rendezvous", [False, True])
def test_messages_between_two_ranks_arrive_in_the_order_sent(rendezvous):
    """The first receive gets the first send."""

    def exchange(transport):
        values = np.array([1.0, 2.0, 3.0])
        if transport.rank == 0:
            requests = [transport.send_request(values[i : i + 1], 1) for i in range(3)]
        else:
            values[:] = 0
            requests = [transport.receive_request(values[i : i + 1], 0) for i in range(3)]
        for request in requests:
            request.Start()
        for request in requests:
            request.Wait()
        return values

    np.testing.assert_array_equal(
        run_ranks(ThreadWorld(2, rendezvous=rendezvous), exchange)[1], [1, 2, 3]
    )


def test_an_eager_send_carries_the_values_of_its_start():
    """Changing the memory after an eager send has started changes nothing on the other side."""

    def exchange(transport):
        memory = np.array([1.0])
        if transport.rank == 0:
            request = transport.send_request(memory, 1)
            request.Start()
            memory[0] = 2
        else:
            request = transport.receive_request(memory, 0)
            request.Start()
        request.Wait()
        return memory[0]

    assert run_ranks(ThreadWorld(2), exchange) == [2, 1]


def test_a_rendezvous_send_waits_for_its_receiver():
    """Two ranks that send to each other before they receive wait for ever, and are told so in the end."""

    def both_send_first(transport):
        memory = np.zeros(1)
        send = transport.send_request(memory, 1 - transport.rank)
        send.Start()
        send.Wait()

    with pytest.raises(TimeoutError, match="no message"):
        run_ranks(ThreadWorld(2, rendezvous=True, timeout_seconds=0.2), both_send_first)
    run_ranks(ThreadWorld(2, rendezvous=False), both_send_first)


def test_the_failing_rank_is_named_and_frees_the_others():
    """An exception on one rank ends the waiting of the others at once, and is the one that is raised."""

    def fail_on_two(transport):
        if transport.rank == 2:
            raise KeyError("its own")
        transport.receive_request(np.zeros(1), 2).Wait()

    with pytest.raises(KeyError, match="its own") as caught:
        run_ranks(ThreadWorld(4, timeout_seconds=60), fail_on_two)
    assert caught.value.__notes__ == ["on rank 2 of 4"]


def test_ends_of_different_lengths_are_found():
    """A receive that expects another length than was sent fails."""

    def exchange(transport):
        memory = np.zeros(3 + transport.rank)
        make = transport.receive_request if transport.rank else transport.send_request
        request = make(memory, 1 - transport.rank)
        request.Start()
        request.Wait()

    with pytest.raises(AssertionError):
        run_ranks(ThreadWorld(2), exchange)
