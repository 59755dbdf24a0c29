"""``--strategy gossip --asynchronous true``: a worker averages with what others have published last, and waits for none of them.

    step       w_k = w_k - update(gradient of its own micro-batches)
    publish    w_k, for the ranks of its host in memory (``published.py``); to the round's targets on other hosts, if they have taken the last
    exchange   w_k = (w_k + sum of v_j) / (1 + count of v_j)       v_j: newest of the round's sources on this host, and whatever has come from
                                                                    other hosts; each is taken once, so a slow worker's old one does not hold back

The topology's rounds are each worker's own steps, so workers may be in different ones. Weights are no matrix whose columns add up to 1, and the
mean of all workers moves a little with each average. A worker is as many steps ahead of another as speeds make it; all meet at
``finish``, after an epoch and before a checkpoint, where messages end and all take the mean. There whoever is fast waits for the slowest, which has
as many rows to compute as the others, unless ``--balance auto`` gives it fewer. Bits depend on who is when where.
A rank that dies is noticed by the watchdog; nobody waits for its vector before ``finish``.
Source: Lian, Zhang, Zhang and Liu, "Asynchronous decentralized parallel stochastic gradient descent", ICML 2018, with one-sided averages of
snapshots in place of atomic ones of pairs.
"""

from typing import Any

import numpy as np

from lepton_mpi.collectives.messages.mpi import MpiTransport, reserve_tags
from lepton_mpi.collectives.messages.unawaited import UnawaitedExchange
from lepton_mpi.collectives.within_host.flags import let_messages_go_on
from lepton_mpi.collectives.within_host.published import Published
from lepton_mpi.collectives.within_host.published_kernels import raise_version, read_version
from lepton_mpi.strategies.strategy import Setting
from lepton_mpi.strategies.strategy_options import GossipOptions
from lepton_mpi.strategies.topology import TOPOLOGIES, peers_of
from lepton_mpi.strategies.workers import Mean, RankWorker, Workers, ranks_by_place


class AsynchronousGossip(Workers):
    """See the module. Making one and ``finish`` are collective over the group; ``step`` is not."""

    name = "gossip"

    def __init__(self, setting: Setting, options: GossipOptions) -> None:
        group, size, dtype = setting.group, setting.layout.size, setting.dtype
        super().__init__(setting, RankWorker(setting))
        self.reproducible = False
        self._options, self._seed = options, setting.seed
        self._round_of = TOPOLOGIES[options.topology]
        self._rank_of_place = ranks_by_place(group)
        self._published = Published(group, size, dtype, "published")
        self._total, self._taken = np.zeros((2, size), dtype)
        self._far = self._far_exchange() if group.host_count > 1 else None
        self._mean, self._go_on = Mean(group, [self.parameters]), let_messages_go_on(group)
        self.kernels = [*self.kernels, raise_version, read_version]
        # Vectors that were averaged, over all exchanges of this run.
        self._averaged = 0

    def _far_exchange(self) -> UnawaitedExchange:
        """With the ranks on other hosts that it may ever hear of, or be heard of by."""
        group = self._group
        targets, sources = peers_of(self._options.topology, group.size, group.place)
        near = group.places_of_hosts[group.host_index]
        far = [
            [self._rank_of_place[place] for place in places if place not in near]
            for places in (targets, sources)
        ]
        comm, tag = group.collective_comm, reserve_tags(group, 2, "collective_comm")
        vectors, tellings = MpiTransport(comm, tag), MpiTransport(comm, tag + 1)
        size, dtype = self.parameters.size, self.parameters.dtype
        return UnawaitedExchange(size, dtype, vectors, tellings, *far)

    def exchange(self, step: int) -> None:
        """See ``Workers``; not collective."""
        if self.apart % self._options.sync_every:
            return
        group = self._group
        targets, weights = self._round_of(group.size, group.place, step, self._seed)
        self._publish(targets)
        total, count = self._total, 1
        total[:] = self.parameters
        near = group.places_of_hosts[group.host_index]
        for place in weights:
            is_near = place in near and place != group.place
            if is_near and self._published.take(place - near.start, self._taken):
                total += self._taken
                count += 1
        for _, vector in self._far.arrived() if self._far else ():
            total += vector
            count += 1
        if count > 1:
            np.multiply(total, total.dtype.type(1 / count), out=self.parameters)
        self.meetings += 1
        self._averaged += count - 1

    def _publish(self, targets: list[int]) -> None:
        """On this host, and to targets on others."""
        self._published.publish(self.parameters)
        near = self._group.places_of_hosts[self._group.host_index]
        for place in targets:
            if (
                place not in near
                and self._far
                and self._far.offer(self._rank_of_place[place], self.parameters)
            ):
                self.exchanged_bytes += self.parameters.nbytes

    def agree(self) -> None:
        """See ``Workers``: all meet, what is on its way arrives, and all take the mean."""
        self._clock.enter("waiting")
        sent = np.zeros((self._group.size, self._group.size))
        for rank, count in (self._far.sent if self._far else {}).items():
            sent[self._group.rank, rank] = count
        sent = self._group.sum(sent.reshape(-1)).reshape(sent.shape)
        self._clock.enter("communication")
        if self._far:
            expected = {source: int(sent[source, self._group.rank]) for source in self._far.sources}
            self._far.finish(expected, self._go_on)
        # Nobody publishes between that sum and the mean; what was published is part of it.
        self._published.forget()
        self.run_mean(self._mean)

    def own_vectors(self) -> int:
        """With what is added up, and what comes from other hosts and goes there."""
        return super().own_vectors() + 2 + (self._far.vector_count if self._far else 0)

    def memory(self) -> dict[str, int]:
        """What the host's ranks publish."""
        return super().memory() | {"published": self._published.vector_count}

    def figures(self) -> dict[str, float]:
        """Also how many vectors were averaged in an exchange."""
        averaged, made = self._group.sum(np.array([float(self._averaged), float(self.meetings)]))
        return super().figures() | {"heard_per_exchange": float(averaged / max(made, 1.0))}

    def facts(self) -> dict[str, Any]:
        """See ``Workers``."""
        return super().facts() | {"topology": self._options.topology, "asynchronous": True}

    def _bits(self) -> str:
        return "bits depend on who is when where"

    def __str__(self) -> str:
        every = self._options.sync_every
        when = "each step" if every == 1 else f"every {every} steps"
        return f"gossip by {self._options.topology}, asynchronous, after {when}; {self.promise()}"
