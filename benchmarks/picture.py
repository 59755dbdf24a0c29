"""The picture of a comparison: bus bandwidth over bytes, one panel per number of ranks. Needs matplotlib."""

from typing import Any

from benchmarks.harness import Row, read_rows
from lepton_mpi.wording import size_text

# Okabe and Ito's colours, which everybody can tell apart; lepton_mpi has the strong ones.
_MODES = {"shared": "#D55E00", "private": "#0072B2", "array": "#009E73"}
_PEERS = {"openmpi": "-", "mpich": "--", "intel": "-.", "gloo": ":"}
_PEER_NAMES = {"openmpi": "Open MPI", "mpich": "MPICH", "intel": "Intel MPI", "gloo": "gloo"}


def draw(source: str, target: str) -> None:
    """Draw the rows of the JSON file ``source`` to ``target``, whose ending says the format."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise SystemExit("--plot needs matplotlib: python -m pip install matplotlib") from None

    matplotlib.use("Agg")
    # The same rows give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "lepton_mpi"
    from matplotlib import pyplot

    rows = read_rows(source)
    rank_counts = sorted({row["ranks"] for row in rows})
    width = 1.2 + 3.6 * len(rank_counts)
    figure, panels = pyplot.subplots(
        1, len(rank_counts), sharey=True, figsize=(width, 4.2), squeeze=False
    )
    for ranks, axes in zip(rank_counts, panels[0], strict=True):
        _draw_panel(axes, [row for row in rows if row["ranks"] == ranks])
        axes.set_title(f"{ranks} ranks")
    panels[0][0].set_ylabel("bus bandwidth, GB/s")
    handles, labels = panels[0][0].get_legend_handles_labels()
    columns = min(len(labels), int(width // 1.5))
    figure.legend(handles, labels, loc="lower center", ncols=columns, frameon=False, fontsize=9)
    figure.suptitle(
        f"allreduce on one host: {rows[0]['cpu']}, {rows[0]['cores']} cores; higher is better",
        fontsize=11,
    )
    figure.tight_layout(rect=(0, 0.02 + 0.05 * -(-len(labels) // columns), 1, 1))
    figure.savefig(target, metadata={"Date": None} if target.endswith(".svg") else None)


def _draw_panel(axes: Any, rows: list[Row]) -> None:
    for library, style in _PEERS.items():
        points = _fastest([row for row in rows if row["library"] == library])
        if points:
            label = f"{_PEER_NAMES[library]}, tuned" if library != "gloo" else "gloo"
            axes.plot(*zip(*points, strict=True), style, color="#666666", linewidth=1, label=label)
    for mode, colour in _MODES.items():
        points = _fastest(
            [row for row in rows if row["library"] == "lepton_mpi" and row["mode"] == mode]
        )
        if points:
            label = f"lepton_mpi, {mode}"
            axes.plot(
                *zip(*points, strict=True),
                "o-",
                color=colour,
                linewidth=2.2,
                markersize=4,
                label=label,
            )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = sorted({row["bytes"] for row in rows})
    ticks = sizes[:: -(-len(sizes) // 6)]
    axes.set_xticks(ticks, [size_text(size) for size in ticks], rotation=40, ha="right", fontsize=8)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _fastest(rows: list[Row]) -> list[tuple[int, float]]:
    """Highest busbw at each size: of a peer's default and tuned cases, of lepton_mpi's algorithms."""
    best: dict[int, float] = {}
    for row in rows:
        best[row["bytes"]] = max(best.get(row["bytes"], 0.0), row["busbw_gbs"])
    return sorted(best.items())
