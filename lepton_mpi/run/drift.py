"""``--check-every N``: have memory and processors kept every bit? Every N-th step, and what was compared with what is said here.

    parameters, optimizer state     digests over all that hold them: hosts, or ranks where each has a copy. Workers that differ between two
                                    meetings are compared after each epoch alone
    the same at rest                what each rank holds a part of is digested again before the next update; it must not have changed. So where
                                    a host holds parameters once, flips are seen in 1 step of N, and on several hosts in all of them
    a gradient                      each rank computes its last micro-batch twice, or all of them where they are computed together: the same bits
                                    come out, or the processor is at fault

A digest can be added up (``kernels/digest_kernels.py``), so hosts of different numbers of ranks compare theirs, parameter by parameter.
Any single word that changed is found. Of three holders or more the majority is right; of two, the one that has not changed at rest, if either.

    --on-drift stop      the run ends with exit code 5: holder, ranks, vector and parameter are named
    --on-drift repair    whoever is wrong gets what the others have. Where nobody knows, as of a gradient, the run ends all the same

The cost of a check is two readings of what a rank holds, two small messages, and a micro-batch; norms of gradients are recorded with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lepton_mpi.batch import Batch
from lepton_mpi.chunks import share
from lepton_mpi.errors import RankError
from lepton_mpi.kernels.compiling import Kernel
from lepton_mpi.kernels.digest_kernels import digest_of_words
from lepton_mpi.kernels.finite_kernels import not_finite
from lepton_mpi.run.hook import QuietHook, weak
from lepton_mpi.strategies.norm_kernels import sum_of_squares
from lepton_mpi.strategies.strategy import Copy
from lepton_mpi.sync import NO_SYNC
from lepton_mpi.vectors import Views

if TYPE_CHECKING:
    from lepton_mpi.options.config import Config
    from lepton_mpi.run.run import Run

_NAMED_MAX = 5


class Wrong(NamedTuple):
    """A parameter of a vector that some hold otherwise: indices of holders, a rank that has it right or -1, elements."""

    copy: Copy
    name: str
    holders: tuple[int, ...]
    source: int
    span: tuple[int, int]


@dataclass
class _Part:
    """What this rank digests of a vector: elements [start, stop) of a parameter, as words, the first of which is number ``first``."""

    row: int
    column: int
    words: np.ndarray
    first: int


class Drift(QuietHook):
    """See the module. Making one is collective over the run's world, and so is every method but ``twice`` and ``compare``."""

    def __init__(self, run: Run) -> None:
        self._run, self._every = weak(run), run.config.check_every
        self._repairs = run.config.on_drift == "repair"
        self._names = list(run.layout.shapes)
        self._by_step = bool(run.strategy.copies())
        self._copies: list[Copy] = []
        self._parts: list[_Part] = []
        self._resting: np.ndarray | None = None
        # When it was digested.
        self._late_updates = 0
        self._scratch = self._still = np.zeros(0, run.strategy.parameters.dtype)
        self._gradient_wrong = ""
        self._norm = 0.0
        self.checks, self.repairs = 0, 0

    # -- a gradient ----------------------------------------------------------------------------------

    def is_due(self) -> bool:
        """Whether this step, which is being made, is checked."""
        return self._run.step % self._every == 0

    def still(self, parameters: Views) -> Views:
        """Those of the run for a gradient that is computed twice: a copy, where other ranks write to them meanwhile."""
        strategy = self._run.strategy
        if not strategy.is_shared or strategy.is_in_step:
            return parameters
        if not self._still.size:
            self._still = np.zeros_like(strategy.parameters)
        self._still[:] = strategy.parameters
        return self._run.layout.views(self._still)

    def twice(self, number: int, parameters: Views, batch: Batch, vector: np.ndarray) -> None:
        """Compute the gradient of a micro-batch, which is in ``vector``, once more with the same ``parameters``."""
        run = self._run
        if not self._scratch.size:
            self._scratch = np.zeros_like(vector)
        views = run.layout.views(self._scratch)
        run.model.loss_and_gradient(parameters, batch, views, NO_SYNC)
        self.compare(number, vector, self._scratch)

    def compare(self, number: int, vector: np.ndarray, again: np.ndarray) -> None:
        """The gradient of a micro-batch, and what came out when it was computed once more."""
        run = self._run
        self._norm = sqrt(sum_of_squares(vector))
        if np.array_equal(_words(again), _words(vector)):
            return
        mine, views = run.layout.views(vector), run.layout.views(again)
        other = [
            name
            for name in self._names
            if name not in run.model.frozen
            and not np.array_equal(_words(views[name]), _words(mine[name]))
        ]
        if other:
            self._gradient_wrong = (
                f"rank {run.world.rank} of {run.world.size} has computed the gradient of {_listed(other)} in step {run.step}, micro-batch "
                f"{number}, twice with other bits: a fault of its processor or memory, or a model that draws random numbers of its own"
            )

    # -- steps ---------------------------------------------------------------------------------------

    def guarding(self, step: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """``step``, with a look at what has been at rest since the last check."""

        def checked(number: int, weight: int) -> None:
            self._check_rest()
            step(number, weight)

        return checked

    def finish(self) -> None:
        """``Strategy.finish`` between two steps, which may make an update that is under way, with the same look before it."""
        was_at_rest = self._resting is not None
        self._check_rest()
        self._run.strategy.finish()
        if was_at_rest:
            self._rest(self._digests())

    def forget(self) -> None:
        """What was looked at is written anew."""
        self._resting = None

    def after_step(self, run: Run) -> None:
        """Compare, if it is due."""
        if run.step % self._every == 0 and self._by_step:
            self._compare(run.strategy.copies())

    def after_epoch(self, run: Run) -> None:
        """Workers have the same now, unless they stay apart."""
        self._resting = None  # evaluation may take long, and others may write
        # Where workers stay apart, something else is evaluated than what they have.
        if not self._by_step and run.strategy.consensus() is run.strategy.parameters:
            self._compare(run.strategy.copies_at_end())
            self._resting = None

    def at_end(self, run: Run) -> None:
        """Says that it has looked."""
        what = "parameters and state" if self._by_step else "parameters and state after epochs"
        repaired = f", {self.repairs} parameters repaired" if self.repairs else ", nothing differed"
        run.report.say("checked", f"{what} {self.checks} times{repaired}")
        run.result |= {"checks": self.checks, "repairs": self.repairs}

    # -- comparing -----------------------------------------------------------------------------------

    def _compare(self, copies: list[Copy]) -> None:
        """All digests of all ranks; and whether a gradient was wrong."""
        run, world = self._run, self._run.world
        if list(map(_place, copies)) != list(map(_place, self._copies)):
            self._copies, self._parts = copies, self._parts_of(copies)
        mine = self._digests()
        said = world.comm.allgather((mine, self._gradient_wrong, self._norm))
        self._gradient_wrong, self._norm = "", 0.0
        self.checks += 1
        run.report.record("check", step=run.step, gradient_norms=[norm for _, _, norm in said])
        for text in [text for _, text, _ in said if text]:
            raise RankError(f"{text} (--check-every {self._every})").on_all_ranks()
        tables = [table for table, _, _ in said]
        wrong = self._wrong(tables)
        self._settle(wrong, "differ")
        self._rest(self._digests() if wrong else mine)

    def _rest(self, digests: np.ndarray) -> None:
        """Have it looked at before the next update."""
        self._resting, self._late_updates = digests, self._run.strategy.late_updates

    def _check_rest(self) -> None:
        """Before an update: nobody had a reason to write since the check, if there was one and a hook has not called ``Strategy.finish``."""
        if self._run.strategy.late_updates != self._late_updates:
            self._resting = None
        if self._resting is None:
            return
        changed = self._digests() != self._resting
        self._resting = None
        said = self._run.world.comm.allgather(changed)
        if not np.any(said):
            return
        wrong = []
        for row, copy in enumerate(self._copies):
            holders = self._holders(copy)
            for column, name in enumerate(self._names):
                bad = [
                    h for h, ranks in enumerate(holders) if any(said[r][row, column] for r in ranks)
                ]
                good = [h for h in range(len(holders)) if h not in bad]
                if bad:
                    source = holders[good[0]][0] if good else -1
                    wrong.append(Wrong(copy, name, tuple(bad), source, self._span(column)))
        self._settle(wrong, "changed at rest")

    def _wrong(self, tables: list[np.ndarray]) -> list[Wrong]:
        """What holders have otherwise than the most."""
        found = []
        for row, copy in enumerate(self._copies):
            holders = self._holders(copy)
            if len(holders) == 1:  # nothing to compare with
                continue
            with np.errstate(over="ignore"):
                sums = np.array([sum(tables[r][row] for r in ranks) for ranks in holders])
            for column in np.flatnonzero((sums != sums[0]).any(axis=0)).tolist():
                counts = Counter(sums[:, column].tolist())
                value, count = counts.most_common(1)[0]
                is_majority = 2 * count > len(holders)
                bad = [
                    h for h in range(len(holders)) if sums[h, column] != value or not is_majority
                ]
                good = [h for h in range(len(holders)) if h not in bad]
                source = holders[good[0]][0] if good else -1
                name = self._names[column]
                found.append(Wrong(copy, name, tuple(bad), source, self._span(column)))
        return found

    def _settle(self, wrong: list[Wrong], what: str) -> None:
        """Repair it, or raise RankError on all ranks."""
        if not wrong:
            return
        run, world = self._run, self._run.world
        texts = [self._said(each, what) for each in wrong[:_NAMED_MAX]]
        more = f"; and {len(wrong) - _NAMED_MAX} more" if len(wrong) > _NAMED_MAX else ""
        text = f"{'; '.join(texts)}{more} (step {run.step}, --check-every {self._every})"
        if not self._repairs or any(each.source < 0 for each in wrong):
            none = [each for each in wrong if each.source < 0]
            hint = "--on-drift repair takes what the others have, --resume the last checkpoint"
            if none:
                hint = (
                    "no majority says what is right: go on from the last checkpoint with --resume"
                )
            raise RankError(f"{text}: a fault of memory or of a processor; {hint}").on_all_ranks()
        for each in wrong:
            start, stop = each.span
            right = world.array_of(each.source, each.copy.vector[start:stop].copy())
            holders = self._holders(each.copy)
            mine = [h for h in each.holders if world.rank in holders[h]]
            if mine and (world.rank == holders[mine[0]][0]):
                each.copy.vector[start:stop] = right
        world.agree(None)
        self.repairs += len(wrong)
        run.report.say("drift", f"{text}: repaired")
        run.report.record("drift", step=run.step, text=text)

    def _said(self, wrong: Wrong, what: str) -> str:
        holders = self._holders(wrong.copy)
        who = ", ".join(self._holder_text(wrong.copy, holders[h]) for h in wrong.holders)
        return f"{wrong.copy.name} of {wrong.name} {what} on {who}"

    def _holder_text(self, copy: Copy, ranks: list[int]) -> str:
        listed = ", ".join(map(str, ranks))
        if not copy.is_of_host:
            return f"rank {listed}"
        host = self._run.world.ranks_of_hosts.index(ranks)
        return f"host {host} (rank{'s' * (len(ranks) > 1)} {listed})"

    def _holders(self, copy: Copy) -> list[list[int]]:
        """Ranks of each that holds it."""
        world = self._run.world
        if copy.is_of_host:
            return world.ranks_of_hosts
        return [[rank] for rank in range(world.size)]

    def _span(self, column: int) -> tuple[int, int]:
        return self._run.layout.bounds[column]

    def _parts_of(self, copies: list[Copy]) -> list[_Part]:
        """This rank's part of each: all of its own copy, or a share of the host's."""
        world, parts = self._run.world, []
        for row, copy in enumerate(copies):
            first, last = 0, copy.vector.size
            if copy.is_of_host:
                first, last = share(0, last, world.local_size, world.local_rank)
            width = copy.vector.itemsize // 4
            for column, (start, stop) in enumerate(self._run.layout.bounds):
                begin, end = max(start, first), min(stop, last)
                if begin < end:
                    words = _words(copy.vector[begin:end])
                    parts.append(_Part(row, column, words, (begin - start) * width))
        return parts

    def _digests(self) -> np.ndarray:
        """Of this rank's parts, uint64 of shape (copies, parameters)."""
        table = np.zeros((len(self._copies), len(self._names)), np.uint64)
        for part in self._parts:
            table[part.row, part.column] = digest_of_words(part.words, part.first)
        return table


def kernels_for(config: Config) -> list[Kernel]:
    """Those that look at numbers: ``not_finite`` in every run."""
    return [not_finite, *([digest_of_words, sum_of_squares] if config.check_every else [])]


def hooks_for(run: Run) -> list[Drift]:
    """Make ``run.drift``, if that is asked for. Collective."""
    run.drift = Drift(run) if run.config.check_every else None
    return [run.drift] if run.drift else []


def finish(run: Run) -> None:
    """``Strategy.finish`` between two steps of an epoch. Collective."""
    if run.drift:
        run.drift.finish()
    else:
        run.strategy.finish()


def _place(copy: Copy) -> tuple[int, int]:
    """Where in memory it is."""
    return copy.vector.ctypes.data, copy.vector.size


def _words(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint32)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return names[0] + more
