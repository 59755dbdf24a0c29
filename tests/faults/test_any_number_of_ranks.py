"""The weights do not depend on the number of ranks, bit for bit."""

import pytest

from tests.faults import jobs


def _end(folder, ranks: int, *options: str) -> dict:
    path = folder / f"{ranks}.jsonl"
    job = jobs.run(ranks, *jobs.TRAIN, "--epochs", "3", "--metrics", str(path), *options, cwd=folder)
    assert job.code == 0, job.text
    end = jobs.metrics(path)[-1]
    assert end["event"] == "end"
    assert end["world_size"] == ranks
    assert end["weights_digest"] in job.out
    return end


@pytest.mark.parametrize("recipe", ["digits", "breast_cancer"])
def test_digest(tmp_path, recipe):
    ends = {ranks: _end(tmp_path, ranks, "--recipe", recipe) for ranks in (1, 2, 3, 5, 8)}
    digests = {ranks: end["weights_digest"] for ranks, end in ends.items()}
    assert len(set(digests.values())) == 1, digests
    assert len({end["test_accuracy"] for end in ends.values()}) == 1


def test_digest_of_a_batch_that_nothing_divides(tmp_path):
    options = ("--batch", "37", "--micro-batch", "3", "--dtype", "float64", "--bucket-bytes", "5000")
    digests = {ranks: _end(tmp_path, ranks, *options)["weights_digest"] for ranks in (1, 3, 4)}
    assert len(set(digests.values())) == 1, digests
