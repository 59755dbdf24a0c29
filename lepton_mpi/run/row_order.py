"""The rows of a run and their order, as checkpoints say it: a run goes on with the same rows in the same order, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_mpi.data.order import BlockShuffle
from lepton_mpi.errors import DataError
from lepton_mpi.run.resume import Start
from lepton_mpi.vectors import digest_of
from lepton_mpi.wording import one_line

if TYPE_CHECKING:
    from lepton_mpi.data.order import FullShuffle, MicroBatches
    from lepton_mpi.data.rows import Rows
    from lepton_mpi.world.rank_group import RankGroup


def features_digest(rows: Rows, world: RankGroup) -> str:
    """That of ``rows``, by rank 0 for all. Collective. Raises DataError on every rank."""
    digest = ""
    with world.agreeing():
        if world.rank == 0:
            digest = rows.features_digest()
    found: str = world.broadcast(digest)
    return found


def order_facts(
    shuffle: FullShuffle | BlockShuffle, rows: Rows, features_digest: str
) -> dict[str, Any]:
    """All that the order of ``rows`` follows from, beside the seed and the micro-batches, and what tells the rows from others."""
    facts = {"shuffle": shuffle.name, "rows": rows.row_count, **rows.facts()}
    facts |= {"x_digest": features_digest} if features_digest else {}
    if isinstance(shuffle, BlockShuffle):
        blocks = np.ascontiguousarray(shuffle.blocks, "<i8")
        facts |= {
            "blocks": len(blocks) - 1,
            "blocks_digest": digest_of(blocks),
            "window_rows": shuffle.window_rows,
        }
    return facts


def check_order(start: Start, now: dict[str, Any], micro_batches: MicroBatches) -> None:
    """Raises DataError if rows would come in another order than before, or be others in the middle of a run."""
    # Older checkpoints have no digest of y, or of x.
    origin = start.path or "the state in memory"
    known = {name: now[name] for name in ("y_digest", "x_digest") if name in now}
    before = start.order and known | start.order
    if before and before != now and {**before, "x_digest": ""} == {**now, "x_digest": ""}:
        raise DataError(
            f"{origin}: expected the rows that training began with, got others that have the same labels; give --data as before, or "
            f"begin anew on these rows with the parameters: --initial {origin}"
        )
    if before and before != now:
        differing = ", ".join(
            f"{one_line(key)} {one_line(before.get(key))} to {now.get(key)}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        )
        raise DataError(
            f"{origin}: expected the rows in the order in which training began, which changed: {differing}; give "
            "--data with its files in their order, --shuffle and --shuffle-buffer as before"
        )
    steps = micro_batches.step_count(now["rows"])
    made = (start.epoch - 1) * steps + start.row // micro_batches.batch_rows
    if start.goes_on and start.step != made:
        raise DataError(
            f"{origin}: expected step {made} at epoch {start.epoch}, row {start.row} of {now['rows']} training rows, "
            f"got step {start.step}; give --data as before"
        )
