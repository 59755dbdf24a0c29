"""``--strategy elastic``: workers are drawn to a common centre, which is drawn to them, and may differ from it (EASGD).

    every H steps    w_k = w_k - a (w_k - c)            of every worker, with the centre c before the meeting
                     c   = c + a ((w_1 - c) + … + (w_W - c))        a = elasticity / W

Workers explore further than with ``local``; what is evaluated and saved is the centre, a mean over workers and over time.
A host holds the centre once, in memory that its ranks share; each rank moves its slice of it. After an epoch every worker goes on from the centre.
Source: Zhang, Choromanska and LeCun, "Deep learning with elastic averaging SGD", NeurIPS 2015, the synchronous form.
"""

from typing import Any

from lepton_mpi.chunks import share
from lepton_mpi.collectives.allreduce import make_plan
from lepton_mpi.collectives.within_host.flags import HostMeeting
from lepton_mpi.strategies.strategy import Setting, Strategy
from lepton_mpi.strategies.strategy_options import ElasticOptions
from lepton_mpi.strategies.workers import RankWorker, Workers


class Elastic(Workers):
    """See the module."""

    name = "elastic"

    def __init__(self, setting: Setting, options: ElasticOptions) -> None:
        super().__init__(setting, RankWorker(setting))
        group, size = setting.group, setting.layout.size
        algorithm = "host" if group.host_count == 1 else "two_level"
        self._options, self._plan = (
            options,
            make_plan(*(group, size, setting.dtype), mode="shared", algorithm=algorithm),
        )
        self._centre = group.host_array((size,), setting.dtype, "parameters")
        self._own = slice(*share(0, size, group.local_size, group.local_rank))
        self._meeting = HostMeeting(group)
        self._strength = options.elasticity / group.size

    def begin(self) -> None:
        """See ``Workers``."""
        self._meeting.run()
        if self._group.local_rank == 0:
            self._centre[:] = self.parameters
        self._meeting.run()

    def exchange(self, step: int) -> None:
        """See ``Workers``."""
        if self.apart >= self._options.sync_every:
            self._meet()
            self.apart = 0

    def agree(self) -> None:
        """See ``Workers``: the centre."""
        self._meet()
        self.parameters[:] = self._centre
        self._meeting.run()

    def _meet(self) -> None:
        centre, kind = self._centre, self.parameters.dtype.type
        strength, count = kind(self._strength), kind(self._group.size)
        self._plan.input[:] = self.parameters
        waited = self._plan.wait_seconds
        self._plan.run()
        self._clock.move("communication", "waiting", self._plan.wait_seconds - waited)
        self.parameters -= strength * (self.parameters - centre)
        self._meeting.run()
        total, own = self._plan.result[self._own], centre[self._own]
        own += strength * (total - count * own)
        self._meeting.run()
        self.meetings, self.exchanged_bytes = (
            self.meetings + 1,
            self.exchanged_bytes + centre.nbytes,
        )

    def finish(self) -> None:
        """See ``Workers``."""
        was_apart = not self._is_over
        self.apart += was_apart  # workers differ right after a meeting, too
        super().finish()

    def facts(self) -> dict[str, Any]:
        """See ``Workers``."""
        options = self._options
        return super().facts() | {
            "sync_every": options.sync_every,
            "elasticity": options.elasticity,
        }

    def memory(self) -> dict[str, int]:
        """The centre, and what is added up."""
        return {"parameters": 1}

    def __str__(self) -> str:
        options = self._options
        return (
            f"elastic, drawn to a centre every {options.sync_every} steps, elasticity {options.elasticity:g}; "
            f"{self.promise()}"
        )


def make(setting: Setting) -> Strategy:
    """Collective over the group. Raises ConfigurationError."""
    return Elastic(setting, setting.own or ElasticOptions())
