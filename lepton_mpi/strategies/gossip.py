"""``--strategy gossip``: after its own step a worker averages with a few others, and never waits for all.

    step       w_k = w_k - update(gradient of its own micro-batches)
    exchange   w_i = sum over j of A[i, j] w_j            A of the round: ``topology.py``

A worker waits for those that it hears of alone, and sends one vector in ``one_peer``, ``random`` and ``random_push``, two in
``ring``, log2 W in ``exponential``, however many workers there are. Workers differ a little at all times; the mean over all
is what is evaluated and saved, and what all go on from after an epoch (periodic global averaging).

Push-sum, ``random_push``: what worker k holds is a numerator u and a weight v, from 1 on, that are sent and added up alike;
its parameters are u / v, right on the average although some got more than others.

With ``--asynchronous true`` nobody waits (``asynchronous_gossip.py``). Otherwise the order of messages: a worker sends its vector, then waits for those that send to it, so that no two wait for each other.
Sources: Lian et al., "Can decentralized algorithms outperform centralized algorithms?", NeurIPS 2017; Assran et al.,
"Stochastic gradient push", ICML 2019; Ying et al., "Exponential graph is provably efficient", NeurIPS 2021; Chen et al.,
"Accelerating gossip SGD with periodic global averaging", ICML 2021.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_mpi.collectives.messages.mpi import MpiTransport
from lepton_mpi.collectives.messages.neighbours import NeighbourExchange
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.strategies.asynchronous_gossip import AsynchronousGossip
from lepton_mpi.strategies.strategy import Setting, Strategy
from lepton_mpi.strategies.strategy_options import GossipOptions
from lepton_mpi.strategies.topology import PUSHING, TOPOLOGIES
from lepton_mpi.strategies.workers import Mean, RankWorker, Workers, ranks_by_place

# Of messages on the group's ``collective_comm``, where sums over messages have another.
_TAG = 9


class Gossip(Workers):
    """See the module."""

    name = "gossip"

    def __init__(self, setting: Setting, options: GossipOptions) -> None:
        group = setting.group
        super().__init__(setting, RankWorker(setting))
        self._options, self._seed = options, setting.seed
        self._round_of = TOPOLOGIES[options.topology]
        self._pushes = options.topology in PUSHING
        # The vector that is sent ends with the push-sum weight.
        size = self.parameters.size
        self._sent = np.zeros(size + 1, self.parameters.dtype)
        self._weight = 1.0
        self._messages = NeighbourExchange(self._sent, MpiTransport(group.collective_comm, _TAG))
        self._rank_of_place = ranks_by_place(group)
        self._mean = Mean(group, [self.parameters])

    def exchange(self, step: int) -> None:
        """See ``Workers``."""
        if self.apart % self._options.sync_every:
            return
        group, size = self._group, self.parameters.size
        targets, weights = self._round_of(group.size, group.place, step, self._seed)
        np.multiply(
            self.parameters, self.parameters.dtype.type(self._weight), out=self._sent[:size]
        )
        self._sent[size] = self._weight
        sources = [place for place in weights if place != group.place]
        arrived = self._messages.run(
            [self._rank_of_place[place] for place in targets],
            [self._rank_of_place[place] for place in sources],
        )
        vectors = dict(zip(sources, arrived, strict=True)) | {group.place: self._sent}
        self.parameters[:], self._weight = combined(
            weights, {place: vectors[place] for place in weights}, self._pushes
        )
        self.meetings += 1
        self.exchanged_bytes += self._sent.nbytes * len(targets)

    def agree(self) -> None:
        """See ``Workers``: the mean of all; by push-sum weights, of which it is one."""
        if self._pushes:
            self.parameters *= self.parameters.dtype.type(self._weight)
        self.run_mean(self._mean)
        self._weight = 1.0

    def restore(self, parameters: np.ndarray | None, state: Mapping[str, np.ndarray]) -> None:
        """See ``Strategy``."""
        super().restore(parameters, state)
        self._weight = 1.0

    def own_vectors(self) -> int:
        """With what is sent, and what came from each that was heard of."""
        return super().own_vectors() + 1 + self._messages.peer_count

    def facts(self) -> dict[str, Any]:
        """See ``Workers``."""
        return super().facts() | {"topology": self._options.topology}

    def __str__(self) -> str:
        every = self._options.sync_every
        when = "each step" if every == 1 else f"every {every} steps"
        return f"gossip by {self._options.topology}, after {when}; {self.promise()}"


def combined(
    weights: Mapping[int, float], vectors: Mapping[int, np.ndarray], pushes: bool
) -> tuple[np.ndarray, float]:
    """Parameters, shape (n,), and push-sum weight after a round, from vectors of shape (n + 1,), added in ascending order."""
    total = np.zeros_like(next(iter(vectors.values())))
    for place in sorted(weights):
        total += total.dtype.type(weights[place]) * vectors[place]
    if not pushes:
        return total[:-1], 1.0
    return total[:-1] / total[-1], float(total[-1])


def make(setting: Setting) -> Strategy:
    """Collective over the group. Raises ConfigurationError."""
    options = setting.own or GossipOptions()
    if setting.group.size == 1:
        raise ConfigurationError(
            "--strategy gossip: expected two ranks or more, got 1: take --strategy sync, or mpirun -n 2"
        ).on_all_ranks()
    if options.topology in PUSHING and setting.clips:
        raise ConfigurationError(
            f"--topology {options.topology}: expected no --clip-norm, since push-sum sends parameters times a weight, and "
            "a clipped step is no longer of one size on all workers: take --topology random, or --clip-value"
        ).on_all_ranks()
    if options.asynchronous and options.topology in PUSHING:
        raise ConfigurationError(
            f"--asynchronous: expected a topology without push-sum, whose weights must all arrive, got {options.topology}: take "
            "--topology random"
        ).on_all_ranks()
    return (
        AsynchronousGossip(setting, options) if options.asynchronous else Gossip(setting, options)
    )
