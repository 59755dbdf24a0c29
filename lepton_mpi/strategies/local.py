"""``--strategy local``: workers make steps by themselves, and every H steps take the mean of their parameters (local SGD).

    step of worker k    w_k = w_k - update(gradient of its own micro-batches)
    every H steps       w_k = (w_1 + … + w_W) / W

Averaging once in H steps sends 1/H of the bytes of ``sync``, and waits for others as rarely; workers that drift apart for
long learn less per step. With H = 1 and an optimizer whose update is linear in the gradient, as SGD's and momentum's are, it is ``sync``, but for rounding.

- Post-local SGD, ``--sync-first N``: H = 1 in the first N steps, in which parameters change fast.
- Growing H, ``--sync-growth A``: H = max(``--sync-every``, floor((A / rate)^2)), as the learning rate falls (the quadratic
  synchronisation rule).

With ``--compress`` the mean is of differences from the last one (``meetings.py``). The optimizer's state stays each worker's own between the ends of epochs, at which it is averaged, too.
Sources: Stich, "Local SGD converges fast and communicates little", ICLR 2019; Lin, Stich, Patel and Jaggi, "Don't use large
mini-batches, use local SGD", ICLR 2020; Gu et al., "A quadratic synchronization rule for distributed deep learning", ICLR 2024.
"""

from typing import Any

from lepton_mpi.strategies.meetings import MeetingWorkers
from lepton_mpi.strategies.strategy import Setting, Strategy
from lepton_mpi.strategies.strategy_options import LocalOptions
from lepton_mpi.strategies.workers import make_worker


class Local(MeetingWorkers):
    """See the module."""

    name = "local"

    def __init__(self, setting: Setting, options: LocalOptions) -> None:
        worker, whole = make_worker(setting, options.workers), [(0, setting.layout.size)]
        super().__init__(setting, worker, whole)
        self._options, self._rate = options, setting.optimizer.rate

    def period(self, step: int) -> int:
        """H at this step."""
        options = self._options
        if step <= options.sync_first:
            return 1
        rate = self._rate(step)
        if not options.sync_growth or rate <= 0:
            return options.sync_every
        return max(options.sync_every, int((options.sync_growth / rate) ** 2))

    def exchange(self, step: int) -> None:
        """See ``Workers``."""
        if self.apart >= self.period(step):
            self.worker.meet()
            self.agree()
            self.worker.meet()

    def agree(self) -> None:
        """See ``Workers``."""
        self._take_mean(0)
        self._set_anchor(range(1))
        self.apart, self.meetings = 0, self.meetings + 1

    def facts(self) -> dict[str, Any]:
        """See ``Workers``."""
        return super().facts() | {"sync_every": self._options.sync_every}

    def __str__(self) -> str:
        options = self._options
        first = f", after each of the first {options.sync_first}" if options.sync_first else ""
        grows = ", rarer as the rate falls" if options.sync_growth else ""
        return f"local, parameters averaged every {options.sync_every} steps{first}{grows}; {self.promise()}"


def make(setting: Setting) -> Strategy:
    """Collective over the group. Raises ConfigurationError."""
    return Local(setting, setting.own or LocalOptions())
