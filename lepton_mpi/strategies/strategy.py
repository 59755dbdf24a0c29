"""``Strategy``: how gradients become new parameters. One file each; ``registry.py`` names them."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from lepton_mpi.collectives.group import Group
from lepton_mpi.kernels.compiling import Kernel
from lepton_mpi.optimizers.optimizer import Optimizer
from lepton_mpi.optimizers.settings import Settings
from lepton_mpi.sync import Sync
from lepton_mpi.vectors import Layout, Views

# Which ranks leave a step out together.
SkipScope = Literal["", "rank", "host", "all"]


class Share(NamedTuple):
    """One micro-batch of a step that this rank computes.

    Attributes
    ----------
    number : int
        Of the micro-batch in its step, from 0.
    vector, gradient : shape (layout.size,), and named views of it
        To be filled with the summed gradient, zeros for an empty micro-batch, before the next share is taken.
    sync : Sync
        What the model calls meanwhile.
    """

    number: int
    vector: np.ndarray
    gradient: Views
    sync: Sync


class Copy(NamedTuple):
    """A flat vector that several hold with the same bits.

    Attributes
    ----------
    name : str
    vector : shape (layout.size,)
    is_of_host : bool
        Whether the ranks of a host hold it together, else each rank has its own.
    """

    name: str
    vector: np.ndarray
    is_of_host: bool


class Strategy(Protocol):
    """Made by ``make(setting)``, which is collective over the group. Every rank makes every step.

    Attributes
    ----------
    parameters : shape (layout.size,)
        What this rank computes with.
    is_shared : bool
        Whether ``parameters`` are memory of the host: then ``local_rank`` 0 fills them at the beginning, else every rank.
    numbers : list of int
        Micro-batches of a step that this rank computes, in the order of ``shares``.
    kernels : sequence of Kernel
        Those that it calls, to be compiled by all ranks side by side before the first step. One that is left out is compiled
        at its first call.
    reproducible : bool
        Whether the bits of ``consensus`` depend neither on the speed of ranks nor on where they run; nor on their number, but for
        strategies of workers, which the head line says.
    is_in_step : bool
        Whether all ranks compute a step with the same parameters and at the same time, so that they may meet within it.
    freezes : bool
        Whether it leaves the parameters of ``Setting.frozen`` as they are.
    weighed : sequence of int, or None
        Micro-batches of which ``step`` is told the weight, 0 where they are empty; None: all of the step, over all ranks.
    can_share_out : bool
        Whether ``share_out`` may be called. It changes no bit of what is ``reproducible``.
    outlives_ranks : bool
        Whether all that its ranks wait in ends when one of them is lost (``world/losses.py``), so that the others can begin anew.
    skips : {"", "rank", "host", "all"}
        Ranks that make a step together, so that all of them leave it out or none, by ``skip``; "" where it cannot be called.
    compresses : bool
        Whether it follows ``Setting.compress``; else a run with a codec is refused.
    late_updates : int
        How often ``finish`` has written to what ``copies`` has, since an update was under way; the same on all ranks.
    """

    parameters: np.ndarray
    is_shared: bool
    numbers: list[int]
    kernels: Sequence[Kernel]
    reproducible: bool
    is_in_step: bool
    freezes: bool
    weighed: Sequence[int] | None
    can_share_out: bool
    compresses: bool
    outlives_ranks: bool
    skips: SkipScope
    late_updates: int

    def shares(self, step: int) -> Iterable[Share]:
        """This rank's micro-batches of step ``step``, which counts from 1; all of them, then ``step``."""

    def step(self, step: int, weight: int) -> None:
        """Make new parameters of the gradients, whose sum over all micro-batches, or those of ``weighed``, is divided by
        ``weight``.

        Some of the work may go on in the background until ``finish``, or until ``Sync.need``. Collective over the group.
        While it waits for other ranks the group's ``clock`` is in phase communication or waiting, and in compute behind it:
        a report of a hang names the ranks that are in neither. The same holds for ``finish``.
        """

    def skip(self, step: int) -> None:
        """In place of ``step``, on all ranks of ``skips``: the gradients are dropped, parameters and state stay as they are.

        Who exchanges something besides the gradients of a step still does. Collective as ``step``.
        """

    def finish(self) -> None:
        """Return once ``parameters`` are those after the last step. Collective over the group."""

    def pause(self) -> None:
        """An epoch ends, and the run goes on without a checkpoint: return once ``consensus`` may be evaluated. As ``finish``, but
        workers that differ may stay apart. Collective over the group.
        """

    def share_out(self, bounds: Sequence[int]) -> None:
        """From the next step on place p (see ``Group``) computes micro-batches [bounds[p], bounds[p + 1]) of each, perhaps none.

        ``numbers`` are others then. Collective over the group, between two steps.
        """

    def consensus(self) -> np.ndarray:
        """Parameters that are evaluated, saved and digested, shape (layout.size,). Collective, after ``finish``, or evaluated alone after
        ``pause``.
        """

    def collect(self) -> None:
        """Have in ``state`` what other hosts hold. Collective, after ``finish`` and before ``state``."""

    def copies(self) -> list[Copy]:
        """What has the same bits wherever it is held after every step, complete when this returns, and until the next step; nothing
        where ranks differ between two meetings. To be called between two steps. Collective over the group.
        """

    def copies_at_end(self) -> list[Copy]:
        """The same after ``finish``."""

    def state(self) -> dict[str, np.ndarray]:
        """Flat vectors beside the parameters that a run goes on from, by name."""

    def restore(self, parameters: np.ndarray | None, state: Mapping[str, np.ndarray]) -> None:
        """Take both from a checkpoint, or from a copy between two steps, after ``finish``; None leaves the parameters. ValueError for other names than those of ``state``."""

    def facts(self) -> dict[str, Any]:
        """How it works, for the record of a run's beginning; ``str(strategy)`` says it to people."""

    def figures(self) -> dict[str, float]:
        """What it measured, for the end of a run. Collective over the group."""

    def memory(self) -> dict[str, int]:
        """How many vectors of the parameters' length a host holds, by the purposes of ``world/memory.py``."""

    def own_vectors(self) -> int:
        """How many more of that length this rank alone holds."""

    def close(self) -> None:
        """Give back what it holds. Collective over the group."""


