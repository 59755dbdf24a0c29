"""What a peer's program is asked for, ``--cases BYTES:FORM[:GIVE_UP_US] …``, and how it answers: rows."""

import argparse
from collections.abc import Callable
from math import inf

import numpy as np

from benchmarks.harness import Row, write_rows
from lepton_mpi.collectives.choosing.timing import Call, Ranks, measure


def parse_arguments(*options: str) -> argparse.Namespace:
    """The command line of a peer's program; ``options`` names further ones that take a whole number."""
    parser = argparse.ArgumentParser()
    for option in options:
        parser.add_argument(option, type=int, required=True)
    parser.add_argument("--cases", nargs="+", type=_case, required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--json", required=True)
    return parser.parse_args()


def _case(text: str) -> tuple[int, str, float]:
    byte_count, form, *give_up_us = text.split(":")
    return int(byte_count), form, float(give_up_us[0]) if give_up_us else inf


def measure_cases(
    arguments: argparse.Namespace,
    ranks: Ranks,
    make_call: Callable[[str, np.ndarray], Call],
    version: str,
) -> None:
    """Measure each case and write its row at once. Collective over ``ranks``.

    A case that was given up has no row.
    """
    rows: list[Row] = []
    for byte_count, form, give_up_us in arguments.cases:
        dtype = np.dtype(arguments.dtype)
        vector = np.zeros(byte_count // dtype.itemsize, dtype)
        timing = measure(ranks, make_call(form, vector), arguments.seconds, give_up_us * 1e-6)
        if timing and ranks.rank == 0:
            case = {"bytes": vector.nbytes, "count": vector.size, "dtype": dtype.name, "form": form}
            rows.append({**case, "version": version, **vars(timing)})
            write_rows(arguments.json, rows)
