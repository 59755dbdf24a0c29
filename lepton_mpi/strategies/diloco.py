"""``--strategy diloco``: workers make H steps by themselves; how far they came is the gradient of an outer step.

    every H steps    d = w - (w_1 + … + w_W) / W        w: parameters at the last meeting
                     m = mu m + d
                     w_k = w = w - rate (d + mu m)      Nesterov's momentum, all workers begin anew from w

The outer momentum carries on over meetings, so H may be ten times that of ``local`` for the same loss. With rate 1 and
momentum 0 it is ``local``. Running statistics of a normalisation are averaged only, since a momentum would carry a
variance below 0. With ``--fragments F`` the parameters are cut into F runs of layers, of which one meets every H / F steps:
as many bytes in all, 1/F of them at once.

With ``--overlap-steps T`` workers do not wait for each other's parameters, which come in while they make T more steps (streaming):

    after step s        w_k is sent
    after step s + T    w moves by the outer step with the mean of what was sent
                        w_k = alpha w_k + (1 - alpha) w        alpha: ``--overlap-mixing``; what w_k learnt meanwhile is in it

A merge is after s + T, never when messages happen to be there, so the bits are the same for as many workers. Where all workers meet
anyhow, what is under way is merged first. T = 0 is as without. On one host there is nothing to hide.

An epoch's end is a meeting, too. With ``--across-epochs true`` it is none, unless a checkpoint is written there: workers go on as
they are, and what is evaluated are the parameters of the last meeting, the anchor, which all have; no rank sends anything for it.
The run ends with a meeting.
Sources: Douillard et al., "DiLoCo: distributed low-communication training of language models", 2023; Douillard et al.,
"Streaming DiLoCo with overlapping communication", 2025: fragments, overlap (tau, here T) and mixing (alpha).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.strategies.meetings import MeetingWorkers
from lepton_mpi.strategies.strategy import Setting, Share, Strategy
from lepton_mpi.strategies.strategy_options import DilocoOptions
from lepton_mpi.strategies.streaming import Polling
from lepton_mpi.strategies.workers import HostWorker, make_worker


class Diloco(MeetingWorkers):
    """See the module."""

    name = "diloco"

    def __init__(self, setting: Setting, options: DilocoOptions) -> None:
        worker, fragments = make_worker(setting, options.workers), options.fragments
        runs = _fragments(setting, fragments)
        super().__init__(
            *(setting, worker, runs), keeps_anchor=True, streams=options.overlap_steps > 0
        )
        self._options = options
        size, dtype = setting.layout.size, setting.dtype
        if isinstance(self.worker, HostWorker):
            self._momentum = setting.group.host_array((size,), dtype, "state")
        else:
            self._momentum = np.zeros(size, dtype)
        self._is_averaged = _averaged_elements(setting)
        self._since, self._is_paused = 0, False

    def shares(self, step: int) -> Iterable[Share]:
        """See ``Strategy``; what is under way goes on between the kernels of the model, and after each micro-batch."""
        shares = super().shares(step)
        return self._going_on(shares) if self._streamed and self._streamed.under_way else shares

    def _going_on(self, shares: Iterable[Share]) -> Iterator[Share]:
        assert self._streamed
        for share in shares:
            yield share._replace(sync=Polling(share.sync, self._streamed.poll))
            self._streamed.poll()

    def exchange(self, step: int) -> None:
        """See ``Workers``."""
        self._since += 1
        if self._streamed:
            self._stream()
            return
        due = due_fragments(self._since, self._options.sync_every, len(self.spans))
        if due:
            self.worker.meet()
            for number in due:
                self._outer_step(number)
            self.worker.meet()
            self.meetings += 1
            if len(self.spans) == 1:
                self.apart = 0

    def _stream(self) -> None:
        """Merge the fragments that were sent T steps ago, and send those that are due."""
        every, count = self._options.sync_every, len(self.spans)
        came = due_fragments(self._since - self._options.overlap_steps, every, count)
        due = due_fragments(self._since, every, count)
        if came or due:
            self.worker.meet()
            for number in came:
                self._merge(number, self._options.overlap_mixing)
            for number in due:
                self._give(number)
            self.worker.meet()
            self.meetings += bool(due)

    def agree(self) -> None:
        """See ``Workers``."""
        numbers = range(len(self.spans))
        if self._streamed:
            for number in sorted(self._streamed.under_way):
                self._merge(number, self._options.overlap_mixing)
            for number in numbers:
                self._give(number)
            for number in numbers:
                self._merge(number, 0.0)
        else:
            for number in numbers:
                self._outer_step(number)
        self.meetings += 1

    def step(self, step: int, weight: int) -> None:
        """See ``Strategy``."""
        self._is_paused = False
        super().step(step, weight)

    def finish(self) -> None:
        """See ``Workers``."""
        super().finish()
        self._since, self._is_paused = 0, False

    def pause(self) -> None:
        """See ``Strategy``."""
        if not self._options.across_epochs:
            self.finish()
            return
        self.worker.finish()
        self._is_paused = not self._is_over

    def consensus(self) -> np.ndarray:
        """See ``Strategy``: while workers stay apart, what they began from."""
        return self.anchor if self._is_paused else self.parameters

    def _outer_step(self, number: int) -> None:
        """Of one fragment; all workers begin anew from it."""
        self._take_mean(number)
        for span in self.spans[number]:
            self._move(span, self.parameters[span])
            self.parameters[span] = self.anchor[span]

    def _merge(self, number: int, kept: float) -> None:
        """The outer step of a fragment that was given, of which the part ``kept`` of a worker's own parameters stays."""
        kind = self.parameters.dtype.type
        for span, mean in zip(self.spans[number], self._take(number), strict=True):
            self._move(span, mean)
            own = self.parameters[span]
            if kept:
                own *= kind(kept)
                own += kind(1 - kept) * self.anchor[span]
            else:  # without a zero's sign of its own
                own[:] = self.anchor[span]

    def _move(self, span: slice, mean: np.ndarray) -> None:
        """The anchor, from the mean of all workers."""
        options, kind = self._options, self.parameters.dtype.type
        rate, momentum = kind(options.outer_rate), kind(options.outer_momentum)
        anchor, velocity = self.anchor[span], self._momentum[span]
        distance = anchor - mean
        velocity *= momentum
        velocity += distance
        anchor -= rate * (distance + momentum * velocity)
        is_averaged = self._is_averaged[span]
        np.copyto(anchor, mean, where=is_averaged)
        velocity[is_averaged] = 0

    def state(self) -> dict[str, np.ndarray]:
        """The optimizer's, and the outer momentum."""
        return super().state() | {"outer_momentum": self._momentum}

    def restore(self, parameters: np.ndarray | None, state: Mapping[str, np.ndarray]) -> None:
        """See ``Strategy``."""
        super().restore(parameters, state)
        self._since = 0

    def own_vectors(self) -> int:
        """Of a rank worker also the outer momentum."""
        return super().own_vectors() + (not self.is_shared)

    def memory(self) -> dict[str, int]:
        """Of host workers also the outer momentum."""
        found = super().memory()
        return found | ({"state": found["state"] + 1} if self.is_shared else {})

    def facts(self) -> dict[str, Any]:
        """See ``Workers``."""
        options = self._options
        return super().facts() | {
            "sync_every": options.sync_every,
            "outer_rate": options.outer_rate,
            "outer_momentum": options.outer_momentum,
            "across_epochs": options.across_epochs,
            "overlap_steps": options.overlap_steps,
            "overlap_mixing": options.overlap_mixing,
        }

    def __str__(self) -> str:
        options = self._options
        parts = f", {options.fragments} fragments in turn" if options.fragments > 1 else ""
        across = ", across epochs" if options.across_epochs else ""
        across += self._overlap_text()
        return (
            f"diloco, an outer step (rate {options.outer_rate:g}, momentum {options.outer_momentum:g}) every "
            f"{options.sync_every} steps{parts}{across}; {self.promise()}"
        )

    def _overlap_text(self) -> str:
        options = self._options
        if not options.overlap_steps:
            return ""
        idle = ", one host: no exchange to hide" if self._group.host_count == 1 else ""
        return f", merged {options.overlap_steps} steps later (mixing {options.overlap_mixing:g}{idle})"