class StrategyBase:
    """Optional members of ``Strategy``: no-ops, and the state of an optimizer if there is one. To inherit from."""

    parameters: np.ndarray
    is_shared: bool = False
    kernels: Sequence[Kernel] = ()
    reproducible: bool = False
    is_in_step: bool = False
    freezes: bool = False
    weighed: Sequence[int] | None = None
    can_share_out: bool = False
    compresses: bool = False
    outlives_ranks: bool = False
    skips: SkipScope = ""
    late_updates: int = 0
    optimizer: Optimizer | None = None

    def skip(self, step: int) -> None:
        """Nothing is under way before ``step``. Of those that say so by ``skips``."""

    def finish(self) -> None:
        """``step`` has left nothing to do."""

    def pause(self) -> None:
        """All is finished."""
        self.finish()

    def share_out(self, bounds: Sequence[int]) -> None:
        """Not for this one."""
        raise NotImplementedError(f"{self}: who computes what is fixed")

    def consensus(self) -> np.ndarray:
        """The parameters: all ranks have the same."""
        return self.parameters

    def collect(self) -> None:
        """Every host has all of the state."""

    def copies(self) -> list[Copy]:
        """Nothing is known of steps."""
        return []

    def copies_at_end(self) -> list[Copy]:
        """Parameters and the optimizer's state."""
        state = self.optimizer.named_state if self.optimizer else {}
        vectors = {"parameters": self.parameters, **state}
        return [Copy(name, vector, self.is_shared) for name, vector in vectors.items()]

    def state(self) -> dict[str, np.ndarray]:
        """The optimizer's vectors by name."""
        return self.optimizer.named_state if self.optimizer else {}

    def restore(self, parameters: np.ndarray | None, state: Mapping[str, np.ndarray]) -> None:
        """See ``Strategy``; to be called by ``local_rank`` 0 if ``is_shared``, else by every rank."""
        own = self.state()
        if own.keys() != state.keys():
            expected, came = (", ".join(sorted(names)) or "none" for names in (own, state))
            raise ValueError(f"expected optimizer state {expected}, got {came}")
        if parameters is not None:
            self.parameters[:] = parameters
        for name, vector in own.items():
            vector[:] = state[name]

    def facts(self) -> dict[str, Any]:
        """None."""
        return {}

    def figures(self) -> dict[str, float]:
        """None."""
        return {}

    def memory(self) -> dict[str, int]:
        """None that the host shares."""
        return {}

    def own_vectors(self) -> int:
        """None that is known of."""
        return 0

    def close(self) -> None:
        """Memory and communicators are the group's, which gives them back."""


