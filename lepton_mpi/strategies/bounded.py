"""``--strategy bounded``: each rank updates the common parameters by itself, at most S steps ahead of the slowest (stale-synchronous).

    step of a rank   gradient of its own micro-batches at the parameters as they are just then
                     slice by slice, under the slice's lock: update of the host's one copy of parameters and state,
                     with the part of the learning rate that its micro-batches are of the step's
                     its clock is raised; then it waits while a rank of its host is more than S steps behind

There is no parameter server: inside a host the parameters are memory that all ranks read and update. With
``--locks false`` two ranks may update a slice at once, and one of the updates be lost here and there (Hogwild). S = 0 is ``sync``, bit for bit.

Between hosts each lane (rank l of every host, with slice l) sends what its host's slice has changed by since it sent last,
and adds what the others send: every update acts on every host once, whenever it arrives. A host has at most S such messages
on their way that another has not answered by one of its own; nobody waits otherwise. Messages of one round:

    sent      w - base, then base = w           received from host h      w += d_h, base += d_h

At ``finish`` all ranks meet, what is on its way arrives, hosts exchange the rest, and take the mean of what by then differs by
rounding alone. A rank that dies is noticed by the watchdog, whoever waits for its lock, clock or message.
Bits depend on who is when where: the strategy is not reproducible.
Sources: Ho et al., "More effective distributed ML via a stale synchronous parallel parameter server", NeurIPS 2013; Recht et
al., "Hogwild!", NeurIPS 2011. Changes as messages: the filter-free form of Li et al., "Parameter server", OSDI 2014.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from lepton_mpi.chunks import chunk_bounds, share
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.messages.mpi import MpiTransport, reserve_tags
from lepton_mpi.collectives.within_host.flag_kernels import flags_reached, raise_flag
from lepton_mpi.collectives.within_host.flags import HostFlags, HostMeeting, let_messages_go_on
from lepton_mpi.collectives.within_host.ticket_kernels import is_served, serve_next, take_ticket
from lepton_mpi.collectives.within_host.tickets import TicketLocks
from lepton_mpi.strategies import synchronous
from lepton_mpi.strategies.clipping import ReplicatedNorm, clipped_scale
from lepton_mpi.strategies.frozen import FrozenValues
from lepton_mpi.strategies.host_state import host_state
from lepton_mpi.strategies.micro_batches import sums_of_run
from lepton_mpi.strategies.norm_kernels import sum_of_squares
from lepton_mpi.strategies.strategy import Setting, Share, SkipScope, Strategy, StrategyBase
from lepton_mpi.strategies.strategy_options import BoundedOptions
from lepton_mpi.strategies.workers import Mean, check_worker_count

# Parts of the parameters with a lock each: so many that ranks, which begin at different ones, seldom meet.
_PARTS_PER_RANK, _PART_ELEMENTS_MIN = 4, 4096


class Bounded(StrategyBase):
    """See the module. Making one and ``finish`` are collective over the group; ``step`` is not."""

    is_shared = can_share_out = freezes = True
    skips: SkipScope = "rank"

    def __init__(self, setting: Setting, options: BoundedOptions) -> None:
        group, layout, dtype = setting.group, setting.layout, setting.dtype
        check_worker_count(setting, group.size, "rank")
        rate, count = setting.optimizer.rate, setting.micro_batch_count
        # Each rank's own: its part of a step is that of its micro-batches.
        slower = replace(
            setting.optimizer, rate=lambda step: rate(step) * len(self.numbers) / count
        )
        averaged = {name: part / group.size for name, part in setting.averaged.items()}
        self.parameters, self._rule = host_state(
            replace(setting, optimizer=slower, averaged=averaged)
        )
        self.optimizer = self._rule
        self._group, self._clock, self._options = group, group.clock, options
        self._layout, self._gradient = layout, np.zeros(layout.size, dtype)
        self.share_out(chunk_bounds(count, group.size))
        parts = max(1, min(_PARTS_PER_RANK * group.local_size, layout.size // _PART_ELEMENTS_MIN))
        self._bounds = chunk_bounds(layout.size, parts)
        self._locks = TicketLocks(group, parts) if options.locks else None
        self._clip_norm = setting.clip_norm
        self._norm = (
            ReplicatedNorm(self._gradient, setting.trained_spans) if setting.clips else None
        )
        self._clocks, self._meeting = HostFlags(group, 1), HostMeeting(group)
        self._go_on = let_messages_go_on(group)
        self._lane = _Lane(group, self.parameters, options.staleness) if group.lane_comm else None
        self.kernels = [self._rule.kernel, raise_flag, flags_reached, take_ticket, is_served]
        self.kernels += [serve_next, *([sum_of_squares] if setting.clips else [])]
        self._made, self._begun, self._is_over = 0, False, True
        self._frozen = FrozenValues(setting, self.parameters)

    def share_out(self, bounds: Sequence[int]) -> None:
        """See ``Strategy``."""
        self._node_sums = sums_of_run(self._layout, bounds, self._group.place, self._gradient)
        self.numbers = self.weighed = self._node_sums.numbers

    def shares(self, step: int) -> Iterable[Share]:
        """See ``Strategy``."""
        if not self._begun:
            self._begun = True
            self._frozen.keep()
            # Nobody updates before every lane knows what the parameters were.
            if self._lane:
                self._lane.forget()
            self._meeting.run()
        return self._node_sums.shares()

    def step(self, step: int, weight: int) -> None:
        """See ``Strategy``: this rank's update, and wait for those that are too far behind."""
        self._clock.enter("communication")
        self._is_over = False
        if weight:
            self._update(step, weight)
        self._made += 1
        if self._lane:
            self._lane.poll(self._under_locks)
        self._clocks.raise_own(0, self._made)
        self._clock.enter("waiting")
        self._until(lambda: self._clocks.all_raised(0, self._made - self._options.staleness))
        self._clock.enter("compute")

    def skip(self, step: int) -> None:
        """See ``Strategy``: as a rank without a row."""
        self.step(step, 0)

    def restore(self, parameters: np.ndarray | None, state: Mapping[str, np.ndarray]) -> None:
        """See ``Strategy``."""
        super().restore(parameters, state)
        if self._begun and self._lane:
            self._lane.forget()

    def _update(self, step: int, weight: int) -> None:
        scale = 1.0 / weight
        if self._norm:
            scale = clipped_scale(scale, self._norm.compute(), self._clip_norm)
        self._rule.begin_step(step, scale, 1.0 / weight)
        count = len(self._bounds) - 1
        first = share(0, count, self._group.local_size, self._group.local_rank)[0]
        for turn in range(count):
            number = (first + turn) % count
            start, stop = self._bounds[number], self._bounds[number + 1]
            with self._held(number):
                self._rule.update(self.parameters, self._gradient, start, stop)

    def _held(self, number: int):  # type: ignore[no-untyped-def]
        return self._locks.held(number, self._go_on) if self._locks else nullcontext()

    def _under_locks(self, start: int, stop: int, do: Callable[[int, int], None]) -> None:
        """``do`` it with [start, stop), lock by lock."""
        for number in range(len(self._bounds) - 1):
            first, last = max(start, self._bounds[number]), min(stop, self._bounds[number + 1])
            if first < last:
                with self._held(number):
                    do(first, last)

    def _until(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            if self._lane:
                self._lane.poll(self._under_locks)
            self._go_on()
            os.sched_yield()

    def finish(self) -> None:
        """See ``Strategy``."""
        if self._is_over:
            return
        self._is_over = True
        self._clock.enter("waiting")
        self._until(lambda: self._clocks.all_raised(0, self._made))
        self._meeting.run()
        self._clock.enter("communication")
        if self._lane:
            self._lane.finish(self._under_locks)
            self._frozen.put_back()
        self._meeting.run()
        self._clock.enter("compute")

    def facts(self) -> dict[str, Any]:
        """How far ahead a rank may be."""
        return {
            "strategy": "bounded",
            "staleness": self._options.staleness,
            "locks": self._options.locks,
        }

    def own_vectors(self) -> int:
        """A gradient, and sums on their way."""
        return 1 + self._node_sums.extra_count

    def memory(self) -> dict[str, int]:
        """Vectors that the host holds; each rank has a gradient of its own besides."""
        return {"parameters": 1, "state": len(self._rule.state)}

    def __str__(self) -> str:
        locks = "" if self._options.locks else ", without locks (Hogwild)"
        return (
            f"bounded, ranks at most {self._options.staleness} steps ahead of the slowest{locks}; bits depend on "
            "who is when where"
        )


Under = Callable[[int, int, Callable[[int, int], None]], None]


class _Lane:
    """What a rank tells the same rank of the other hosts: by how much its slice has changed. See the module.

    Making one is collective over the group's ranks on lanes; so is ``finish``.
    """

    def __init__(self, group: Group, parameters: np.ndarray, staleness: int) -> None:
        assert group.lane_comm is not None
        self._part = share(0, parameters.size, group.lane_count, group.local_rank)
        self._parameters, self._staleness = parameters, staleness
        length = self._part[1] - self._part[0]
        transport = MpiTransport(group.lane_comm, reserve_tags(group, 1))
        others = [host for host in range(group.host_count) if host != group.host_index]
        self._comm = group.lane_comm
        self._base, self._change = np.zeros((2, length), parameters.dtype)
        self._arrived = {host: np.zeros(length, parameters.dtype) for host in others}
        self._receives = {
            host: transport.receive_request(memory, host) for host, memory in self._arrived.items()
        }
        self._sends = {host: transport.send_request(self._change, host) for host in others}
        self._received = dict.fromkeys(others, 0)
        self._sent, self._is_sending, self._expects = 0, False, False
        lanes = [ranks[group.local_rank] for ranks in group.ranks_of_hosts]
        self._mean = Mean(group.group(lanes), [parameters[slice(*self._part)]])

    def forget(self) -> None:
        """All hosts have the same parameters, whatever they were when the last change was sent."""
        self._base[:] = self._parameters[slice(*self._part)]

    def _expect(self) -> None:
        for request in self._receives.values():
            request.Start()
        self._expects = True

    def poll(self, under: Under) -> None:
        """Take what has arrived, and send what has changed, unless another host is too far behind."""
        if not self._expects:
            self._expect()
        for host, request in self._receives.items():
            if request.Test():
                self._add(host, under)
                request.Start()
        if self._is_sending and all([request.Test() for request in self._sends.values()]):
            self._is_sending = False
        if not self._is_sending and self._sent - min(self._received.values()) < self._staleness:
            self._send(under)

    def _add(self, host: int, under: Under) -> None:
        first, arrived = self._part[0], self._arrived[host]

        def add(start: int, stop: int) -> None:
            of_part = slice(start - first, stop - first)
            self._parameters[start:stop] += arrived[of_part]
            self._base[of_part] += arrived[of_part]

        under(*self._part, add)
        self._received[host] += 1

    def _send(self, under: Under) -> None:
        first = self._part[0]

        def take(start: int, stop: int) -> None:
            of_part = slice(start - first, stop - first)
            now = self._parameters[start:stop]
            np.subtract(now, self._base[of_part], out=self._change[of_part])
            self._base[of_part] = now

        under(*self._part, take)
        for request in self._sends.values():
            request.Start()
        self._sent, self._is_sending = self._sent + 1, True

    def finish(self, under: Under) -> None:
        """All that was sent arrives, a last change is exchanged, and hosts agree on the bits."""
        rounds = self._comm.allgather(self._sent + 1)
        while self._is_sending:
            self._take(under, rounds)
            self._is_sending = not all([request.Test() for request in self._sends.values()])
        self._send(under)
        while any(self._received[host] < rounds[host] for host in self._received):
            self._take(under, rounds)
        for request in self._sends.values():
            request.Wait()
        self._is_sending, self._sent = False, 0
        self._received = dict.fromkeys(self._received, 0)
        self._mean.run()
        self._base[:] = self._parameters[slice(*self._part)]
        # No receive stays open behind a run, whose memory is gone then.
        self._expects = False

    def _take(self, under: Under, rounds: list[int]) -> None:
        """Take what has arrived; after a host's last message nothing more is expected of it in this round of steps."""
        for host, request in self._receives.items():
            if self._received[host] < rounds[host] and request.Test():
                self._add(host, under)
                if self._received[host] < rounds[host]:
                    request.Start()


def make(setting: Setting) -> Strategy:
    """Collective over the group. Raises ConfigurationError."""
    options = setting.own or BoundedOptions()
    return Bounded(setting, options) if options.staleness else synchronous.make(setting)
