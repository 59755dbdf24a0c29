"""The picture of ``strategies``: validation loss over seconds and over bytes, a row for each task. Needs matplotlib."""

from collections.abc import Sequence

from benchmarks.harness import Row


def draw(rows: Sequence[Row], target: str) -> None:
    """Draw rows of ``benchmarks.strategies`` to ``target``, whose ending says the format."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise SystemExit("--plot needs matplotlib: python -m pip install matplotlib") from None

    matplotlib.use("Agg")
    # The same rows give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "lepton_mpi"
    # Letters as text: a third of the file.
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    places = list(dict.fromkeys((row["task"], row["network"]) for row in rows))
    ways = list(dict.fromkeys(row["way"] for row in rows))
    colours = pyplot.get_cmap("tab20")
    figure, panels = pyplot.subplots(len(places), 2, figsize=(11, 3.2 * len(places)), squeeze=False)
    for (task, network), (over_time, over_bytes) in zip(places, panels, strict=True):
        for row in rows:
            if (row["task"], row["network"]) != (task, network):
                continue
            style = {"color": colours(ways.index(row["way"]) % 20), "label": row["way"]}
            seconds, spent = [], 0.0
            for lasted, _ in row["curve"]:
                spent += lasted
                seconds.append(spent)
            losses = [loss for _, loss in row["curve"]]
            over_time.plot(seconds, losses, **style)
            if row["bytes_per_step"]:
                steps = [row["steps"] * (number + 1) / len(losses) for number in range(len(losses))]
                over_bytes.plot([_sent(row, step) for step in steps], losses, **style)
        if not over_bytes.lines:
            over_bytes.set_axis_off()
        for axes, unit in ((over_time, "seconds"), (over_bytes, "bytes sent by a host")):
            axes.set(xlabel=unit, ylabel="validation loss", xscale="log", yscale="log")
        over_time.set_title(f"{task}, {network}", loc="left")
    drawn = [panel.get_legend_handles_labels() for panel, _ in panels]
    lines = {label: line for found in drawn for line, label in zip(*found, strict=True)}
    figure.legend(
        lines.values(), lines.keys(), loc="lower center", ncols=5, frameon=False, fontsize=9
    )
    figure.tight_layout(rect=(0, 0.28 / len(places), 1, 1))
    figure.savefig(target)


def _sent(row: Row, steps: float) -> float:
    """Bytes of so many steps, those of a warm-up as ``sync`` sends them."""
    warm_up = min(steps, row["warm_up_steps"])
    first = warm_up * row["warm_up_bytes"] if warm_up else 0
    return first + (steps - warm_up) * row["bytes_per_step"]