@dataclass(frozen=True)
class Setting:
    """What a strategy is made of.

    Attributes
    ----------
    group : Group
        The ranks that train together.
    layout, dtype
        Of the parameters.
    micro_batch_count : int
        Of a step, over all ranks.
    optimizer : optimizers.Settings
    clip_norm : float
        Largest norm of the mean gradient; infinity for none.
    buckets : list of (start, stop)
        Slices of the flat vector, from its end, that may be summed one after the other.
    allreduce : str
        ``--allreduce``.
    segment_bytes : int
        Size of one message.
    averaged : mapping of str to float
        Parameters that are not trained, ``Model.averaged``.
    decayed : collection of str, or None
        Parameters that weight decay acts on, ``Model.decayed``.
    frozen : collection of str
        Parameters that stay as they are, ``Model.frozen``; their gradient may be anything.
    is_asked : bool
        Whether the model calls ``Sync.need`` before it reads a parameter.
    own : object, optional
        Options that this strategy alone has.
    compress : str
        ``--compress``, see ``compression.py``.
    compress_after : int
        ``--compress-after``: steps at the beginning in which nothing is compressed.
    seed : int
        ``--seed``, for random numbers of a codec or a topology.
    is_balanced : bool
        Whether ``share_out`` will be called as speeds of ranks ask for it.
    strategy : str
        ``--strategy``, for messages.
    """

    group: Group
    layout: Layout
    dtype: np.dtype
    micro_batch_count: int
    optimizer: Settings
    clip_norm: float = math.inf
    buckets: Sequence[tuple[int, int]] = ()
    allreduce: str = "auto"
    segment_bytes: int = 256 << 10
    averaged: Mapping[str, float] = field(default_factory=dict)
    decayed: Collection[str] | None = None
    frozen: Collection[str] = ()
    is_asked: bool = False
    own: Any = None
    compress: str = "none"
    compress_after: int = 0
    seed: int = 0
    is_balanced: bool = False
    strategy: str = ""

    @property
    def frozen_spans(self) -> list[tuple[int, int]]:
        """Elements (start, stop) of the parameters that stay as they are."""
        named = zip(self.layout.shapes, self.layout.bounds, strict=True)
        return [bounds for name, bounds in named if name in self.frozen]

    @property
    def trained_spans(self) -> list[tuple[int, int]]:
        """Elements (start, stop) that have a gradient, which its norm is of."""
        spans: list[tuple[int, int]] = []
        for name, (start, stop) in zip(self.layout.shapes, self.layout.bounds, strict=True):
            if name in self.averaged or name in self.frozen:
                continue
            if spans and spans[-1][1] == start:
                start = spans.pop()[0]
            spans.append((start, stop))
        return spans

    @property
    def clips(self) -> bool:
        """Whether gradients are clipped by their norm, so that all of the sum is needed before the first update."""
        return self.clip_norm < math.inf
