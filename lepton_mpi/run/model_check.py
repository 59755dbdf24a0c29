"""``--check-model``: the gradients of a model against finite differences, on the first training rows, before the first step."""

from lepton_mpi.data.order import draws
from lepton_mpi.data.reads import reads_in_order
from lepton_mpi.models.gradient_check import check_gradient
from lepton_mpi.run.run import Run

# Every element that is tried costs two calls of the model.
_ROWS_MAX = 8


def check_model(run: Run) -> None:
    """Collective over the run's world. Raises ConfigurationError on every rank, with the element that is farthest off."""
    world, rows = run.world, run.train_rows
    count = min(_ROWS_MAX, rows.row_count, run.micro_batches.rows)
    with world.agreeing():
        if world.rank == 0:
            (read,) = reads_in_order(rows, 0, count, count)
            draw = draws(run.config.seed, 0, 1)[0]
            batch = run.reader.read(read)._replace(rows=read.numbers, draw=draw)
            check_gradient(run.model, run.parameters, batch)
    run.report.say(
        "checked", f"gradients of {run.model.name} by finite differences, on {count} rows"
    )
