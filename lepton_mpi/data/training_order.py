"""Which of the orders of ``order.py`` the training rows come in."""

import numpy as np

from lepton_mpi.data.dataset import DataSet
from lepton_mpi.data.order import BlockShuffle, FullShuffle, MicroBatches
from lepton_mpi.data.tables import BLOCK_BYTES
from lepton_mpi.errors import ConfigurationError

# Shorter runs are read at a fraction of the speed from disks and file servers.
_BLOCK_BYTES_MIN = 128 << 10


def training_order(
    data: DataSet,
    micro_batches: MicroBatches,
    seed: int,
    kind: str,
    window_bytes: int,
    begins_whole: bool = False,
) -> FullShuffle | BlockShuffle:
    """The order of the training rows.

    Parameters
    ----------
    kind : {"auto", "full", "blocks"}
        auto: blocks where rows are streamed, else full.
    window_bytes
        Memory of one window of each micro-batch's stream, all together.
    begins_whole
        Of blocks, see ``BlockShuffle``.

    Raises
    ------
    ConfigurationError
        For the full shuffle of rows that are streamed.
    """
    rows = data.splits["train"]
    if kind == "auto":
        kind = "blocks" if data.way.name == "streamed" else "full"
    if kind == "full":
        if data.way.name == "streamed":
            raise ConfigurationError(
                f"--shuffle full: expected rows in memory or mapped, got streamed ({data.way.reason}); take "
                "--shuffle blocks"
            )
        return FullShuffle(rows.row_count, rows.chosen, micro_batches, seed)
    window_bytes //= micro_batches.count
    # Some blocks in a window, so that neighbours in the file come apart.
    blocks = rows.table.blocks(min(BLOCK_BYTES, max(_BLOCK_BYTES_MIN, window_bytes // 8)))
    if rows.chosen is not None:
        blocks = np.unique(np.searchsorted(rows.chosen, blocks))
    window_rows = window_bytes // max(1, rows.row_bytes)
    return BlockShuffle(rows.chosen, blocks, micro_batches, seed, window_rows, begins_whole)
