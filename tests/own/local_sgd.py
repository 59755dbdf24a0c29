"""A strategy of one's own: every rank makes steps by itself, and every 4th the parameters are averaged (local SGD)."""

import numpy as np

from lepton_mpi.optimizers.optimizer import Optimizer
from lepton_mpi.optimizers.registry import rule_of
from lepton_mpi.strategies.strategy import Share, StrategyBase
from lepton_mpi.sync import NO_SYNC


class LocalSgd(StrategyBase):
    """Named by ``--strategy tests/own/local_sgd.py:LocalSgd``; called with a ``Setting``."""

    def __init__(self, setting):
        group, layout, count = setting.group, setting.layout, setting.micro_batch_count
        self._group = group
        self.parameters, self._gradient, self._sum = np.zeros((3, layout.size), setting.dtype)
        state = np.zeros((len(rule_of(setting.optimizer).state), layout.size), setting.dtype)
        of_model = {"averaged": setting.averaged, "decayed": setting.decayed}
        self.optimizer = Optimizer(setting.optimizer, layout, setting.dtype, state, **of_model)
        self.numbers = self.weighed = list(range(group.rank, count, group.size))
        views = layout.views(self._gradient)
        self._shares = [Share(n, self._gradient, views, NO_SYNC) for n in self.numbers]

    def shares(self, step):
        self._sum[:] = 0
        for share in self._shares:
            yield share
            self._sum += self._gradient

    def step(self, step, weight):
        self.optimizer.begin_step(step, 1 / max(1, weight))
        self.optimizer.update(self.parameters, self._sum, 0, self._sum.size)
        if step % 4 == 0:
            self.finish()

    def finish(self):
        self._group.clock.enter("communication")  # who waits is not taken for who hangs
        self.parameters[:] = self._group.sum(self.parameters) / self._group.size
        self._group.clock.enter("compute")
