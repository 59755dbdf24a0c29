"""How fast is an allreduce, and how much faster than others'? A table in nccl-tests' convention.

On running ranks, lepton_mpi alone::

    mpirun -n 4 python -m benchmarks.allreduce --min 8 --max 64M --modes shared private

Without ranks, lepton_mpi beside its peers, each in fresh processes and in turn::

    ./run_local.sh bench allreduce --ranks 2 4 8 --peers --json FILE
    ./run_local.sh bench allreduce --plot FILE.json OUT.svg
    ./run_local.sh bench allreduce --table FILE.json

README.md in this folder says what the numbers mean.
The exit code is 1 (on ranks 5) if a sum was wrong, and 1 if lepton_mpi could not be measured.
"""

import argparse
import os

from benchmarks.harness import command_line, constant_of
from lepton_mpi import launcher
from lepton_mpi.options.kinds import parse_size

SIZES = ("8", "64", "512", "4K", "16K", "64K", "256K", "1M", "4M", "16M", "64M")
MODES = ("shared", "private", "array")
FORMS = ("out_of_place", "in_place")
DTYPES = ("float32", "float64", "int32", "int64")
CONSTANTS = (
    "PIECE_BYTES",
    "STREAM_BYTES",
    "TRIAL_BYTES",
    "PART_BYTES",
    "SMALL_BYTES",
    "SMALL_CROWDED_BYTES",
)
LIBRARIES = ("openmpi", "mpich", "intel", "gloo")
_LAUNCHER_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "SLURM_STEP_NUM_TASKS")


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    options = parse_command_line()
    if options.plot:
        from benchmarks.picture import draw

        draw(*options.plot)
        return 0
    if options.table:
        from benchmarks.readme_table import print_readme_table

        print_readme_table(options.table)
        return 0
    if any(name in os.environ for name in _LAUNCHER_VARIABLES):
        launcher.limit_threads(1)
        # NumPy and Numba read their number of threads when they are loaded.
        from benchmarks.allreduce_ranks import print_table
        from lepton_mpi.world import world

        return world.run(lambda ranks: print_table(ranks, options), options.timeout)
    from benchmarks.comparison import compare

    try:
        return compare(options)
    except KeyboardInterrupt:
        return 130


def parse_command_line() -> argparse.Namespace:
    """Options; ``sizes`` are bytes, ascending; ``peers`` names of libraries."""
    parser = command_line("allreduce", __doc__)
    add = parser.add_argument
    sizes_help = f"with K, M, G for powers of 1024; default: {' '.join(SIZES)}"
    add("--sizes", nargs="+", type=parse_size, metavar="BYTES", help=sizes_help)
    add("--min", type=parse_size, metavar="BYTES", help="with --max: sizes from here, doubling")
    add("--max", type=parse_size, metavar="BYTES")
    add("--algorithms", nargs="+", default=["auto"], metavar="NAME", help="default: auto")
    add("--modes", nargs="+", choices=MODES, default=MODES)
    add(
        "--forms",
        nargs="+",
        choices=FORMS,
        default=FORMS,
        help="of mode shared, the others are always in place; default: both",
    )
    add("--dtype", choices=DTYPES, default="float32")
    add("--seconds", type=float, default=0.3, help="time to measure one case; default: 0.3")
    add("--timeout", type=float, default=300, help="seconds after which a case counts as hung")
    add(
        "--constants",
        nargs="+",
        type=constant_of(CONSTANTS),
        default=[],
        metavar="NAME=BYTES",
        help=f"on ranks: other values of constants of plan_words.py and plans.py: {', '.join(CONSTANTS)}",
    )
    add("--json", metavar="FILE", help="write the rows there, too")
    add = parser.add_argument_group("without ranks").add_argument
    add("--ranks", nargs="+", type=int, default=[2, 4, 8], metavar="N", help="default: 2 4 8")
    peers_help = f"all, or some of: {', '.join(LIBRARIES)}"
    add("--peers", nargs="*", choices=LIBRARIES, metavar="LIBRARY", help=peers_help)
    add("--launches", type=int, default=5, help="fresh launches of each; default: 5")
    add("--table", metavar="FILE.json", help="print the rows as a table in Markdown")
    add("--plot", nargs=2, metavar=("FILE.json", "OUT.svg"), help="draw a picture of the rows")
    options = parser.parse_args()
    if (options.min is None) != (options.max is None):
        parser.error("--min and --max go together")
    if options.min is not None and not 0 < options.min <= options.max:
        parser.error("expected 0 < --min <= --max")
    if options.min is not None:
        doublings = range((options.max // options.min).bit_length())
        options.sizes = [options.min << power for power in doublings]
    options.sizes = sorted(set(options.sizes or map(parse_size, SIZES)))
    itemsize = int(options.dtype[-2:]) // 8
    if any(size % itemsize or not size for size in options.sizes):
        parser.error(f"sizes: expected multiples of {itemsize}, the bytes of a {options.dtype}")
    options.peers = LIBRARIES if options.peers == [] else options.peers or ()
    return options


if __name__ == "__main__":
    raise SystemExit(main())
