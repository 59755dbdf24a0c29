"""From tables to rows that are ready: in the host's memory, mapped, or to be streamed.

In memory all ranks of a host fill one table together, each its part of the file, and all read from it afterwards: any
row of an epoch's order can be gathered by any rank, and the host holds one copy. Classes and targets are always so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from lepton_mpi.chunks import share
from lepton_mpi.data.files.stored_rows import StoredRows
from lepton_mpi.data.host import Host
from lepton_mpi.data.rows import InputRows, Rows
from lepton_mpi.data.tables import RowTable
from lepton_mpi.data.token_tables import TokenTable
from lepton_mpi.data.ways import Way, WayName, choose
from lepton_mpi.errors import ConfigurationError

# Of a row, on each rank, while it is found out which are held out; the order of an epoch takes less.
_ORDER_BYTES = 32
# What codes may be in memory, where all files have them so; else int32.
_CODE_TYPES = tuple(np.dtype(kind) for kind in (np.uint8, np.uint16, np.int32))


@dataclass(frozen=True)
class Shape:
    """What a row takes in memory.

    Attributes
    ----------
    inputs : tuple of InputRows
        Without memory.
    target_count : int
        Targets of a row, 0 for classes.
    dtype : np.dtype
        Of the batches.
    """

    inputs: tuple[InputRows, ...]
    target_count: int
    dtype: np.dtype


def shape_of(tables: Mapping[str, RowTable], target_count: int, dtype: np.dtype) -> Shape:
    """Bytes stay bytes, a quarter of the memory, and so do short codes, if every file has them so."""
    inputs, first = [], next(iter(tables.values()))
    for name, spec in first.specs.items():
        stored = {rows.dtype for table in tables.values() for rows in table.stored(name)}
        kept = (np.dtype(np.uint8),) if spec.kind == "numbers" else _CODE_TYPES
        other = dtype if spec.kind == "numbers" else np.dtype(np.int32)
        common = next(iter(stored)) if len(stored) == 1 else None
        kind, more = common if common in kept else other, isinstance(first, TokenTable)
        inputs.append(InputRows(name, spec, kind, more_read=int(more)))
    return Shape(tuple(inputs), target_count, dtype)


def choose_way(
    paths: list[Path], tables: Mapping[str, RowTable], shape: Shape, wanted: WayName, host: Host
) -> Way:
    """The same on every rank of every host. Collective. Raises ConfigurationError."""
    rows = sum(table.row_count for table in tables.values())
    why_not = _why_not_mapped(tables, shape)
    # Each rank shuffles numbers of all rows, if they are not streamed.
    available = host.least(max(0, host.memory_available() - _ORDER_BYTES * rows * host.local_size))
    memory_bytes = sum(
        prod(table.memory_shape(part.name)) * part.dtype.itemsize
        for table in tables.values()
        for part in shape.inputs
    )
    chosen = choose(wanted, memory_bytes, why_not, available)
    with host.agreeing():
        if chosen.name == "mapped" and why_not:
            raise ConfigurationError(f"--loader mapped: {paths[0]}: {why_not}")
    return chosen


def make_rows(
    tables: Mapping[str, RowTable], shape: Shape, way: Way, host: Host
) -> dict[str, Rows]:
    """Rows of every table, filled as far as they are kept in memory. Collective over the host."""
    splits = {}
    for split, table in tables.items():
        rows, targets = table.row_count, shape.target_count
        windows = table.windows if isinstance(table, TokenTable) else None
        of_y = ((rows, targets), shape.dtype) if targets else ((rows,), np.dtype(np.int32))
        y = np.empty((rows, 0), np.int32) if windows else host.host_array(*of_y, "rows")
        inputs = [
            replace(part, memory=_memory(table, part, way, host)) for part in shape.inputs
        ]  # in this order on every rank
        mapped = table.first if way.name == "mapped" and rows else None
        splits[split] = Rows(table, inputs, y, None, windows, mapped)
    with host.agreeing():
        for rows_of_split in splits.values():
            _fill(rows_of_split, host, is_mapped=way.name == "mapped")
    host.host_barrier()
    return splits


def _memory(table: RowTable, part: InputRows, way: Way, host: Host) -> np.ndarray | None:
    """Where an input of all rows will be; where it is, if it is mapped."""
    if way.name == "streamed":
        return None
    shape = table.memory_shape(part.name)
    if way.name == "memory":
        return host.host_array(shape, part.dtype, "rows")
    (stored,) = table.stored(part.name)
    return stored.mapped(shape) if prod(shape) else np.zeros(shape, stored.dtype)


def _why_not_mapped(tables: Mapping[str, RowTable], shape: Shape) -> str:
    """Why kernels cannot read the rows where they lie in the file; empty if they can."""
    for table in tables.values():
        for part in shape.inputs:
            files = table.stored(part.name)
            if len(files) > 1:
                return f"expected one file, got {len(files)}"
            if reason := why_not_in_place(files[0], part.dtype):
                return reason
    return ""


def why_not_in_place(stored: StoredRows, dtype: np.dtype) -> str:
    """Why a data set cannot be used as it lies in its file, as ``dtype``; empty if it can."""
    if stored.row_count and stored.map_offset is None:
        return f"{stored.name}: expected rows in one piece, as prepare --layout contiguous writes them, got chunks"
    if stored.dtype != dtype:
        return f"{stored.name}: expected {dtype} as in memory, got {stored.dtype}"
    if (stored.map_offset or 0) % dtype.itemsize:
        return f"{stored.name}: expected rows from a multiple of {dtype.itemsize} bytes"
    return ""


def _fill(rows: Rows, host: Host, is_mapped: bool) -> None:
    """This rank's part of what is kept in memory; rows that are mapped are looked at. Raises DataError."""
    blocks = rows.table.memory_blocks()
    first, last = share(0, len(blocks) - 1, host.local_size, host.local_rank)
    for start, stop in zip(blocks[first:last], blocks[first + 1 : last + 1], strict=True):
        host.clock.enter("start")  # progress, for the time limit, which is not one for all the data
        rows.table.read_y(start, stop, rows.y[start:stop])
        for part in rows.inputs:
            if part.memory is None:
                continue
            block = part.memory[start:stop]
            if is_mapped:
                rows.table.check_mapped(part.name, start, block)
            else:
                rows.table.read_memory(part.name, start, stop, block)
