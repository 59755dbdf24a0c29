"""How much memory a run will take beside Python, its libraries and MPI: known before the first step.

    of a rank alone       what the model works in, a batch of rows, gradients that are added up before they are handed over,
                          the copy of the parameters that ``fit`` returns, and what is as large as an epoch has rows
    shared by a host      vectors of parameters, state and gradients (``Strategy.memory``), rows in memory, their order, the
                          copies of ``--elastic`` and, on the host of rank 0, that of ``--async-save``

A rank's resident memory holds all that its host shares, since every rank maps all of it; the host's has it once. What a model or a
strategy of the user's own works in is not known. Large memory of a host comes in pages of 2 MiB. ``./run_local.sh bench memory`` compares with what Linux counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lepton_mpi.chunks import share
from lepton_mpi.errors import ConfigurationError
from lepton_mpi.run import evaluation, snapshot
from lepton_mpi.wording import grouped, size_text
from lepton_mpi.world.pages import file_length

if TYPE_CHECKING:
    from lepton_mpi.run.run import Run
    from lepton_mpi.vectors import Layout
    from lepton_mpi.world.world import World


class Forecast(NamedTuple):
    """Bytes by purpose: of this rank alone, and of what its host's ranks share; the latter by the names of ``world/memory.py``."""

    own: Mapping[str, int]
    shared: Mapping[str, int]

    @property
    def resident(self) -> int:
        """Of a rank, in which what is shared counts in full."""
        return sum(self.own.values()) + sum(self.shared.values())


def forecast(run: Run) -> Forecast:
    """Of this rank, and of its host."""
    vector_bytes = run.strategy.parameters.nbytes
    batches = set(_batches(run))
    activations = run.model.memory_bytes(sorted(batches), run.strategy.parameters.dtype)
    if run.model.synchronised:  # micro-batches side by side
        activations *= max(1, len(run.strategy.numbers))
    own = {
        "activations": activations,
        "batch": max((rows for rows, _ in batches), default=0) * run.reader.row_bytes,
        "vectors": (run.strategy.own_vectors() + run.divergence.vector_count) * vector_bytes,
        "result": vector_bytes * run.keeps_parameters,
    }
    counts = run.strategy.memory().items()
    shared = {name: file_length(count * vector_bytes) for name, count in counts if count}
    shared["rows"] = _row_bytes(run)
    copies = (run.config.async_save and run.world.host_index == 0) + 2 * run.config.elastic
    if copies:
        shared["snapshot"] = copies * snapshot.memory_bytes(run)
    for name, size in run.reads.memory().items():
        part = shared if name == "order" else own
        part[name] = size
    return Forecast(
        *({name: size for name, size in part.items() if size} for part in (own, shared))
    )


def check_vectors(world: World, layout: Layout, dtype: np.dtype, state_count: int) -> None:
    """Before parameters, state and gradients have memory: is there enough for them? To be called by every rank.

    A rank holds a gradient at least, a host parameters and ``state_count`` vectors of state. Raises ConfigurationError, on this
    rank alone, if its host has less memory free.
    """
    needed = (world.local_size + 1 + state_count) * layout.size * dtype.itemsize
    if needed > (free := world.memory_available()):
        raise ConfigurationError(
            f"the model needs {size_text(needed)} for {grouped(layout.size)} parameters, the optimizer's state and a gradient of each "
            f"of {world.local_size} ranks of a host, which has {size_text(free)} free: take fewer ranks on each host, a smaller model, "
            "or an optimizer with less state, such as --optimizer sgd"
        )


def check_rest(run: Run) -> None:
    """Before the first step: is there enough for what takes memory from then on? Collective over the host.

    Raises ConfigurationError, on the host's ranks alone.
    """
    own = forecast(run).own
    coming = {name: own[name] for name in ("activations", "batch", "result") if name in own}
    needed = sum(run.world.host_comm.allgather(sum(coming.values())))
    if needed > (free := run.world.memory_available()):
        raise ConfigurationError(
            f"the ranks of a host need {size_text(needed)} more to train and to evaluate ({_listed(coming)} on this one), and the host "
            f"has {size_text(free)} free: take a smaller --micro-batch, now of {run.micro_batches.rows} rows, --recompute 2 or "
            "--activations bfloat16, or fewer ranks on each host"
        )


def lines(run: Run) -> list[str]:
    """For people. Collective over the host."""
    found, world = forecast(run), run.world
    own = world.host_comm.allgather(sum(found.own.values()))
    total = sum(own) + sum(found.shared.values())
    return [
        f"a rank will take {size_text(found.resident)}, the host {size_text(total)}, beside Python, its libraries and MPI",
        f"of a rank alone: {_listed(found.own)}",
        f"shared by this host's ranks: {_listed(found.shared)}",
    ]


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size_text(size)}" for name, size in sizes.items()) or "nothing"


def _batches(run: Run) -> Iterator[tuple[int, bool]]:
    """Rows of the calls that the model will get on this rank, and whether it is trained on them."""
    micro_batches = run.micro_batches
    count = run.train_rows.row_count
    if run.strategy.numbers:
        yield min(micro_batches.rows, count), True
        if rest := count % micro_batches.batch_rows % micro_batches.rows:
            yield rest, True
    if not run.model.evaluates:
        return
    batch_rows = evaluation.rows_of_call(run.reader)
    for split in ("validation", "test"):
        first, last = share(0, run.data.splits[split].row_count, run.world.size, run.world.rank)
        if last - first >= batch_rows:
            yield batch_rows, False
        if rest := (last - first) % batch_rows:
            yield rest, False


def _row_bytes(run: Run) -> int:
    """Of all rows in memory. Splits may be parts of one table."""
    arrays: dict[int, np.ndarray] = {}
    for rows in run.data.splits.values():
        inputs = [part.memory for part in rows.inputs if part.memory is not None]
        for array in (*(inputs if run.data.way.name == "memory" else ()), rows.y):
            arrays[id(array)] = array
    return sum(file_length(array.nbytes) for array in arrays.values())
