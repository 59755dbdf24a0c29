"""An epoch of training on a file that is streamed: ``mpirun -n 2 python -m benchmarks.engines.loader_training …``.

What a user's job takes of memory, and nothing that only a benchmark would need.
"""

import json
from pathlib import Path

from lepton_mpi import launcher

_TIMEOUT_SECONDS = 600


def main() -> int:
    """Train; rank 0 writes the row."""
    from benchmarks.engines.loader_case import parser

    options = parser().parse_args()
    launcher.limit_threads(1)
    # NumPy and Numba read their number of threads when they are loaded.
    from lepton_mpi.world import world

    return world.run(lambda ranks: _measure(ranks, options), _TIMEOUT_SECONDS)


def _measure(world, options) -> None:
    from benchmarks.engines import loader_case as case
    from benchmarks.harness import write_rows
    from lepton_mpi.options.config import Config
    from lepton_mpi.run import fit

    (file,), (state,) = options.files, options.caches
    case.set_cache(case.WorldRanks(world), file.path, state)
    metrics = Path(options.json).with_suffix(".jsonl")
    config = Config(
        data=str(file.path),
        loader="streamed",
        # Of long rows the weights of a hidden layer would take more memory than the limit that this is run under.
        hidden=(128,) if file.sample_bytes < 1 << 14 else (),
        epochs=1,
        global_batch=64 * world.size,
        metrics=str(metrics),
        progress="none",
    )
    fit.train(config, world)
    memories = world.comm.allgather(case.memory_bytes())
    if world.rank:
        return
    start, *_, end = (json.loads(line) for line in metrics.read_text().splitlines())
    metrics.unlink()
    row = case.loader_row(
        "lepton_mpi",
        file,
        state,
        world.size,
        end["samples_per_second"],
        way="streamed",
        wait_share=end["time_split"]["input"],
        wrong=file.row_count - start["rows"]["train"],
        peak_rss=sum(peak for peak, _ in memories),
        pss=sum(pss for _, pss in memories),
    )
    write_rows(options.json, [row])


if __name__ == "__main__":
    raise SystemExit(main())
