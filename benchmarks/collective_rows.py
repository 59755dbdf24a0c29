"""A row about an allreduce, in nccl-tests' convention: 1 GB = 1e9 bytes, busbw = algbw · 2 (n - 1) / n."""

from typing import Any

from benchmarks.harness import Column, Row

COLUMNS = (
    Column("bytes", "bytes", 10),
    Column("count", "count", 9),
    Column("dtype", "dtype", 7),
    Column("library", "library", 10),
    Column("algorithm", "algorithm", 29),
    Column("mode", "mode", 7),
    Column("tuned", "tuned", 5),
    Column("min_us", "min us", 10, ".1f"),
    Column("time_us", "p50 us", 10, ".1f"),
    Column("p99_us", "p99 us", 10, ".1f"),
    Column("algbw_gbs", "algbw", 8, ".3f"),
    Column("busbw_gbs", "busbw", 8, ".3f"),
    Column("of_limit", "of limit", 8, ".2f"),
    Column("wrong", "#wrong", 6),
)


def allreduce_row(
    *, ranks: int, bytes: int, time_us: float, limit_us: float | None, **others: Any
) -> Row:
    """The row with what follows from ``time_us``: bandwidths and fraction of the limit."""
    algbw_gbs = bytes / time_us * 1e-3
    row = {
        **{"bytes": bytes, "ranks": ranks, **others, "time_us": time_us, "limit_us": limit_us},
        "algbw_gbs": algbw_gbs,
        "busbw_gbs": algbw_gbs * 2 * (ranks - 1) / ranks,
        "of_limit": limit_us and limit_us / time_us,
    }
    return {name: float(f"{v:.6g}") if isinstance(v, float) else v for name, v in row.items()}


def cells(row: Row) -> Row:
    """The row as the table shows it."""
    name, chosen = row["algorithm"], row.get("chosen")
    if chosen not in (None, name):
        name = f"{name}: {chosen}"
    if row["mode"] == "shared":
        name = f"{name} {row['form']}"
    return {**row, "algorithm": name, "tuned": "yes" if row["tuned"] else "no"}
