"""A task of one's own: some mistakes cost more than others, and the mean cost is the score."""

from lepton_mpi.tasks.classes import Classes


class Costs(Classes):
    """Named by ``--task tests/own/costs.py:Costs``; called with the data set."""

    name, score = "costs", "cost"
    better = {**Classes.better, "cost": "lower"}  # noqa: RUF012

    def __init__(self, data):
        super().__init__(data.class_names, data.dtype)

    def figures(self, sums, loss, weight):
        """A digit that is taken for a higher one costs by how much."""
        cost = sum(
            max(0, column - row) * int(count)
            for row, counts in enumerate(sums)
            for column, count in enumerate(counts)
        )
        return super().figures(sums, loss, weight) | {"cost": cost / weight}

    def sentence(self, figures):
        return f"cost {figures['cost']:.4f}, {super().sentence(figures)}"
