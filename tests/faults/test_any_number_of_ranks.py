"""The weights do not depend on the number of ranks, bit for bit."""

from functools import cache
from pathlib import Path

import pytest

from tests.faults import jobs
from tests.split_runs import NETWORKS, digests_program, printed_digests
from tests.split_runs import RUNS as SPLIT_RUNS

RUNS = {
    "digits": ("--recipe", "digits"),
    "breast_cancer": ("--recipe", "breast_cancer"),
    "nothing_divides": ("--global-batch", "37", "--micro-batch", "3", "--bucket-bytes", "5000"),
    "float64_sgd": ("--dtype", "float64", "--optimizer", "sgd", "--learning-rate", "0.1"),
    "clipped": (
        *(
            "--optimizer",
            "adamw",
            "--weight-decay",
            "0.01",
            "--clip-norm",
            "0.5",
            "--clip-value",
            "0.1",
        ),
        *("--schedule", "cosine", "--warmup-epochs", "1", "--bucket-bytes", "9000"),
    ),
    "lion": ("--optimizer", "lion", "--learning-rate", "0.0003", "--weight-decay", "0.1"),
}


@pytest.fixture(scope="module")
def end_on_one_rank(tmp_path_factory):
    """The last record of each run on one rank, computed when it is first asked for."""
    return cache(lambda run: _end(tmp_path_factory.mktemp(run), 1, run))


def _end(folder: Path, ranks: int, run: str) -> dict:
    path = folder / "metrics.jsonl"
    words = (*jobs.TRAIN, "--epochs", "3", "--metrics", str(path), *RUNS[run])
    job = jobs.run(ranks, *words, cwd=folder)
    assert job.code == 0, job.text
    end = jobs.metrics(path)[-1]
    assert end["event"] == "end"
    assert end["world_size"] == ranks
    assert end["weights_digest"] in job.out
    return end


@pytest.mark.slow(but_every=13)
@pytest.mark.parametrize(
    ("run", "ranks"),
    [(run, ranks) for run in ("digits", "breast_cancer") for ranks in (2, 3, 5, 8)]
    + [("nothing_divides", 4), ("float64_sgd", 3), ("clipped", 3), ("clipped", 8), ("lion", 2)],
)
def test_the_digest_is_that_of_one_rank(tmp_path, end_on_one_rank, run, ranks):
    one, many = end_on_one_rank(run), _end(tmp_path, ranks, run)
    assert many["weights_digest"] == one["weights_digest"]
    assert many["test_accuracy"] == one["test_accuracy"]


@pytest.mark.slow
def test_every_model_has_the_digest_of_one_rank_on_eight(tmp_path):
    """Activations, dropout, clipping and regression, with Adam and with momentum, after 3 epochs, and networks of layers."""
    (tmp_path / "runs.py").write_text(digests_program())
    one, eight = (jobs.run(ranks, "runs.py", cwd=tmp_path) for ranks in (1, 8))
    assert one.code == eight.code == 0, one.text + eight.text
    assert printed_digests(eight.out) == printed_digests(one.out)
    assert len({*printed_digests(one.out).values()}) == len(SPLIT_RUNS) + len(NETWORKS)


@pytest.mark.slow
def test_other_runs_have_other_digests(end_on_one_rank):
    assert len({end_on_one_rank(run)["weights_digest"] for run in RUNS}) == len(RUNS)
