"""How fast do codecs compress and restore a vector on one core, how small is it, and how much of it is lost at first?

    ./run_local.sh bench codecs

"encode" adds the vector to the residual, makes the payload and leaves the rest in the residual; "decode" fills a vector.
GB/s are bytes of the vector over the median time; "both" is one after the other, and "copy" is NumPy's copy of the
vector, of which each byte is read and written once. Vectors that fit a second-level cache are beside those that come from memory.

"error" is the norm of what a first payload leaves out over the norm of the vector, normal random numbers, the worst case for
sparse codecs and low rank: gradients have few large elements. Error feedback sends the rest later.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.harness import (
    Column,
    Row,
    command_line,
    machine,
    print_header,
    print_row,
    print_titles,
    write_rows,
)
from lepton_mpi.collectives.compressing.codec import Codec
from lepton_mpi.collectives.compressing.exchange import Slice, payload_memory
from lepton_mpi.collectives.compressing.low_rank_lane import Matrix
from lepton_mpi.collectives.compressing.powersgd import PowerSgd
from lepton_mpi.strategies.registry import CODECS

TEXTS = (
    *("fp16", "bf16", "int8", "int4", "sign", "topk:0.01", "topk:0.01,sampled", "randomk:0.01"),
    *("powersgd:1", "powersgd:4"),
)
# Squares, which are matrices of low rank, too: 256 KiB and 39 MB.
SIDES = (256, 3136)
_COLUMNS = (
    Column("codec", "codec", 18),
    Column("bytes", "bytes", 10),
    Column("encode_gbps", "encode GB/s", 12, ".2f"),
    Column("decode_gbps", "decode GB/s", 12, ".2f"),
    Column("both_gbps", "both GB/s", 10, ".2f"),
    Column("copy_gbps", "copy GB/s", 10, ".2f"),
    Column("ratio", "times less", 11, ".1f"),
    Column("error", "error", 8, ".4f"),
    Column("wrong", "#wrong", 6),
)
_KEY = np.uint64(0x1234567)
# What is decoded and what is left must be the vector, to so many roundings of its largest element.
_ROUNDINGS = 64


def main() -> int:
    """Measure, print and write; returns 1 if something was lost."""
    parser = command_line("codecs", __doc__)
    parser.add_argument("--codecs", nargs="+", default=TEXTS, metavar="NAME", help="default: all")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each time; default: 0.5")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    facts = machine()
    print_header(f"codecs of {options.dtype}, one core", facts)
    print_titles(_COLUMNS)
    rows: list[Row] = []
    for side in SIDES:
        for text in options.codecs:
            row = measure(text, side, np.dtype(options.dtype), options.seconds)
            print_row(_COLUMNS, row)
            rows.append({**row, **facts})
    if options.json:
        write_rows(options.json, rows)
    return int(any(row["wrong"] for row in rows))


def measure(text: str, side: int, dtype: np.dtype, seconds: float) -> Row:
    """One codec on ``side**2`` elements."""
    name, _, option = text.partition(":")
    codec = CODECS.find(name)(option, dtype)
    x = np.random.default_rng(0).standard_normal(side * side).astype(dtype)
    residual, out = np.zeros_like(x), np.zeros_like(x)
    make = _low_rank if isinstance(codec, PowerSgd) else _of_vector
    encode, decode, sent = make(codec, x, residual, out, side)
    encode()
    decode()
    lost = np.abs(out.astype(float) + residual - x) > _ROUNDINGS * np.finfo(dtype).eps * 8
    error = float(np.linalg.norm(residual) / np.linalg.norm(x))

    def clear() -> None:
        residual[:] = 0

    times = {
        "encode": _median_seconds(encode, seconds, clear),
        "decode": _median_seconds(decode, seconds),
        "copy": _median_seconds(lambda: np.copyto(out, x), seconds),
    }
    times["both"] = times["encode"] + times["decode"]
    return {
        **{"codec": text, "dtype": dtype.name, "bytes": x.nbytes, "sent_bytes": sent},
        **{f"{what}_gbps": x.nbytes / time_ / 1e9 for what, time_ in times.items()},
        **{"ratio": x.nbytes / sent, "error": error, "wrong": int(lost.sum())},
    }


def _of_vector(
    codec: Codec, x: np.ndarray, residual: np.ndarray, out: np.ndarray, side: int
) -> tuple[Callable[[], None], Callable[[], None], int]:
    payload = payload_memory(codec.sent_bytes(x.size))
    return (
        lambda: codec.encode(x, residual, payload, _KEY),
        lambda: codec.decode(payload, out, _KEY, False),
        payload.nbytes,
    )


def _low_rank(
    codec: PowerSgd, x: np.ndarray, residual: np.ndarray, out: np.ndarray, side: int
) -> tuple[Callable[[], None], Callable[[], None], int]:
    """Of one host, so that P and Q are its own."""
    of = Slice([x], out, residual, residual, 0, lambda purpose, element: _KEY)
    parts = np.zeros(side * codec.rank, x.dtype), np.zeros(side * codec.rank, x.dtype)
    matrix = Matrix(of, 0, (side, side), codec.rank, parts, np.zeros_like(x))

    def encode() -> None:
        matrix.begin()
        matrix.multiply_right(x)
        matrix.multiply_left()

    return encode, matrix.decode, codec.sent_bytes((side, side))


def _median_seconds(
    call: Callable[[], None], seconds: float, before: Callable[[], None] = lambda: None
) -> float:
    """Of calls for so long, after some to warm up, each after ``before``."""
    found: list[float] = []
    for _ in range(3):
        call()
    end = time.perf_counter() + seconds
    while len(found) < 5 or time.perf_counter() < end:
        before()
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


if __name__ == "__main__":
    raise SystemExit(main())