def due_fragments(since: int, every: int, fragments: int) -> list[int]:
    """Which fragments meet after ``since`` steps: each every ``every`` steps, one after the other; none after 0 or fewer.

    >>> [due_fragments(since, 4, 2) for since in range(1, 9)]
    [[], [0], [], [1], [], [0], [], [1]]
    >>> [due_fragments(since, 2, 3) for since in range(1, 5)]
    [[0, 1], [2], [0, 1], [2]]
    """
    if since <= 0:
        return []
    at = (since - 1) % every + 1
    return [
        number for number in range(fragments) if max(1, (number + 1) * every // fragments) == at
    ]


def _fragments(setting: Setting, count: int) -> list[tuple[int, int]]:
    """``count`` runs of whole parameters, about as long as each other. Raises ConfigurationError for more than there are parameters."""
    layout = setting.layout
    bounds = [bound for bound in layout.bounds if bound[0] < bound[1]]
    if count > len(bounds):
        raise ConfigurationError(
            f"--fragments: expected at most the number of parameters, {len(bounds)}, got {count}"
        ).on_all_ranks()
    runs: list[tuple[int, int]] = []
    for number, (start, stop) in enumerate(bounds):
        left, missing = len(bounds) - number, count - len(runs)
        is_begun = runs and runs[-1][1] - runs[-1][0] < (layout.size - runs[-1][0]) / (missing + 1)
        if runs and (missing == 0 or (is_begun and left > missing)):
            runs[-1] = runs[-1][0], stop
        else:
            runs.append((start, stop))
    return runs


def _averaged_elements(setting: Setting) -> np.ndarray:
    """Of each element, whether it is of a parameter that is averaged and not trained; bool, shape (layout.size,)."""
    found = np.ones(setting.layout.size, np.bool_)
    for start, stop in setting.trained_spans:
        found[start:stop] = False
    return found


def make(setting: Setting) -> Strategy:
    """Collective over the group. Raises ConfigurationError."""
    options = setting.own or DilocoOptions()
    if options.overlap_steps >= options.sync_every:
        raise ConfigurationError(
            f"--overlap-steps: expected fewer steps than the {options.sync_every} of --sync-every, since a fragment is merged before it "
            f"is sent again, got {options.overlap_steps}"
        ).on_all_ranks()
    return Diloco(setting, options)
